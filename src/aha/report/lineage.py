"""Which model was trained on what, as a drawing from top to bottom: boxes with sizes and scores on them.

Bold lines are weights that go on being trained, thin ones what a stage reads: data, judges, a model that is sampled.
Weights that skip a row go round the boxes on the left, so that nothing seems to lie on their way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT, GAP_X, GAP_Y, MARGIN = 186, 77, 18, 34, 6
LANE = 14
"""Between two lines on the left."""


@dataclass(frozen=True)
class Box:
    """One stage: its name, the stages that feed it, and lines about it."""

    name: str
    parents: Sequence[str]
    """Where it is a model that goes on from another one's weights, that one first."""
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
    models = {box.name for box in boxes if box.model}
    edges = [(parent, box.name) for box in boxes for parent in box.parents if parent in rank]
    weights = [(box.parents[0], box.name) for box in boxes if box.model and models.intersection(box.parents[:1])]
    around = [edge for edge in weights if rank[edge[1]] - rank[edge[0]] > 1]
    lanes = {parent: MARGIN + LANE * lane for lane, parent in enumerate(dict.fromkeys(edge[0] for edge in around))}
    left = MARGIN + LANE * len(lanes)
    width = left + MARGIN + max(map(len, rows.values()), default=1) * (WIDTH + GAP_X) - GAP_X
    height = 2 * MARGIN + (max(rows, default=0) + 1) * (HEIGHT + GAP_Y) - GAP_Y
    places = {
        name: (
            left + (width - left - MARGIN - len(row) * (WIDTH + GAP_X) + GAP_X) // 2 + i * (WIDTH + GAP_X),
            MARGIN + r * (HEIGHT + GAP_Y),
        )
        for r, row in rows.items()
        for i, name in enumerate(row)
    }
    parts = [
        f'<svg class="lineage" role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}">'
    ]
    parts += [_edge(places[parent], places[name]) for parent, name in edges if (parent, name) not in weights]
    parts += [_edge(places[parent], places[name], True) for parent, name in weights if (parent, name) not in around]
    parts += [_around(lanes[parent], places[parent], places[name]) for parent, name in around]
    parts += [_box(box, *places[box.name]) for box in boxes]
    return Markup("".join([*parts, "</svg>"]))


def _edge(start: tuple[int, int], end: tuple[int, int], weights: bool = False) -> str:
    x1, y1, x2, y2 = start[0] + WIDTH // 2, start[1] + HEIGHT, end[0] + WIDTH // 2, end[1]
    middle = max(14, (y2 - y1) // 2)
    return _line(f"M{x1} {y1} C{x1} {y1 + middle} {x2} {y2 - middle} {x2} {y2}", weights)


def _around(lane: int, start: tuple[int, int], end: tuple[int, int]) -> str:
    """Out of a box's bottom, between the rows to the left, down there, and back into another one's top."""
    level = 8 + 5 * ((lane - MARGIN) // LANE % 4)
    out, back = start[1] + HEIGHT + level, end[1] - GAP_Y + level
    x1, x2 = start[0] + WIDTH // 4, end[0] + WIDTH // 4
    return _line(f"M{x1} {start[1] + HEIGHT} V{out} H{lane} V{back} H{x2} V{end[1]}", True)


def _line(path: str, weights: bool) -> str:
    style = 'class="weights" stroke-opacity=".75" stroke-width="2.6"' if weights else 'stroke-opacity=".3"'
    return f'<path d="{path}" fill="none" stroke="currentColor" stroke-linejoin="round" {style}/>'


def _box(box: Box, x: int, y: int) -> str:
    style = 'class="model"' if box.model else 'class="data" stroke-dasharray="4 3"'
    text = [f'<rect x="{x}" y="{y}" width="{WIDTH}" height="{HEIGHT}" rx="8" {style}/>']
    text.append(f'<text x="{x + 10}" y="{y + 19}" font-weight="700">{escape(box.name)}</text>')
    for number, line in enumerate(box.lines[:3]):
        text.append(f'<text x="{x + 10}" y="{y + 36 + 15 * number}" class="soft">{escape(line)}</text>')
    return "".join(text)
