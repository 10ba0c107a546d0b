"""Checks that need no model: exact arithmetic, the tiny programming language, killable workers."""
