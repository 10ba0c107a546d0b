"""Progress: lines on a pipe, a live view on a terminal, nothing elsewhere."""

from __future__ import annotations

import io

from rich.console import Console

from aha.training.progress import Progress, duration, figure


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_line_every_ten_seconds_with_the_time_left() -> None:
    out, clock = io.StringIO(), Clock()
    progress = Progress(console=Console(file=out, width=20), clock=clock)
    with progress.task("pretrain", total=100, start=50) as task:
        assert task.seconds_left() is None
        for step in range(51, 101):
            clock.now += 1.0
            task.update(step, {"loss": 1.23456, "tokens/s": 12345.6})
    assert out.getvalue().splitlines() == [
        "pretrain  60/100   60%  40s left  loss 1.23  tokens/s 12,346",
        "pretrain  70/100   70%  30s left  loss 1.23  tokens/s 12,346",
        "pretrain  80/100   80%  20s left  loss 1.23  tokens/s 12,346",
        "pretrain  90/100   90%  10s left  loss 1.23  tokens/s 12,346",
        "pretrain  100/100  100%  50s elapsed  loss 1.23  tokens/s 12,346",
    ]


def test_a_live_view_on_a_terminal_leaves_one_line() -> None:
    out = io.StringIO()
    progress = Progress(console=Console(file=out, force_terminal=True, color_system=None, width=100))
    with progress.task("r1-zero", total=4) as task:
        task.update(2, {"reward": 0.5})
        progress.notify("a [note] of ours")
    text = out.getvalue()
    assert "r1-zero" in text
    assert "reward 0.5" in text
    assert "a [note] of ours" in text


def test_other_ranks_show_nothing() -> None:
    out = io.StringIO()
    progress = Progress(enabled=False, console=Console(file=out))
    with progress.task("x", total=2) as task:
        task.update(2)
        progress.notify("x")
    assert out.getvalue() == ""


def test_figures_are_short() -> None:
    assert [duration(s) for s in (0.4, 59.6, 61, 3600, 7260)] == ["0s", "1m00s", "1m01s", "1h00m", "2h01m"]
    assert [figure(x) for x in (0.5, 1e-5, 1234.5, 7, "on")] == ["0.5", "1e-05", "1,234", "7", "on"]
