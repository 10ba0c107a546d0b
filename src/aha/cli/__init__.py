"""The command line: one verb per act. Each imports what it needs when called: `aha --help` is quick and loads no torch.

Exit codes: 0 done; 1 `aha` said no, in one line on standard error; 2 wrong usage; 130, 143 stopped by Ctrl-C, SIGTERM.
"""

from aha.cli.entry import app, main

__all__ = ["app", "main"]
