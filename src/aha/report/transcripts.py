"""The aha page: transcripts chosen by a stated rule, and how often their kind occurs. Nobody picks them by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from aha.report.reading import Run
from aha.report.sections import Exchange, Section, Table, Transcript, percent
from aha.tasks.words import REFLECTION

PER_FAMILY = 2
RULE = (
    "Of the held-out answers of the trained model under R1-Zero's template: right, well formed, and with at least one "
    "wrong attempt (an equation that does not hold, a candidate that breaks a clue) that the model itself rejects "
    '("no", "differ", 不对, 不同) before it arrives. Per family the {count} whose problem\'s hash comes '
    "first; beside each, sample number 0 of the base model on the same problem. False alarms are attempts that were "
    "rejected though nothing was wrong with them."
)


@dataclass(frozen=True)
class Chosen:
    """One problem with the base's answer and the trained model's."""

    family: str
    level: int
    question: str
    before: str
    before_right: bool
    after: str
    rejected: int
    """Wrong attempts that the answer rejects."""


@dataclass(frozen=True)
class Frequency:
    """How often answers reject a wrong attempt, before and after training."""

    model: str
    answers: int
    rejecting: float
    """Share of answers that reject a wrong attempt."""
    right_when_rejecting: float | None
    right_otherwise: float | None
    false_alarms: float | None
    """Share of the rejected attempts that were not wrong."""


def frequency(model: str, samples: Iterable[Mapping[str, Any]]) -> Frequency:
    """Counts rejected attempts over a model's well-formed answers."""
    formed = [sample for sample in samples if sample["well_formed"]]
    rejecting = [sample["correct"] for sample in formed if sample.get("wrong_rejected")]
    plain = [sample["correct"] for sample in formed if not sample.get("wrong_rejected")]
    attempts = sum(sample.get("rejected", 0) for sample in formed)
    alarms = attempts - sum(sample.get("wrong_rejected", 0) for sample in formed)
    return Frequency(
        model,
        len(formed),
        len(rejecting) / max(1, len(formed)),
        _share(rejecting),
        _share(plain),
        alarms / attempts if attempts else None,
    )


def _share(values: list[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def choose(
    base: Iterable[Mapping[str, Any]], trained: Iterable[Mapping[str, Any]], per_family: int = 2
) -> list[Chosen]:
    """Applies the rule.

    Args:
        base: the base model's samples under the template.
        trained: the trained model's.
        per_family: how many of each family.
    """
    first = {sample["key"]: sample for sample in base if sample["index"] == 0}
    chosen: dict[str, list[Chosen]] = {}
    candidates = [s for s in trained if s["correct"] and s["well_formed"] and s["key"] in first]
    for sample in sorted(candidates, key=lambda s: (hashlib.sha256(s["key"].encode()).hexdigest(), s["index"])):
        count = sample.get("wrong_rejected", 0)
        group = chosen.setdefault(sample["family"], [])
        question = sample["question"]
        if count and len(group) < per_family and all(question != other.question for other in group):
            before = first[sample["key"]]
            group.append(
                Chosen(
                    sample["family"],
                    sample["level"],
                    question,
                    before["completion"].strip(),
                    before["correct"],
                    sample["completion"].strip(),
                    count,
                )
            )
    return [transcript for family in sorted(chosen) for transcript in chosen[family]]


def section(run: Run, base: str, trained: str) -> Section | None:
    """The aha page: how often models reject an attempt, and transcripts by the rule."""
    samples: dict[str, list[dict[str, Any]]] = {}
    for sample in run.samples():
        if sample["style"] == "zero":
            samples.setdefault(sample["model"], []).append(sample)
    if base not in samples or trained not in samples:
        return None
    counted = [frequency(model, own) for model, own in samples.items()]
    shares = [(row.rejecting, row.right_when_rejecting, row.right_otherwise, row.false_alarms) for row in counted]
    rows = [[row.model, str(row.answers), *map(percent, own)] for row, own in zip(counted, shares, strict=True)]
    head = ["model", "well-formed answers", "reject a wrong attempt", "right then", "right otherwise", "false alarms"]
    exchanges = [_exchange(one) for one in choose(samples[base], samples[trained], PER_FAMILY)]
    return Section(
        "Aha: an attempt abandoned, then right",
        RULE.format(count=PER_FAMILY),
        tables=[Table(head, rows)],
        exchanges=exchanges,
        anchor="aha",
    )


def _exchange(one: Chosen) -> Exchange:
    before = Transcript("before RL", one.before, "right" if one.before_right else "wrong", one.before_right)
    after = Transcript("after RL", marked(one.after), f"right, {one.rejected} rejected", True)
    return Exchange(f"{one.family}, level {one.level}: {one.question}", [before, after])


def marked(text: str) -> Markup:
    """The transcript with rejections and second attempts in colour; everything else escaped."""
    return Markup(REFLECTION.sub(lambda match: f"<mark>{match[0]}</mark>", str(escape(text))))
