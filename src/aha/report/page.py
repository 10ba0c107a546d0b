"""The report of a run: one HTML file with everything in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from aha.files import write_atomic
from aha.report import curves, figures, lineage, r1, scaling, thinking, transcripts
from aha.report.comparison import main_style
from aha.report.reading import Run, read_run
from aha.report.sections import Section, Table, count, number, percent
from aha.text.prompt_style import PROMPT_STYLES, PromptStyle

MODEL_KINDS = ("checkpoint", "pretrain", "grpo", "sft", "reward_model")
"""Kinds of stages that make a model; the others make data."""


def make_report(folder: Path, out: Path | None = None) -> Path:
    """Writes `report.html` for a run folder.

    Args:
        folder: the run folder; a run that is still going gets a report of what there is.
        out: another place for the file.

    Raises:
        RunFolderError: it is not a run folder.
    """
    run = read_run(folder)
    path = out or folder / "report.html"
    loader = PackageLoader("aha.report", ".")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": percent, "number": number}
    write_atomic(path, environment.get_template("page.html.jinja").render(**content(run)))
    return path


def content(run: Run) -> dict[str, Any]:
    """Everything that the page shows."""
    recipe, seed = run.config.get("recipe", "?"), run.config.get("seed", 0)
    base, trained = _main_pair(run)
    whole = r1.is_whole_recipe(run)
    return {
        "title": f"{recipe}, seed {seed}",
        "subtitle": _subtitle(run),
        "whole": whole,
        "students": r1.students(run),
        "first": thinking.first_screen(run, base, trained),
        "thinking": run.thinking,
        "levels": run.config.get("thinking", {}),
        "cards": (r1.cards(run) if whole else None) or _cards(run, base, trained),
        "verdicts": _verdicts(run, base, trained),
        "directions": r1.found_directions(run) if whole else [],
        "lineage": _lineage(run),
        "sections": _sections(run, base, trained, whole),
        "footer": f"Made by `aha report {run.folder.name}` from the run folder alone. Intervals are 95%, over "
        "problems.",
    }


def _sections(run: Run, base: str, trained: str, whole: bool) -> list[Section]:
    """All parts of the page in their order, those without anything to show left out."""
    made = [
        _held_out(run, whole),
        *(r1.sections(run) if whole else [r1.audits(run)]),
        scaling.section(run),
        *curves.sections(run, folded=whole),
        transcripts.section(run, base, trained),
        _cost(run),
    ]
    return [section for section in made if section is not None]


def _main_pair(run: Run) -> tuple[str, str]:
    """What RL (or else fine-tuning) was first done to, and the model that came of it; empty where there is none yet."""
    done = run.stages_of_kind("grpo") or run.stages_of_kind("sft")
    trained = done[0] if done else ""
    starts = {name for kind in ("pretrain", "checkpoint", "sft", "grpo") for name in run.stages_of_kind(kind)}
    parents = [parent for s in run.lineage.get("stages", []) if s["name"] == trained for parent in s["parents"]]
    return next((parent for parent in parents if parent in starts), ""), trained


def _subtitle(run: Run) -> str:
    git = run.environment.get("git") or {}
    minutes = run.summary.get("wall_seconds", 0) / 60
    commit = str(git.get("commit") or "unknown")[:12]
    processes = run.environment.get("processes", "?")
    start = "random weights" if run.stages_of_kind("pretrain") else str(run.config.get("model", "a checkpoint"))
    return f"commit {commit}, {minutes:.1f} minutes, {processes} processes, from {start}"


def _main_style(by_style: Mapping[str, Any]) -> str:
    """The prompt style that headlines are about: R1-Zero's template where that was tried, else the first."""
    return "zero" if "zero" in by_style else next(iter(by_style), "")


def _headline(run: Run, model: str) -> dict[str, Any]:
    by_style = run.results.get(model, {})
    headline = dict(by_style.get(_main_style(by_style), {}).get("trained_levels", {}))
    return headline if headline and headline["pass_at_1"]["mean"] is not None else {}


def _cards(run: Run, base: str, trained: str) -> list[dict[str, str]]:
    before, after = _headline(run, base), _headline(run, trained)
    if not before or not after:
        return []
    asked = PromptStyle.named(_main_style(run.results[base])).title
    made = "RL" if run.stages_of_kind("grpo") else "fine-tuning"
    return [
        {"value": percent(before["pass_at_1"]["mean"]), "label": f"pass@1 of the base, {asked}"},
        {"value": percent(after["pass_at_1"]["mean"]), "label": f"pass@1 after {made}, asked alike"},
        {"value": percent(after["format_rate"]), "label": f"well formed (before: {percent(before['format_rate'])})"},
        {
            "value": number(after["mean_tokens_well_formed"]),
            "label": f"tokens per well-formed answer (before: {number(before['mean_tokens_well_formed'])})",
        },
        {
            "value": number(after["reflections_per_answer"], 2),
            "label": f"reflection words per answer (before: {number(before['reflections_per_answer'], 2)})",
        },
        {"value": number(run.summary.get("wall_seconds", 0) / 60), "label": "minutes in all"},
    ]


