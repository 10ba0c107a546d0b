"""What the page says first of a run with reinforcement learning: whether thinking grew, and what more of it is worth.

Only numbers, pictures and transcripts are found here; the words are in `first_screen.html.jinja` and, for the tables
below, in `more_thinking.html.jinja`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from markupsafe import Markup

from aha.evals.metrics import FIRST_STEPS, LAST_STEPS, ends
from aha.files import read_json
from aha.report import figures, scaling
from aha.report.reading import Row, Run
from aha.report.sections import Transcript
from aha.report.transcripts import marked
from aha.rewards.rubric import PARTS, RubricConfig

LENGTH = "completions/mean_thinking_tokens"
Rollout = tuple[int, Row, Row]
"""A step, the group that was logged of it, and one of its completions."""


def first_screen(run: Run, base: str, trained: str) -> dict[str, Any] | None:
    """All that `first_screen.html.jinja` shows; None where no reinforcement learning has logged thinking.

    Args:
        run: what is shown; its reinforcement learning may still be going.
        base: the model that reinforcement learning started from.
        trained: the model that came of it, or an empty name.
    """
    begun = [stage["name"] for stage in run.lineage.get("stages", []) if stage["kind"] == "grpo"]
    stage = trained if trained in begun else next(iter(begun), "")
    lengths = run.rows(stage, LENGTH)
    if not lengths:
        return None
    settings = run.folder / stage / "stage.json"
    config = read_json(settings)["config"] if settings.is_file() else {}
    tops = [max(tops) for row in run.metrics if row.get("stage") == stage and (tops := _tops(row))]
    return {
        "base": base,
        "trained": stage,
        "rewards": _rewards(config),
        "forced_share": config.get("sampling", {}).get("forced_share", 0.0),
        "built_in": PARTS,
        "models": _models(run, base, stage),
        "measured": base in run.thinking and stage in run.thinking,
        "own": ends([tokens for _, tokens in lengths]),
        "own_steps": (FIRST_STEPS, LAST_STEPS),
        "tops": (tops[0], tops[-1]) if tops else None,
        "growth": growth_figure(lengths, run.rows(stage, "rewards/accuracy/mean"), _held_out(run, stage)),
        "reach": scaling.budgets_figure(run.scaling) or levels_figure(run, (stage, base)),
        "pair": [_transcript(*one) for one in first_and_last(run.rollouts(stage))],
    }


def _rewards(config: Row) -> dict[str, float]:
    """The weights of what reinforcement learning rewarded, by name; empty where that is not known."""
    if "rubric" not in config:
        return {}
    return {name: weight for name, weight in RubricConfig(**config["rubric"]).weights().items() if weight}


def _tops(row: Row) -> list[float]:
    return [top for name, top in row.items() if name.startswith("curriculum/top/")]


def _models(run: Run, base: str, trained: str) -> dict[str, Row]:
    """Of the base and the trained model: thinking tokens of well-formed answers, and accuracy, at the trained levels.

    From the stage that measures thinking; else from the evaluation, which counts all tokens of an answer.
    """
    found = {}
    for role, model in (("before", base), ("after", trained)):
        evaluated = run.results.get(model, {}).get("zero", {}).get("trained_levels")
        if thought := run.thinking.get(model):
            own = thought["trained_levels"]
            found[role] = {"tokens": own["thinking_tokens"], "accuracy": own["accuracy"]["mean"]}
        elif evaluated:
            accuracy = evaluated["pass_at_1"]["mean"]
            found[role] = {"tokens": evaluated["mean_tokens_well_formed"], "accuracy": accuracy}
    whole = len(found) == 2 and all(value is not None for row in found.values() for value in row.values())
    return found if whole else {}


def _held_out(run: Run, stage: str) -> figures.Series:
    return [(step, row["pass_at_1"]["mean"]) for step, row in run.rows(stage, "evaluation_trained_levels")]


def growth_figure(lengths: figures.Series, accuracy: figures.Series, held_out: figures.Series = ()) -> Markup:
    """How long well-formed answers think and how many answers are right, over the steps of reinforcement learning."""
    shares = {"right, on training problems": figures.smoothed(accuracy), "right, on held-out problems": held_out}
    return figures.two_axes(
        {"thinking of well-formed answers": figures.smoothed(lengths)},
        {name: points for name, points in shares.items() if points},
        "thinking and right answers over reinforcement learning",
        "tokens of thinking",
    )


def levels_figure(run: Run, models: Sequence[str]) -> Markup | None:
    """How long models think and how often they are right, by level; None where it was not measured."""
    by_level = {model: run.thinking[model]["by_level"].items() for model in models if model in run.thinking}
    tokens = {
        f"{model}: thinking": [(int(level), n) for level, cell in cells if (n := cell["thinking_tokens"]) is not None]
        for model, cells in by_level.items()
    }
    right = {
        f"{model}: right": [(int(level), cell["accuracy"]["mean"]) for level, cell in cells]
        for model, cells in by_level.items()
    }
    formed = {name: points for name, points in tokens.items() if points}
    if not formed:
        return None
    label = f"level (trained: up to {max(run.config['thinking']['levels'])})"
    return figures.two_axes(formed, right, "held-out problems by level", "tokens of thinking", label)


def first_and_last(groups: Iterable[Row]) -> list[Rollout]:
    """Two right answers of one family and level, from the start and the end of reinforcement learning, by rule.

    Of each family and level: the first right, well-formed answer whose thinking was left to end by itself, of the first
    logged step that has one, and that of the last such step. The family and level: of those with one in the first tenth
    of the steps (else of all) the highest level, then the steps furthest apart. Empty where there are no two steps.
    """
    found: dict[tuple[str, int], list[Rollout]] = {}
    for group in groups:
        own = found.setdefault((group["family"], group["level"]), [])
        right = next((one for one in group.get("completions", ()) if _counts(one)), None)
        if right is not None and (not own or group["step"] > own[-1][0]):
            own[1:] = [(group["step"], group, right)]
    pairs = {cell: own for cell, own in sorted(found.items()) if len(own) == 2}
    early = max((last[0] for _, last in pairs.values()), default=0) / 10

    def rank(cell: tuple[str, int]) -> tuple[bool, int, int]:
        first, last = pairs[cell]
        return first[0] <= early, cell[1], last[0] - first[0]

    return pairs[max(pairs, key=rank)] if pairs else []


def _counts(completion: Row) -> bool:
    rewards = completion["rewards"]
    return rewards.get("accuracy") == rewards.get("format") == 1.0 and not completion.get("forced")


def _transcript(step: int, group: Row, completion: Row) -> Transcript:
    label = f"step {step}, {group['family']}, level {group['level']}: {group['question']}"
    return Transcript(label, marked(completion["text"].strip()), f"right, {completion['tokens']} tokens", True)
