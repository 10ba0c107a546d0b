"""The curves of every training stage, and what the experts do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup, escape

from aha.report import figures
from aha.report.panels import accuracy_by_level, reinforcement
from aha.report.reading import Run
from aha.report.sections import Section


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
    levels = accuracy_by_level(run, name)
    drawn = [figures.lines(panel.series, panel.title, percent=panel.percent) for panel in reinforcement(run, name)]
    return Section(
        f"Reinforcement learning: {name}",
        "The curves by level are held-out problems; the curriculum keeps to the edge of competence.",
        wide=Markup(figures.small_multiples(levels)) if levels else None,
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
    transcripts = [loads["transcript"] for loads in run.experts.values() if loads.get("transcript")]
    transcript = transcripts[-1] if transcripts else None  # of the mixture of experts that was trained last
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
