"""The curves of every stage, which the report draws and the run page shows while they grow; and what experts do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from aha.report import figures
from aha.report.reading import Run
from aha.report.sections import Section

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
        Panel(
            f"held-out accuracy: {family}",
            {f"level {level}": own[level] for level in sorted(own, key=int)},
            percent=True,
        )
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


def sections(run: Run, folded: bool) -> list[Section]:
    """One section for pretraining, one for each stage of reinforcement learning, one for the experts.

    Args:
        run: what is shown.
        folded: they are lines that unfold, where the page has much else to say.
    """
    arms = [stage["name"] for stage in run.lineage.get("stages", []) if stage["kind"] == "grpo"]
    made = [_pretraining(run, folded), *(_arm(run, name, folded) for name in arms), _experts(run, folded)]
    return [section for section in made if section is not None]


def _pretraining(run: Run, folded: bool) -> Section | None:
    stages = run.stages_of_kind("pretrain") or [
        s["name"] for s in run.lineage.get("stages", []) if s["kind"] == "pretrain"
    ]
    losses = {name: run.rows(name, "loss") for name in stages}
    losses |= {f"{name}, held-out": run.rows(name, "held_out_loss") for name in stages}
    if not any(losses.values()):
        return None
    measured = {name: run.rows(name, "max_vio") for name in stages}
    load = {name: rows for name, rows in measured.items() if any(value for _, value in rows)}
    drawn = [figures.lines(losses, "next-token loss, nats")]
    if load:
        drawn.append(figures.lines(load, "expert load: MaxVio (0 is perfect balance)"))
    text = (
        "Models of laptop size on a synthetic web: bare facts, short answers, worked solutions with slips, a few long "
        "ones that check. Where there are experts, balance comes from the routing biases alone, apart from a tiny "
        "sequence-wise loss."
    )
    return Section("Pretraining", text, figures=drawn, folded=folded)


def _arm(run: Run, name: str, folded: bool) -> Section | None:
    """The curves of one reinforcement-learning stage."""
    if not run.rows(name, "reward"):
        return None
    levels = accuracy_by_level(run, name)
    drawn = [figures.lines(panel.series, panel.title, percent=panel.percent) for panel in reinforcement(run, name)]
    return Section(
        f"Reinforcement learning: {name}",
        "The curves by level are held-out problems; the curriculum keeps to the edge of competence.",
        wide=figures.small_multiples(levels) if levels else None,
        figures=drawn,
        folded=folded,
    )


def _experts(run: Run, folded: bool) -> Section | None:
    if not run.experts:
        return None
    drawn = []
    for model, loads in run.experts.items():
        for layer, by_domain in loads["by_domain"].items():
            columns = [str(i) for i in range(len(next(iter(by_domain.values()))))]
            title = f"{model}, layer {layer}: share of tokens per expert"
            drawn.append(figures.heatmap(list(by_domain.values()), list(by_domain), columns, title))
    text = "Share of the routed slots that each expert gets, by domain of the problem, and along one transcript."
    transcripts = [loads["transcript"] for loads in run.experts.values() if loads.get("transcript")]
    transcript = transcripts[-1] if transcripts else None  # of the mixture of experts that was trained last
    wide = _transcript_strip(transcript) if transcript else None
    if not drawn and wide is None:
        return None
    drawn = drawn
    return Section("What the experts do", text, wide, figures=drawn, folded=folded)


def _transcript_strip(transcript: Mapping[str, Any]) -> Markup:
    """Tokens coloured by their first expert in the last layer."""
    spans = []
    for token, expert in zip(transcript["tokens"], transcript["experts"], strict=True):
        color = figures.COLORS[expert % len(figures.COLORS)]
        spans.append(
            f'<span style="border-bottom:3px solid {color}" title="expert {int(expert)}">{escape(token)}</span>'
        )
    return Markup("<pre>" + "".join(spans) + "</pre>")
