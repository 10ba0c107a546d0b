"""Held-out evaluation: metrics with intervals, problem suites, the runner."""
