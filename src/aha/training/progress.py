"""What a person sees while a stage trains: a live line with the time left on a terminal, else a line now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

PLAIN_SECONDS = 10.0
"""Between two lines where the output is not a terminal."""


class Progress:
    """Shows the progress of one run. Only rank 0's shows anything."""

    def __init__(
        self,
        enabled: bool = True,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Makes a display.

        Args:
            enabled: False shows nothing (for all ranks but the first).
            console: where to; by default standard output.
            clock: seconds, monotonic.
        """
        self._enabled = enabled
        self._console = console or Console(highlight=False)
        self._clock = clock
        self._live: Live | None = None

    def notify(self, message: str) -> None:
        """Prints one line that stays, above a live display."""
        if self._enabled:
            self._console.print(message, markup=False, soft_wrap=True)

    def task(self, name: str, total: int, start: int = 0) -> Task:
        """A counted piece of work, to be used as a context.

        Args:
            name: what is being done, such as the stage's name.
            total: how many steps it has; 0 if nobody knows.
            start: how many of them are already done (the time left is reckoned from the others).
        """
        return Task(self, name, total, start)


class Task:
    """One counted piece of work and its latest figures."""

    def __init__(self, progress: Progress, name: str, total: int, start: int) -> None:
        self._progress = progress
        self._name = name
        self._total = total
        self._start = self._done = start
        self._began = self._shown = progress._clock()
        self._figures: Mapping[str, float | str] = {}
        self._said: int | None = None
        self._live: Live | None = None

    def __enter__(self) -> Task:
        console = self._progress._console
        if self._progress._enabled and console.is_terminal:
            self._live = Live(self, console=console, refresh_per_second=4, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._live:
            self._live.stop()
            self._live = None
        if self._progress._enabled and self._said != self._done:
            self._progress.notify(self.line())

    def update(self, done: int, figures: Mapping[str, float | str] | None = None) -> None:
        """Tells how many steps are done, and the figures to show beside."""
        self._done = done
        self._figures = figures if figures is not None else self._figures
        now = self._progress._clock()
        if self._progress._enabled and not self._live and now - self._shown >= PLAIN_SECONDS:
            self._shown, self._said = now, done
            self._progress.notify(self.line())

    def seconds_left(self) -> float | None:
        """Estimated from the pace of this process, or None before its first step."""
        steps = self._done - self._start
        if steps <= 0 or not self._total:
            return None
        return (self._progress._clock() - self._began) / steps * (self._total - self._done)

    def line(self) -> str:
        """The state in one line of plain text."""
        return "  ".join([self._name, *self._count(), *self._parts()])

    def _count(self) -> list[str]:
        if not self._total:
            return [f"{self._done:,}"]
        return [f"{self._done}/{self._total}", f"{self._done / self._total:4.0%}"]

    def _parts(self) -> list[str]:
        elapsed = duration(self._progress._clock() - self._began)
        left = self.seconds_left()
        clock = [f"{elapsed} elapsed"] if left is None or self._done >= self._total else [f"{duration(left)} left"]
        return clock + [f"{key} {figure(value)}" for key, value in self._figures.items()]

    def __rich__(self) -> Table:
        grid = Table.grid(padding=(0, 2), expand=True)
        grid.add_column(no_wrap=True)
        grid.add_column(width=24)
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
        grid.add_row(
            Text(self._name, style="bold"),
            ProgressBar(total=max(self._total, 1), completed=self._done),
            self._count()[0],
            "  ".join(self._parts()),
        )
        return grid


def duration(seconds: float) -> str:
    """Seconds as people read them.

    >>> duration(9.4), duration(75), duration(3723)
    ('9s', '1m15s', '1h02m')
    """
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02d}m"


def figure(value: float | str) -> str:
    """A number with as many digits as help.

    >>> figure(0.123456), figure(12345.6), figure(3), figure("on")
    ('0.123', '12,346', '3', 'on')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
