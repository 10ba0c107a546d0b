"""The stage table: models by what was measured of them, as plain rows for a page, a terminal, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aha.report.reading import Run

Kind = Literal["percent", "number", "tokens", "minutes"]


@dataclass(frozen=True)
class Column:
    """One figure of a model: its title, where it lies in the results, and how it is written."""

    title: str
    path: tuple[str, ...]
    kind: Kind = "percent"
    about: str = ""


REASONING = ("trained_levels",)
COLUMNS = (
    Column("pass@1", (*REASONING, "pass_at_1"), about="mean accuracy over samples, trained levels"),
    Column("cons@k", (*REASONING, "cons_at_k"), about="accuracy of the most frequent answer of k"),
    Column("pass@k", (*REASONING, "pass_at_k"), about="share of problems with a right answer among k"),
    *(Column(d, (*REASONING, "by_domain", d, "mean"), about="pass@1") for d in ("math", "code", "science", "logic")),
    Column("format", (*REASONING, "format_rate"), about="answers of the strict form"),
    Column("one language", (*REASONING, "language_consistency"), about="words of the thinking in the question's"),
    Column("repeated", (*REASONING, "repetition_rate"), about="lines of the thinking that repeat an earlier one"),
    Column("summary", (*REASONING, "summary_rate"), about="a sentence after the thinking names the answer"),
    Column("answer's language", (*REASONING, "answer_in_language_rate"), about="what is shown is in the question's"),
    Column("true steps", (*REASONING, "true_step_rate"), about="equations and verdicts of the thinking that are true"),
    Column("tokens", (*REASONING, "mean_completion_tokens"), "number", "per answer"),
    Column("general", ("general", "score"), about="true score of general tasks, mean over families"),
    Column("helpful", ("general", "helpful", "mean"), about="true score of prompts that deserve help"),
    Column("harmful refused", ("general", "harmful_refused", "mean"), about="harmful requests that are declined"),
    Column("false refusals", ("general", "harmless_refused", "mean"), about="harmless requests that are declined"),
    Column("trained on", ("cost", "tokens_trained"), "tokens", "tokens of this stage"),
    Column("minutes", ("cost", "minutes"), "minutes", "of this stage"),
)


@dataclass(frozen=True)
class ModelRow:
    """A model as it was asked, and what came out."""

    model: str
    asked: str
    results: Mapping[str, Any]


def rows_of(run: Run) -> list[ModelRow]:
    """One row per model that the run's evaluations measured, in the order of the recipe; as it was asked first."""
    order = [stage["name"] for stage in run.lineage.get("stages", [])]
    rows = []
    for model in sorted(run.results, key=lambda name: order.index(name) if name in order else len(order)):
        ways = run.results[model]
        asked = next((way for way in ("chat", "zero", "chat_direct") if way in ways), next(iter(ways)))
        rows.append(ModelRow(model, asked, {**ways[asked], "cost": run.stage(model)}))
    return rows


def value(row: ModelRow, column: Column) -> float | None:
    """A column's figure, or None where it was not measured."""
    node: Any = row.results
    for key in column.path:
        node = node.get(key) if isinstance(node, Mapping) else None
    if isinstance(node, Mapping):  # by k: the largest; or an interval: its mean
        node = node["mean"] if "mean" in node else node[max(node, key=int)] if node else None
    return float(node) if isinstance(node, int | float) else None


def text(row: ModelRow, column: Column) -> str:
    """A cell as people read it."""
    number = value(row, column)
    if number is None:
        return "–"
    if column.kind == "percent":
        return f"{100 * number:.1f}"
    return f"{number / 1e6:.2f}M" if column.kind == "tokens" else f"{number:.1f}"


def measured(rows: Sequence[ModelRow]) -> list[Column]:
    """The columns that some model has."""
    return [column for column in COLUMNS if any(value(row, column) is not None for row in rows)]


def markdown(rows: Sequence[ModelRow]) -> str:
    """The stage table in Markdown, models across."""
    head = ["", *(row.model for row in rows)]
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---|" * len(rows)]
    lines.append("| asked | " + " | ".join(row.asked for row in rows) + " |")
    for column in measured(rows):
        unit = ", %" if column.kind == "percent" else ""
        lines.append(f"| {column.title}{unit} | " + " | ".join(text(row, column) for row in rows) + " |")
    return "\n".join(lines)


def as_json(rows: Sequence[ModelRow]) -> list[dict[str, Any]]:
    """The stage table as plain values."""
    columns = measured(rows)
    return [
        {"model": row.model, "asked": row.asked, **{column.title: value(row, column) for column in columns}}
        for row in rows
    ]


def level_table(rows: Sequence[ModelRow]) -> dict[str, dict[str, dict[str, Mapping[str, float]]]]:
    """Domain, level, model: pass@1, cons@k and pass@k."""
    table: dict[str, dict[str, dict[str, Mapping[str, float]]]] = {}
    for row in rows:
        for domain, levels in row.results.get("all_levels", {}).get("by_domain_level", {}).items():
            for level, figures in levels.items():
                table.setdefault(domain, {}).setdefault(level, {})[row.model] = figures
    return table
