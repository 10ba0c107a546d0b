"""Which curves a stage has: the report draws them as pictures, the run page while they grow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aha.report.reading import Run

REWARD_PARTS = ("accuracy", "format", "language", "preference", "true_score")
LOSSES = ("loss", "held_out_loss", "mtp_loss")
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Panel:
    """Curves that share their axes; those without points are left out when they are drawn."""

    title: str
    series: Mapping[str, Points]
    percent: bool = False
    """The values are shares, and the axis goes from 0 to 1."""


def reinforcement(run: Run, stage: str) -> list[Panel]:
    """The curves of a stage of reinforcement learning."""
    trained = run.rows(stage, "evaluation_trained_levels")
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
    reflections = [(step, row["reflections_per_answer"]) for step, row in trained]
    return [
        Panel(
            "rewards on training problems",
            {part: run.rows(stage, f"rewards/{part}/mean") for part in REWARD_PARTS},
            percent=True,
        ),
        Panel("held-out accuracy by domain, trained levels", domains, percent=True),
        Panel("held-out answers: tokens (no reward for length)", held_out),
        Panel("words of reflection, both languages", {"reflection words per answer": reflections}),
        Panel("entropy of the policy at trained tokens, nats", {"entropy": run.rows(stage, "entropy/trained_tokens")}),
        Panel("groups whose rewards all agree", {"groups": run.rows(stage, "frac_reward_zero_std")}, percent=True),
        Panel("expert load during RL: MaxVio", {"MaxVio": run.rows(stage, "max_vio")}),
        Panel(
            "engine against trainer: |difference of log-probabilities|",
            {kind: run.rows(stage, f"sampling/sampling_logp_difference/{kind}") for kind in ("mean", "max")},
        ),
    ]


def accuracy_by_level(run: Run, stage: str) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Held-out accuracy over training: family, then level, then (step, accuracy)."""
    families: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for step, row in run.rows(stage, "evaluation"):
        for family, levels in row["by_family"].items():
            for level, accuracy in levels.items():
                families.setdefault(family, {}).setdefault(level, []).append((step, accuracy))
    return families


def chosen(run: Run, stage: str, kind: str) -> list[Panel]:
    """What to look at first in a stage of any kind."""
    if kind != "grpo":
        return [Panel("loss, nats", {name: run.rows(stage, name) for name in LOSSES})]
    levels = [
        Panel(f"held-out accuracy: {family}", {f"level {level}": own[level] for level in sorted(own)}, percent=True)
        for family, own in accuracy_by_level(run, stage).items()
    ]
    return [*reinforcement(run, stage), *levels]


def everything(run: Run, stage: str) -> list[Panel]:
    """One panel for each number that a stage logs."""
    names = {
        name: None
        for row in run.metrics
        if row.get("stage") == stage
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    }
    return [Panel(name, {name: run.rows(stage, name)}) for name in names]
