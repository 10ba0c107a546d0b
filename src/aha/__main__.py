"""`python -m aha` is the same as `aha`; the worker processes of a run are started this way."""

from aha.cli import main

main()
