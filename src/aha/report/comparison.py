"""The stage table: models by what was measured of them, as plain rows for a page, a terminal, Markdown or JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from string import ascii_uppercase
from typing import Any, Literal

from aha.report.reading import Run

Kind = Literal["percent", "number", "millions", "minutes"]


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
    Column(
        "one language",
        (*REASONING, "language_consistency"),
        about="words of the thinking in the question's, mean over answers; one without words counts as 100%",
    ),
    Column("repeated", (*REASONING, "repetition_rate"), about="lines of the thinking that repeat an earlier one"),
    Column("summary", (*REASONING, "summary_rate"), about="a sentence after the thinking names the answer"),
    Column(
        "answer's language",
        (*REASONING, "answer_in_language_rate"),
        about="shown answers in the question's, or without words",
    ),
    Column("true steps", (*REASONING, "true_step_rate"), about="equations and verdicts of the thinking that are true"),
    Column("tokens", (*REASONING, "mean_completion_tokens"), "number", "per answer"),
    Column("general", ("general", "score"), about="true score of general tasks, mean over families"),
    Column("helpful", ("general", "helpful", "mean"), about="true score of prompts that deserve help"),
    Column("harmful refused", ("general", "harmful_refused", "mean"), about="harmful requests that are declined"),
    Column("refused with reason", ("general", "harmful_explained", "mean"), about="those declined briefly, saying why"),
    Column("false refusals", ("general", "harmless_refused", "mean"), about="harmless requests that are declined"),
    Column("parameters", ("sizes", "parameters"), "millions", "embedding and head included"),
    Column("active", ("sizes", "active"), "millions", "parameters that one token goes through"),
    Column(
        "trained on",
        ("cost", "tokens_trained"),
        "millions",
        "tokens that moved the weights in this stage; of RL without a KL term, answers with an advantage alone",
    ),
    Column("minutes", ("cost", "minutes"), "minutes", "of this stage"),
)


LEVEL_NOTE = "Each cell: pass@1 / majority vote / any sample right, %."
MEASURED_WITH = (
    "temperature",
    "top_p",
    "samples",
    "max_completion_tokens",
    "families",
    "levels",
    "trained_levels",
    "problems_per_level",
    "suite_seed",
    "general",
    "general_per_level",
    "general_samples",
    "tasks",
    "samples_by_task",
    "problems",
    "problems_limit",
    "instruction",
)
"""The settings of an evaluation that its numbers depend on."""


@dataclass(frozen=True)
class ModelRow:
    """A model as it was asked, what came out, and the settings of the evaluation."""

    model: str
    style: str
    results: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)


def rows_of(run: Run) -> list[ModelRow]:
    """One row per model that the run's evaluations measured, in the order of the recipe; as it was asked first."""
    order = [stage["name"] for stage in run.lineage.get("stages", [])]
    rows = []
    for model in sorted(run.results, key=lambda name: order.index(name) if name in order else len(order)):
        by_style = run.results[model]
        style = main_style(by_style)
        settings = run.settings.get(model, {}).get(style, {})
        found = {**by_style[style], "cost": run.stage(model), "sizes": run.sizes.get(model, {})}
        rows.append(ModelRow(model, style, found, settings))
    return rows


def main_style(styles: Iterable[str]) -> str:
    """Of the prompt styles in which a model was asked, the one that the table shows."""
    known = list(styles)
    return next((style for style in ("chat", "zero", "chat_direct") if style in known), known[0])


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
    return f"{number / 1e6:.2f}M" if column.kind == "millions" else f"{number:.1f}"


def measured(rows: Sequence[ModelRow]) -> list[Column]:
    """The columns that some model has."""
    return [column for column in COLUMNS if any(value(row, column) is not None for row in rows)]


