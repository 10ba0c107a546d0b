"""Figures as inline SVG: no script, no network, readable in print and on a phone."""

from __future__ import annotations

import html
import io
import itertools
import re
from collections.abc import Mapping, Sequence

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

COLORS = ("#3366cc", "#d95f02", "#1b9e77", "#7b3fa0", "#b5122f", "#8c6d1f", "#5a6b7b", "#17a2b8")
INK = "#777777"
Series = Sequence[tuple[float, float]]

matplotlib.rcParams.update(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "aha",
        "font.family": "sans-serif",
        "font.size": 10,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": INK,
        "grid.alpha": 0.18,
        "legend.frameon": False,
        "figure.constrained_layout.use": True,
    }
)


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as one `<svg>` element that scales with the page; text stays text."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg[^>]*?) width="[^"]*" height="[^"]*"', r"\1", text, count=1)
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{html.escape(label)}"', 1))


def _finish(axes: Axes, title: str, xlabel: str, percent: bool) -> None:
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(xlabel)
    if percent:
        axes.set_ylim(-0.02, 1.02)
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%")


def lines(
    series: Mapping[str, Series],
    title: str,
    xlabel: str = "step",
    percent: bool = False,
    bands: Mapping[str, Sequence[tuple[float, float, float]]] | None = None,
    log_x: bool = False,
) -> Markup:
    """Curves by name; `bands` are (x, low, high) intervals around the curve of the same name.

    With `log_x` equal distances across are equal factors.
    """
    figure, axes = plt.subplots(figsize=(5.2, 3.0))
    for number, (name, points) in enumerate(series.items()):
        if not points:
            continue
        color = COLORS[number % len(COLORS)]
        marker = "o" if len(points) < 25 else None
        axes.plot(
            [x for x, _ in points], [y for _, y in points], color=color, label=name, marker=marker, markersize=3, lw=1.4
        )
        for x, low, high in (bands or {}).get(name, ()):
            axes.vlines(x, low, high, color=color, lw=0.8, alpha=0.6)
    if sum(bool(points) for points in series.values()) > 1:
        axes.legend(fontsize=8, ncols=2 if len(series) > 4 else 1)
    if log_x:
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    _finish(axes, title, xlabel, percent)
    return _svg(figure, title)


def two_axes(
    left: Mapping[str, Series], right: Mapping[str, Series], title: str, left_label: str, xlabel: str = "step"
) -> Markup:
    """Numbers on the left axis and shares on the right one, over the same steps or levels."""
    figure, axes = plt.subplots(figsize=(5.2, 3.2))
    other = axes.twinx()
    drawn = []
    for side, series, color in ((axes, left, COLORS[0]), (other, right, COLORS[1])):
        side.tick_params(axis="y", colors=color)
        for (name, points), style in zip(series.items(), itertools.cycle(("-", "--", ":", "-.")), strict=False):
            marker = "o" if len(points) < 25 else None
            drawn += side.plot(*zip(*points, strict=True), color=color, ls=style, label=name, marker=marker, ms=3)
    other.spines["right"].set_visible(True)
    other.grid(visible=False)
    _finish(other, "", xlabel, percent=True)
    axes.set_ylim(bottom=0)
    _finish(axes, title, xlabel, percent=False)
    axes.set_ylabel(left_label, color=COLORS[0])
    figure.legend(handles=drawn, loc="outside lower center", ncols=2, fontsize=8)
    return _svg(figure, title)


def smoothed(points: Series, width: int = 9) -> list[tuple[float, float]]:
    """Each point's mean with its neighbours, over at most so many points."""
    half = width // 2
    around = ((x, points[max(0, i - half) : i + half + 1]) for i, (x, _) in enumerate(points))
    return [(x, sum(y for _, y in near) / len(near)) for x, near in around]


def small_multiples(panels: Mapping[str, Mapping[str, Series]], xlabel: str = "step") -> Markup:
    """One panel per family, one curve per level, all on the same percent axis. Panels have one size, however few."""
    columns = 3
    rows = max(1, -(-len(panels) // columns))
    figure, grid = plt.subplots(
        rows, columns, figsize=(3.0 * columns, 2.3 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for axes, (name, series) in zip(grid.flat, panels.items(), strict=False):
        for number, (level, points) in enumerate(sorted(series.items(), key=lambda item: int(item[0]))):
            shade = plt.get_cmap("viridis")(0.1 + 0.76 * number / max(4, len(series) - 1))
            axes.plot([x for x, _ in points], [y for _, y in points], color=shade, label=f"level {level}", lw=1.4)
        _finish(axes, name, xlabel, percent=True)
    grid.flat[0].legend(fontsize=7)
    return _svg(figure, "accuracy by family and level over training")


def bars(values: Mapping[str, tuple[float, float, float]], title: str) -> Markup:
    """Horizontal bars of (mean, low, high) with intervals, in percent."""
    figure, axes = plt.subplots(figsize=(7.6, 0.5 + 0.38 * max(1, len(values))))
    names = list(values)[::-1]
    for number, name in enumerate(names):
        mean, low, high = values[name]
        axes.barh(number, mean, color=COLORS[0], alpha=0.75, height=0.6)
        axes.hlines(number, low, high, color="#d95f02", lw=2)
        axes.text(min(high, 1.0) + 0.02, number, f"{100 * mean:.1f}%", va="center", fontsize=9)
    axes.set_yticks(range(len(names)), names)
    axes.grid(axis="y", visible=False)
    axes.set_xlim(0, 1.15)
    axes.xaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f}%" if value <= 1 else "")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return _svg(figure, title)


def heatmap(values: Sequence[Sequence[float]], rows: Sequence[str], columns: Sequence[str], title: str) -> Markup:
    """A table of shares as colours: expert load by domain."""
    figure, axes = plt.subplots(figsize=(max(3.4, 0.34 * len(columns) + 1.2), 0.34 * len(rows) + 0.9))
    image = axes.imshow(values, aspect="auto", cmap="viridis", vmin=0)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xticks(range(len(columns)), columns, fontsize=7)
    axes.grid(visible=False)
    axes.set_title(title, loc="left", fontsize=10)
    figure.colorbar(image, ax=axes, fraction=0.05)
    return _svg(figure, title)
