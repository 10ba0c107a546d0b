"""Test-time scaling: spending more tokens on a question to answer it better. No torch, no engine: only its protocol.

R1 supplement E.4 compares two ways to spend: many independent samples and a vote, or longer thinking in one. Here are
both, and what lies between, each as a small function that says what it answered and what that cost.
"""