def settings_of(row: ModelRow) -> dict[str, Any]:
    """The settings that a row's numbers depend on; those that say nothing are left out."""
    skipped = () if row.settings.get("general") else ("general_per_level", "general_samples")
    found = {key: row.settings.get(key) for key in MEASURED_WITH if key not in skipped}
    return {key: value for key, value in found.items() if value not in (None, "", [], (), {})}


def marks(rows: Sequence[ModelRow]) -> tuple[list[str], dict[str, str]]:
    """Where rows were not all measured with the same settings: a letter for each row, and what the letters mean.

    What they share says `shared`.
    """
    settings = [settings_of(row) for row in rows]
    differ = [key for key in MEASURED_WITH if any(own.get(key) != settings[0].get(key) for own in settings)]
    if not differ:
        return [], {}
    texts = [_listed(own, differ) for own in settings]
    letters = dict(zip(dict.fromkeys(texts), ascii_uppercase, strict=False))
    return [letters[said] for said in texts], {letter: said for said, letter in letters.items()}


def shared(rows: Sequence[ModelRow]) -> str:
    """The settings with which all rows were measured; empty where they have none in common."""
    settings = [settings_of(row) for row in rows]
    same = [
        key for key in MEASURED_WITH if key in settings[0] and all(own.get(key) == settings[0][key] for own in settings)
    ]
    return f"All with {_listed(settings[0], same)}; k is the number of samples." if same else ""


def _listed(settings: Mapping[str, Any], keys: Sequence[str]) -> str:
    return ", ".join(f"{key.replace('_', ' ')} {_said(settings.get(key))}" for key in keys)


def _said(setting: Any) -> str:
    if isinstance(setting, Mapping):
        return " ".join(f"{key}={value}" for key, value in setting.items())
    if isinstance(setting, list | tuple):
        return " ".join(map(str, setting))
    return "none" if setting is None else str(setting)


def stage_lines(rows: Sequence[ModelRow]) -> list[list[str]]:
    """The stage table as people read it: figures down, models across, the first line their names."""
    lines = [["", *(row.model for row in rows)], ["style", *(row.style for row in rows)]]
    letters, _ = marks(rows)
    if letters:
        lines.append(["measured with", *letters])
    for column in measured(rows):
        unit = ", %" if column.kind == "percent" else ""
        lines.append([f"{column.title}{unit}", *(text(row, column) for row in rows)])
    return lines


def level_lines(rows: Sequence[ModelRow]) -> list[list[str]]:
    """The table by domain and level in the same way; empty where nothing was measured by level."""
    lines = [
        [f"{domain}, level {level}", *(_cell(by_model.get(row.model)) for row in rows)]
        for domain, by_level in level_table(rows).items()
        for level, by_model in by_level.items()
    ]
    return [["", *(row.model for row in rows)], *lines] if lines else []


def _cell(values: Mapping[str, float] | None) -> str:
    if values is None:
        return "–"
    return " / ".join(f"{100 * values[name]:.0f}" for name in ("pass_at_1", "cons_at_k", "pass_at_k"))


def markdown(rows: Sequence[ModelRow]) -> str:
    """Both tables in Markdown."""
    parts = [_markdown(stage_lines(rows)), *filter(None, [shared(rows)])]
    parts += [f"Measured with {letter}: {said}." for letter, said in marks(rows)[1].items()]
    if levels := level_lines(rows):
        parts += [LEVEL_NOTE, _markdown(levels)]
    return "\n\n".join(parts)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([head, "|---|" + "---|" * (len(lines[0]) - 1), *body])


def as_json(rows: Sequence[ModelRow]) -> list[dict[str, Any]]:
    """Both tables as plain values: a model each, with its figures, its levels by domain and its settings."""
    columns = measured(rows)
    return [
        {
            "model": row.model,
            "style": row.style,
            **{column.title: value(row, column) for column in columns},
            "levels": row.results.get("all_levels", {}).get("by_domain_level", {}),
            "settings": settings_of(row),
        }
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