def _verdicts(run: Run, base: str, trained: str) -> list[str]:
    """Plain sentences on what came out and what did not."""
    before, after = _headline(run, base), _headline(run, trained)
    if not before or not after:
        return ["The run is not finished: this page shows what there is so far."]
    start, end = before["pass_at_1"]["mean"], after["pass_at_1"]["mean"]
    what = "RL" if run.stages_of_kind("grpo") else "fine-tuning"
    gained = (
        f"On held-out problems {what} took pass@1 from {percent(start)} to {percent(end)} under the same template "
        f"({100 * (end - start):+.1f} points)"
    )
    others = {name: found["trained_levels"]["pass_at_1"]["mean"] for name, found in run.results[base].items()}
    if len(others) > 1:
        best = max(others, key=lambda name: others[name])
        gained += (
            f", and {100 * (end - others[best]):+.1f} points over the best way found to ask the base "
            f"({PromptStyle.named(best).title}, {percent(others[best])})"
        )
    return [f"{gained}."]


def _lineage(run: Run) -> Markup:
    """The graph of stages, with sizes and scores."""
    evaluations = {
        s["name"] for s in run.lineage.get("stages", []) if s["kind"] in ("evaluation", "scaling", "thinking")
    }
    boxes = [
        lineage.Box(stage["name"], stage["parents"], _about(run, stage), stage["kind"] in MODEL_KINDS)
        for stage in run.lineage.get("stages", [])
        if stage["name"] not in evaluations
    ]
    return lineage.draw(boxes, "which model was trained on what")


def _about(run: Run, stage: Mapping[str, Any]) -> list[str]:
    """What a stage is and cost, and how good its model is."""
    if not stage["done"]:
        return [stage["kind"].replace("_", " "), "not done yet"]
    row = run.stage(stage["name"])
    tokens = row.get("tokens_trained") or 0
    size = f", {tokens / 1e6:.1f}M tokens" if tokens else f", {row['examples']} rows" if "examples" in row else ""
    lines = [f"{stage['kind'].replace('_', ' ')}, {row.get('minutes', 0):.1f} min", size.removeprefix(", ")]
    by_style = run.results.get(stage["name"])
    if by_style:
        style = main_style(by_style)
        lines[1] = f"{percent(by_style[style]['trained_levels']['pass_at_1']['mean'])} right{size}"
    return [*lines, *_parameters(run.sizes.get(stage["name"], {}))]


def _parameters(sizes: Mapping[str, int]) -> list[str]:
    """A model's size, and the part of it that a token goes through."""
    if not sizes:
        return []
    total, active = sizes["parameters"], sizes["active"]
    return [f"{count(total)} params, {count(active)} active" if active < total else f"{count(total)} parameters"]


def _held_out(run: Run, whole: bool) -> Section | None:
    """Accuracy of every model in every prompt style, and by family and level where no other table has it."""
    values = {
        f"{model}: {PromptStyle.named(style).title}": (p["mean"], p["low"], p["high"])
        for model, by_style in run.results.items()
        for style, p in ((name, result["trained_levels"]["pass_at_1"]) for name, result in by_style.items())
        if p["mean"] is not None
    }
    if not values:
        return None
    drawn = figures.bars(values, "pass@1 on held-out problems, trained levels")
    tables = [] if whole else [_family_table(run)]
    return Section("Held-out accuracy", _evaluation_note(run), drawn, tables)


def _evaluation_note(run: Run) -> str:
    config = run.config.get("evaluation", {})
    asked = {style for by_style in run.results.values() for style in by_style}
    strict, other = (
        [style.title for style in PROMPT_STYLES if style.name in asked and style.strict == kind]
        for kind in (True, False)
    )
    counts = [f"{', '.join(strict)}: an answer counts only in the strict form."] if strict else []
    counts += [f"{', '.join(other)}: whatever answer can be found counts."] if other else []
    result = next((found["trained_levels"] for by_style in run.results.values() for found in by_style.values()), None)
    assert result is not None
    p = result["pass_at_1"]
    levels = ", ".join(map(str, config.get("trained_levels", [])))
    return (
        f"{p['problems']} held-out problems of levels {levels}, {p['samples']} samples each at temperature "
        f"{config.get('temperature')}. {' '.join(counts)}"
    )


def _family_table(run: Run) -> Table:
    levels = sorted(
        {
            level
            for by_style in run.results.values()
            for found in by_style.values()
            for f in found["all_levels"]["by_family"].values()
            for level in f
        },
        key=int,
    )
    rows = []
    for model, by_style in run.results.items():
        for family, cells in by_style[_main_style(by_style)]["all_levels"]["by_family"].items():
            rows.append([f"{model}: {family}", *(percent(cells.get(level)) for level in levels)])
    asked = ", ".join(
        dict.fromkeys(PromptStyle.named(_main_style(by_style)).title for by_style in run.results.values())
    )
    trained = run.config.get("rl", {}).get("levels", [])
    note = f"Prompt style: {asked}."
    if trained:
        note += f" RL trained levels {', '.join(map(str, trained))}; the others are shown as they come."
    return Table(["model and family", *(f"level {level}" for level in levels)], rows, note)


def _cost(run: Run) -> Section:
    rows = []
    for stage in run.summary.get("stages", []):
        tokens = stage.get("tokens_trained") or 0
        rows.append([stage["name"], f"{stage['minutes']:.1f}", f"{tokens / 1e6:.2f}M" if tokens else "–"])
    memory = run.summary.get("peak_memory_bytes", 0) / 2**20
    rows.append(["all", f"{run.summary.get('wall_seconds', 0) / 60:.1f}", f"peak memory {memory:,.0f} MiB"])
    return Section("Cost", tables=[Table(["stage", "minutes", "tokens trained"], rows)])
