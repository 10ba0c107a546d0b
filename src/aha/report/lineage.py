"""Which model was trained on what, as a drawing: boxes in columns by depth, with sizes and scores on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 168, 62, 46, 16, 6


@dataclass(frozen=True)
class Box:
    """One stage: its name, the stages that feed it, and lines about it."""

    name: str
    parents: Sequence[str]
    lines: Sequence[str]
    model: bool = True
    """Whether the stage makes a model; data stages are drawn lighter."""


def columns(boxes: Sequence[Box]) -> Mapping[str, int]:
    """The column of each box: one more than its furthest parent's."""
    depth: dict[str, int] = {}
    for box in boxes:
        depth[box.name] = 1 + max((depth[parent] for parent in box.parents if parent in depth), default=-1)
    return depth


def draw(boxes: Sequence[Box], label: str) -> Markup:
    """One `<svg>` that scrolls sideways on a narrow page."""
    depth = columns(boxes)
    counts: dict[int, int] = {}
    places: dict[str, tuple[int, int]] = {}
    for box in boxes:
        column = depth[box.name]
        row = counts.get(column, 0)
        counts[column] = row + 1
        places[box.name] = (MARGIN + column * (WIDTH + GAP_X), MARGIN + row * (HEIGHT + GAP_Y))
    width = 2 * MARGIN + (max(depth.values(), default=0) + 1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + max(counts.values(), default=1) * (HEIGHT + GAP_Y) - GAP_Y
    parts = [
        f'<svg class="lineage" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
    ]
    for box in boxes:
        parts += [_edge(places[parent], places[box.name]) for parent in box.parents if parent in places]
    parts += [_box(box, *places[box.name]) for box in boxes]
    return Markup("".join([*parts, "</svg>"]))


def _edge(start: tuple[int, int], end: tuple[int, int]) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH, start[1] + HEIGHT // 2, end[0], end[1] + HEIGHT // 2
    middle = max(18, (x2 - x1) // 2)
    return (
        f'<path d="M{x1} {y1} C{x1 + middle} {y1} {x2 - middle} {y2} {x2} {y2}" fill="none" stroke="currentColor" '
        'stroke-opacity=".35" stroke-width="1.4"/>'
    )


def _box(box: Box, x: int, y: int) -> str:
    style = 'class="model"' if box.model else 'class="data" stroke-dasharray="4 3"'
    text = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" {style}/>']
    text.append(f'<text x="{x + 10}" y="{y + 19}" font-weight="700">{escape(box.name)}</text>')
    for number, line in enumerate(box.lines[:2]):
        text.append(f'<text x="{x + 10}" y="{y + 36 + 15 * number}" class="soft">{escape(line)}</text>')
    return "".join(text)
