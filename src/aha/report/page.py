"""The report of a run: one HTML file with everything in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from aha.files import write_atomic
from aha.report import figures, lineage, r1, scaling
from aha.report.reading import Run, read_run
from aha.report.sections import Section
from aha.report.transcripts import REJECTION, RULE, choose, frequency

ELICITATIONS = {
    "direct": "asked directly",
    "steps": "asked to think step by step",
    "zero": "R1-Zero's template",
    "zero_think": "template, think tag prefilled",
    "chat": "chat format",
    "chat_direct": "chat format, no thinking",
}
PER_FAMILY = 2
REWARD_PARTS = ("accuracy", "format", "language", "preference", "true_score")
MODEL_KINDS = ("pretrain", "grpo", "sft", "reward_model")
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
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    write_atomic(path, environment.get_template("page.html.jinja").render(**content(run)))
    return path


def content(run: Run) -> dict[str, Any]:
    """Everything that the page shows."""
    recipe, seed = run.config.get("recipe", "?"), run.config.get("seed", 0)
    base, trained = _main_pair(run)
    transcripts, frequencies = _aha(run, base, trained)
    whole = r1.is_whole_recipe(run)
    return {
        "title": f"{recipe}, seed {seed}",
        "subtitle": _subtitle(run),
        "cards": (r1.cards(run) if whole else None) or _cards(run, base, trained),
        "verdicts": [*([r1.lead(run)] if whole else []), *_verdicts(run, base, trained)],
        "directions": r1.found_directions(run) if whole else [],
        "lineage": _lineage(run),
        "elicitation": _elicitation(run),
        "evaluation_note": _evaluation_note(run),
        "family_table": None if whole else _family_table(run),
        "sections": _sections(run),
        "transcripts": transcripts,
        "frequencies": frequencies,
        "rule": RULE.format(count=PER_FAMILY),
        "cost": _cost(run),
        "footer": f"Made by `aha report {run.folder.name}` from the run folder alone. Intervals are 95%, over "
        "problems.",
    }


def _sections(run: Run) -> list[Section]:
    whole = r1.sections(run) if r1.is_whole_recipe(run) else []
    longer = scaling.section(run)
    return [*whole, *([longer] if longer else []), *_details(run)]


def _main_pair(run: Run) -> tuple[str, str]:
    """The first base and the first model that RL made of it."""
    bases, trained = run.stages_of_kind("pretrain"), run.stages_of_kind("grpo")
    return (bases[0] if bases else ""), (trained[0] if trained else "")


def _subtitle(run: Run) -> str:
    git = run.environment.get("git") or {}
    minutes = run.summary.get("wall_seconds", 0) / 60
    commit = str(git.get("commit") or "unknown")[:12]
    processes = run.environment.get("processes", "?")
    return f"commit {commit}, {minutes:.1f} minutes, {processes} processes, from random weights"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"


def _number(value: float | None, digits: int = 1) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _headline(run: Run, model: str, way: str = "zero") -> dict[str, Any]:
    return dict(run.results.get(model, {}).get(way, {}).get("trained_levels", {}))


def _cards(run: Run, base: str, trained: str) -> list[dict[str, str]]:
    before, after = _headline(run, base), _headline(run, trained)
    if not before or not after:
        return []
    return [
        {"value": _percent(before["pass_at_1"]["mean"]), "label": "pass@1 of the base, R1-Zero's template"},
        {"value": _percent(after["pass_at_1"]["mean"]), "label": "pass@1 after RL, same template"},
        {"value": _percent(after["format_rate"]), "label": f"well formed (before: {_percent(before['format_rate'])})"},
        {
            "value": _number(after["mean_tokens_well_formed"]),
            "label": f"tokens per well-formed answer (before: {_number(before['mean_tokens_well_formed'])})",
        },
        {
            "value": _number(after["reflections_per_answer"], 2),
            "label": f"reflection words per answer (before: {_number(before['reflections_per_answer'], 2)})",
        },
        {"value": _number(run.summary.get("wall_seconds", 0) / 60), "label": "minutes in all"},
    ]


def _verdicts(run: Run, base: str, trained: str) -> list[str]:
    """Plain sentences on what came out and what did not."""
    before, after = _headline(run, base), _headline(run, trained)
    if not before or not after:
        return ["The run is not finished: this page shows what there is so far."]
    best = max(
        (way["trained_levels"]["pass_at_1"]["mean"], ELICITATIONS.get(name, name))
        for name, way in run.results[base].items()
    )
    start, end = before["pass_at_1"]["mean"], after["pass_at_1"]["mean"]
    sentences = [
        f"On held-out problems RL took pass@1 from {_percent(start)} to {_percent(end)} under the same template "
        f"({100 * (end - start):+.1f} points), and {100 * (end - best[0]):+.1f} points over the best way found "
        "to ask the base "
        f"({best[1]}, {_percent(best[0])})."
    ]
    lengths = _lengths_from_form(run, trained)
    if len(lengths) >= 2:
        word = "grew" if lengths[-1] > lengths[0] else "did not grow"
        sentences.append(
            f"From the first evaluation with 90% format on, the thinking of well-formed answers {word}: "
            f"{lengths[0]:.1f} to {lengths[-1]:.1f} tokens. There is no reward for length."
        )
    return sentences


def _lengths_from_form(run: Run, stage: str) -> list[float]:
    evaluations = [row for _, row in run.rows(stage, "evaluation_trained_levels")]
    first = next((i for i, row in enumerate(evaluations) if row["format_rate"] >= 0.9), None)
    return [] if first is None else [row["mean_tokens_well_formed"] for row in evaluations[first:]]


def _lineage(run: Run) -> Markup:
    """The graph of stages, with sizes and scores."""
    evaluations = {s["name"] for s in run.lineage.get("stages", []) if s["kind"] in ("evaluation", "scaling")}
    boxes = [
        lineage.Box(stage["name"], stage["parents"], _about(run, stage), stage["kind"] in MODEL_KINDS)
        for stage in run.lineage.get("stages", [])
        if stage["name"] not in evaluations
    ]
    return lineage.draw(boxes, "which model was trained on what")


def _about(run: Run, stage: Mapping[str, Any]) -> list[str]:
    """What a stage is and cost, and how good its model is."""
    if not stage["done"]:
        return [stage["kind"], "not done yet"]
    row = run.stage(stage["name"])
    tokens = row.get("tokens_trained") or 0
    size = f", {tokens / 1e6:.1f}M tokens" if tokens else f", {row['examples']} rows" if "examples" in row else ""
    lines = [f"{stage['kind']}, {row.get('minutes', 0):.1f} min"[:24], size.removeprefix(", ")]
    ways = run.results.get(stage["name"])
    if ways:
        way = next((name for name in ("chat", "zero", "chat_direct") if name in ways), next(iter(ways)))
        lines[1] = f"{_percent(ways[way]['trained_levels']['pass_at_1']['mean'])} right{size}"
    return lines


def _elicitation(run: Run) -> Markup | None:
    values = {
        f"{model}: {ELICITATIONS.get(way, way)}": (p["mean"], p["low"], p["high"])
        for model, ways in run.results.items()
        for way, p in ((way, result["trained_levels"]["pass_at_1"]) for way, result in ways.items())
    }
    return Markup(figures.bars(values, "pass@1 on held-out problems, trained levels")) if values else None


def _evaluation_note(run: Run) -> str:
    config = run.config.get("evaluation", {})
    result = next((way["trained_levels"] for ways in run.results.values() for way in ways.values()), None)
    if result is None:
        return ""
    p = result["pass_at_1"]
    levels = ", ".join(map(str, config.get("trained_levels", [])))
    return (
        f"{p['problems']} held-out problems of levels {levels}, {p['samples']} samples each at temperature "
        f"{config.get('temperature')}. Under R1-Zero's template an answer counts only in the strict form; asked "
        "in the other ways, "
        "whatever answer can be found counts."
    )


def _family_table(run: Run) -> dict[str, Any]:
    levels = sorted(
        {
            level
            for ways in run.results.values()
            for w in ways.values()
            for f in w["all_levels"]["by_family"].values()
            for level in f
        }
    )
    rows = []
    for model, ways in run.results.items():
        if "zero" not in ways:
            continue
        for family, cells in ways["zero"]["all_levels"]["by_family"].items():
            rows.append([f"{model}: {family}", *(_percent(cells.get(level)) for level in levels)])
    trained = run.config.get("rl", {}).get("levels", [])
    note = f"R1-Zero's template. RL trained levels {', '.join(map(str, trained))}; the others are shown as they come."
    return {"head": ["model and family", *(f"level {level}" for level in levels)], "rows": rows, "note": note}


def _details(run: Run) -> list[Section]:
    """The curves of every training stage, folded where there are many."""
    made = [_pretraining(run), *_reinforcement(run), _experts(run)]
    return [section for section in made if section is not None]


def _pretraining(run: Run) -> Section | None:
    stages = run.stages_of_kind("pretrain") or [
        s["name"] for s in run.lineage.get("stages", []) if s["kind"] == "pretrain"
    ]
    losses = {name: run.rows(name, "loss") for name in stages}
    losses |= {f"{name}, held-out": run.rows(name, "held_out_loss") for name in stages}
    if not any(losses.values()):
        return None
    load = {name: run.rows(name, "max_vio") for name in stages}
    drawn = [
        figures.lines(losses, "next-token loss, nats"),
        figures.lines(load, "expert load: MaxVio (0 is perfect balance)"),
    ]
    text = (
        "A DeepSeek-V3 of laptop size on a synthetic web: bare facts, short answers, worked solutions with "
        "slips, a few long ones "
        "that check. Balance comes from the routing biases alone, apart from a tiny sequence-wise loss."
    )
    return Section("Pretraining", text, figures=[Markup(svg) for svg in drawn], folded=r1.is_whole_recipe(run))


def _reinforcement(run: Run) -> list[Section]:
    kinds = [s["name"] for s in run.lineage.get("stages", []) if s["kind"] == "grpo"]
    return [section for section in (_arm(run, name) for name in kinds) if section]


def _arm(run: Run, name: str) -> Section | None:
    """The curves of one reinforcement-learning stage."""
    if not run.rows(name, "reward"):
        return None
    evaluations = run.rows(name, "evaluation")
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for step, row in evaluations:
        for family, levels in row["by_family"].items():
            for level, accuracy in levels.items():
                panels.setdefault(family, {}).setdefault(level, []).append((step, accuracy))
    trained = run.rows(name, "evaluation_trained_levels")
    domains = {
        domain: [(step, row["by_domain"][domain]["mean"]) for step, row in trained]
        for domain in sorted({domain for _, row in trained for domain in row["by_domain"]})
    }
    held_out = {
        label: [(step, row[key]) for step, row in trained if row[key] is not None]
        for label, key in (
            ("well formed", "mean_tokens_well_formed"),
            ("right", "mean_tokens_right"),
            ("wrong", "mean_tokens_wrong"),
        )
    }
    reflection = {
        "reflection words per answer": [(step, row["reflections_per_answer"]) for step, row in trained],
    }
    drawn = [
        figures.lines(
            {part: run.rows(name, f"rewards/{part}/mean") for part in REWARD_PARTS},
            "rewards on training problems",
            percent=True,
        ),
        figures.lines(domains, "held-out accuracy by domain, trained levels", percent=True),
        figures.lines(held_out, "held-out answers: tokens (no reward for length)"),
        figures.lines(reflection, "words of reflection, both languages"),
        figures.lines({"entropy": run.rows(name, "entropy")}, "entropy of the policy, nats per token"),
        figures.lines(
            {"groups": run.rows(name, "frac_reward_zero_std")}, "groups whose rewards all agree", percent=True
        ),
        figures.lines({"MaxVio": run.rows(name, "max_vio")}, "expert load during RL: MaxVio"),
        figures.lines(
            {"mean": run.rows(name, "sampling/logprob_difference/mean")},
            "engine against trainer: |difference of log-probabilities|",
        ),
    ]
    return Section(
        f"Reinforcement learning: {name}",
        "The curves by level are held-out problems; the curriculum keeps to the edge of competence.",
        wide=Markup(figures.small_multiples(panels)) if panels else None,
        figures=[Markup(svg) for svg in drawn],
        folded=r1.is_whole_recipe(run),
    )


def _experts(run: Run) -> Section | None:
    if not run.experts:
        return None
    drawn = []
    for model, loads in run.experts.items():
        for layer, by_domain in loads["by_domain"].items():
            columns = [str(i) for i in range(len(next(iter(by_domain.values()))))]
            title = f"{model}, layer {layer}: share of tokens per expert"
            drawn.append(figures.heatmap(list(by_domain.values()), list(by_domain), columns, title))
    text = "Share of the routed slots that each expert gets, by domain of the problem, and along one transcript."
    transcript = next(iter(run.experts.values())).get("transcript")
    wide = _transcript_strip(transcript) if transcript else None
    if not drawn and wide is None:
        return None
    drawn_all = [Markup(svg) for svg in drawn]
    return Section("What the experts do", text, wide, figures=drawn_all, folded=r1.is_whole_recipe(run))


def _transcript_strip(transcript: Mapping[str, Any]) -> Markup:
    """Tokens coloured by their first expert in the last layer."""
    spans = []
    for token, expert in zip(transcript["tokens"], transcript["experts"], strict=True):
        color = figures.COLORS[expert % len(figures.COLORS)]
        spans.append(
            f'<span style="border-bottom:3px solid {color}" title="expert {int(expert)}">{escape(token)}</span>'
        )
    return Markup("<pre>" + "".join(spans) + "</pre>")


def _aha(run: Run, base: str, trained: str) -> tuple[list[dict[str, Any]], list[list[str]]]:
    if not base or not trained:
        return [], []
    samples: dict[str, list[dict[str, Any]]] = {}
    for sample in run.samples():
        if sample["elicitation"] == "zero":
            samples.setdefault(sample["model"], []).append(sample)
    if base not in samples or trained not in samples:
        return [], []
    chosen = choose(samples[base], samples[trained], PER_FAMILY)
    rows = [frequency(model, model_samples) for model, model_samples in samples.items()]
    table = [
        [r.model, str(r.answers), _percent(r.rejecting), _percent(r.right_when_rejecting), _percent(r.right_otherwise)]
        for r in rows
    ]
    shown = [
        {
            "family": t.family,
            "level": t.level,
            "question": t.question,
            "before": t.before,
            "before_right": t.before_right,
            "after": _marked(t.after),
            "rejections": t.rejections,
        }
        for t in chosen
    ]
    return shown, table


def _marked(text: str) -> Markup:
    """The transcript with rejections in colour; everything else escaped."""
    return Markup(re.sub(REJECTION, lambda match: f"<mark>{match[0]}</mark>", str(escape(text))))


def _cost(run: Run) -> dict[str, Any]:
    rows = []
    for stage in run.summary.get("stages", []):
        tokens = stage.get("tokens_trained") or 0
        rows.append([stage["name"], f"{stage['minutes']:.1f}", f"{tokens / 1e6:.2f}M" if tokens else "–"])
    memory = run.summary.get("peak_memory_bytes", 0) / 2**20
    rows.append(["all", f"{run.summary.get('wall_seconds', 0) / 60:.1f}", f"peak memory {memory:,.0f} MiB"])
    return {"head": ["stage", "minutes", "tokens trained"], "rows": rows}
