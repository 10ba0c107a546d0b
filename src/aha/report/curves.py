"""The curves of every training stage, and what the experts do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from aha.report import figures
from aha.report.reading import Run
from aha.report.sections import Section

REWARD_PARTS = ("accuracy", "format", "language", "preference", "true_score")


def sections(run: Run, folded: bool) -> list[Section]:
    """One section for pretraining, one for each stage of reinforcement learning, one for the experts.

    Args:
        run: what is shown.
        folded: they are lines that unfold, where the page has much else to say.
    """
    made = [_pretraining(run, folded), *_reinforcement(run, folded), _experts(run, folded)]
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
    return Section("Pretraining", text, figures=[Markup(svg) for svg in drawn], folded=folded)


def _reinforcement(run: Run, folded: bool) -> list[Section]:
    kinds = [s["name"] for s in run.lineage.get("stages", []) if s["kind"] == "grpo"]
    return [section for section in (_arm(run, name, folded) for name in kinds) if section]


def _arm(run: Run, name: str, folded: bool) -> Section | None:
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
    transcript = next(iter(run.experts.values())).get("transcript")
    wide = _transcript_strip(transcript) if transcript else None
    if not drawn and wide is None:
        return None
    drawn_all = [Markup(svg) for svg in drawn]
    return Section("What the experts do", text, wide, figures=drawn_all, folded=folded)


def _transcript_strip(transcript: Mapping[str, Any]) -> Markup:
    """Tokens coloured by their first expert in the last layer."""
    spans = []
    for token, expert in zip(transcript["tokens"], transcript["experts"], strict=True):
        color = figures.COLORS[expert % len(figures.COLORS)]
        spans.append(
            f'<span style="border-bottom:3px solid {color}" title="expert {int(expert)}">{escape(token)}</span>'
        )
    return Markup("<pre>" + "".join(spans) + "</pre>")
