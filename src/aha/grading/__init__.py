"""Checks that need no model: exact arithmetic, killable workers."""
