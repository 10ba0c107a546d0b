"""Checks that need no model: the sandbox, programs and their tests."""
