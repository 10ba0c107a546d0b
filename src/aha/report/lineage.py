"""Which model was trained on what, as a drawing from top to bottom: boxes with sizes and scores on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 186, 77, 18, 34, 6


@dataclass(frozen=True)
class Box:
    """One stage: its name, the stages that feed it, and lines about it."""

    name: str
    parents: Sequence[str]
    lines: Sequence[str]
    model: bool = True
    """Whether the stage makes a model; data stages are drawn lighter."""


def ranks(boxes: Sequence[Box]) -> Mapping[str, int]:
    """The row of each box: one below its lowest parent; one that has none is drawn just above its first child."""
    rank: dict[str, int] = {}
    for box in boxes:
        rank[box.name] = 1 + max((rank[parent] for parent in box.parents if parent in rank), default=-1)
    roots = [box.name for box in boxes if not any(parent in rank for parent in box.parents)]
    first = {root: min((rank[box.name] for box in boxes if root in box.parents), default=1) for root in roots}
    return rank | {root: row - 1 for root, row in first.items()}


def draw(boxes: Sequence[Box], label: str) -> Markup:
    """One `<svg>`, as wide as its widest row."""
    rank = ranks(boxes)
    rows: dict[int, list[str]] = {}
    for box in boxes:
        rows.setdefault(rank[box.name], []).append(box.name)
    width = 2 * MARGIN + max(map(len, rows.values()), default=1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + (max(rows, default=0) + 1) * (HEIGHT + GAP_Y) - GAP_Y
    places = {
        name: ((width - len(row) * (WIDTH + GAP_X) + GAP_X) // 2 + i * (WIDTH + GAP_X), MARGIN + r * (HEIGHT + GAP_Y))
        for r, row in rows.items()
        for i, name in enumerate(row)
    }
    parts = [
        f'<svg class="lineage" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
    ]
    for box in boxes:
        parts += [_edge(places[parent], places[box.name]) for parent in box.parents if parent in places]
    parts += [_box(box, *places[box.name]) for box in boxes]
    return Markup("".join([*parts, "</svg>"]))


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH // 2, start[1] + HEIGHT, end[0] + WIDTH // 2, end[1]
    middle = max(14, (y2 - y1) // 2)
    return (
        f'<path d="M{x1} {y1} C{x1} {y1 + middle} {x2} {y2 - middle} {x2} {y2}" fill="none" stroke="currentColor" '
        'stroke-opacity=".35" stroke-width="1.4"/>'
    )


def _box(box: Box, x: int, y: int) -> str:
    style = 'class="model"' if box.model else 'class="data" stroke-dasharray="4 3"'
    text = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" {style}/>']
    text.append(f'<text x="{x + 10}" y="{y + 19}" font-weight="700">{escape(box.name)}</text>')
    for number, line in enumerate(box.lines[:3]):
        text.append(f'<text x="{x + 10}" y="{y + 36 + 15 * number}" class="soft">{escape(line)}</text>')
    return "".join(text)
