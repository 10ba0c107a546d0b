"""Being asked to stop: SIGTERM and Ctrl-C become a flag that the training loop sees at its next step. No torch here.

The loop then writes a checkpoint and `StopRequested` ends the process with the usual exit code (143 or 130). A loop
that does not come round within the grace period is ended anyway: any moment is a safe one, it only costs the work
since the last checkpoint.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import FrameType

_SHOW_CURSOR = "\x1b[?25h"


class StopRequested(BaseException):
    """The run was asked to stop, and its state is saved. Not an error: it passes `except Exception`."""

    def __init__(self, signum: int) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit code of a process that ends for this reason: 143 for SIGTERM, 130 for Ctrl-C."""
        return 128 + self.signum


class StopFlag:
    """The first stop signal received, or 0; and the timer that ends a process which does not come round."""

    def __init__(self, grace_seconds: float = 4.5) -> None:
        """Makes a flag that nothing sets yet; `install` connects it to the signals.

        Args:
            grace_seconds: how long the loop may take to reach its next step before the process ends without a
                checkpoint.
        """
        self.signum = 0
        self.grace_seconds = grace_seconds
        self.busy = False
        """True while a checkpoint is being written: the timer waits for it."""

    def install(self) -> None:
        """Takes over SIGTERM and SIGINT. Call from the main thread."""
        signal.signal(signal.SIGTERM, self._receive)
        signal.signal(signal.SIGINT, self._receive)

    def _receive(self, signum: int, frame: FrameType | None) -> None:
        if self.signum == 0:
            self.signum = signum
            threading.Thread(target=self._enforce, daemon=True).start()

    def _enforce(self) -> None:
        time.sleep(self.grace_seconds)
        while self.busy:
            time.sleep(0.02)
        if sys.stderr.isatty():
            sys.stderr.write(_SHOW_CURSOR)
            sys.stderr.flush()
        os._exit(128 + self.signum)


def exit_with_parent(descriptor: int) -> None:
    """Ends this process as soon as the other end of a pipe closes, that is when the process that holds it is gone.

    Args:
        descriptor: the reading end of a pipe whose writing end only the parent has.
    """

    def watch() -> None:
        while os.read(descriptor, 1):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
