"""What the rows of `evals.probe` come to, by family: shares, and the verdict on what reinforcement learning will do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, get_args

from aha.evals.growth import Answer, Evidence, Kind, Share, judge, mean_chance, overall, right, share_of
from aha.evals.probe import ProbeSettings, Row

KINDS: tuple[Kind, ...] = get_args(Kind)


def summarize(rows: Mapping[str, Sequence[Row]], settings: ProbeSettings) -> dict[str, Any]:
    """All figures by family, and the verdicts.

    Args:
        rows: those of each measure, of all families.
        settings: of the measurement.
    """
    found, judged = {}, {}
    for family in settings.families:
        own = {name: [row for row in some if row["family"] == family] for name, some in rows.items()}
        answers, evidence = answers_of(own["answers"]), evidence_of(own)
        judged[family] = verdict = judge(answers, settings.corpus_levels, evidence)
        found[family] = {
            "outcome": verdict.outcome,
            "reasons": list(verdict.reasons),
            "more_passes_pay": verdict.more_passes_pay,
            "reasons_against_more": list(verdict.reasons_against_more),
            "levels": _grouped(own["answers"], "level", _level),
            "half_written": _grouped(
                own["half_written"],
                "level",
                lambda some: _grouped(some, "depth", lambda one: _rates(one, "correct", "early")),
            ),
            "own_verdicts": _errors(own_verdicts(own["answers"])),
            "forced_verdicts": _errors(forced_verdicts(own["verdicts"])),
            "look_ups": _value(evidence.look_ups),
            "single_steps": _value(evidence.steps),
            "continuation": continuation(own["answers"]),
            "far": _grouped(own["far"], "length", lambda some: _rates(some, "correct", "well_formed")),
        }
    return {"families": found, "verdict": overall(judged)}


def answers_of(rows: Iterable[Row]) -> list[Answer]:
    """The answers as the rules see them."""
    return [Answer(*(row[name] for name in ("family", "level", "kind", "correct", "chance"))) for row in rows]


def evidence_of(rows: Mapping[str, Sequence[Row]]) -> Evidence:
    """What else the rules look at: its own verdicts where there are enough of either sort, else the forced ones."""
    rejects, accepts = own_verdicts(rows["answers"])
    if rejects.known is None or accepts.known is None:
        rejects, accepts = forced_verdicts(rows["verdicts"])
    spoiled = [not row["correct_again"] for row in rows["answers"] if _worked_out(row) and row["correct"]]
    steps = {
        what: [row["right"] for row in rows["single_steps"] if row["what"] == what] for what in ("look_up", "step")
    }
    return Evidence(rejects, accepts, _share(spoiled), _share(steps["look_up"]), _share(steps["step"]))


def own_verdicts(rows: Iterable[Row]) -> tuple[Share, Share]:
    """Of the verdicts in long answers: right attempts that are rejected, wrong ones that are accepted."""
    counts = [row["attempts"] for row in rows if row["attempts"]]
    total = {name: sum(one[name] for one in counts) for name in
             ("right_rejected", "right_attempts", "wrong_accepted", "wrong_attempts")}  # fmt: skip
    return (
        Share(total["right_rejected"], total["right_attempts"]),
        Share(total["wrong_accepted"], total["wrong_attempts"]),
    )


def forced_verdicts(rows: Iterable[Row]) -> tuple[Share, Share]:
    """The same of verdicts after right work that was put there."""
    known = list(rows)
    return (
        _share([not row["accepts"] for row in known if row["right"]]),
        _share([row["accepts"] for row in known if not row["right"]]),
    )


def continuation(rows: Sequence[Row]) -> dict[str, Any]:
    """What taking back the end of thinking does, of all answers that could go on, and of the long ones."""
    going_on = [row for row in rows if row["continued"]]
    return {
        name: {
            "answers": len(some),
            "before": _mean([row["correct"] for row in some]),
            "after": _mean([row["correct_again"] for row in some]),
            "right_to_wrong": _mean([not row["correct_again"] for row in some if row["correct"]]),
            "wrong_to_right": _mean([row["correct_again"] for row in some if not row["correct"]]),
        }
        for name, some in (("all", going_on), ("long", [row for row in going_on if _worked_out(row)]))
    }


def _worked_out(row: Row) -> bool:
    return bool(row["continued"] and row["kind"] == "long")


def _level(rows: Sequence[Row]) -> dict[str, Any]:
    """Answers of one level by kind: their share, and how many are right."""
    answers = answers_of(rows)
    return {
        "answers": len(answers),
        "chance": mean_chance(answers),
        "right": _mean([row["correct"] for row in rows]),
        "share": {kind: share_of(answers, kind).value for kind in KINDS},
        "right_by_kind": {kind: right(answers, kind).value for kind in KINDS if kind != "malformed"},
        "right_number_of_lines": _mean([row["whole"] for row in rows if row["kind"] == "long"]),
    }


def _grouped(rows: Sequence[Row], name: str, about: Callable[[Sequence[Row]], Any]) -> dict[str, Any]:
    return {
        str(value): about([row for row in rows if row[name] == value]) for value in sorted({row[name] for row in rows})
    }


def _rates(rows: Sequence[Row], *names: str) -> dict[str, Any]:
    return {"cases": len(rows)} | {name: _mean([row[name] for row in rows]) for name in names}


def _errors(shares: tuple[Share, Share]) -> dict[str, Any]:
    rejects, accepts = shares
    return {
        "rejects_right": rejects.value, "right_attempts": rejects.cases,
        "accepts_wrong": accepts.value, "wrong_attempts": accepts.cases,
    }  # fmt: skip


def _share(values: Sequence[bool]) -> Share:
    return Share(sum(values), len(values))


def _value(share: Share) -> dict[str, Any]:
    return {"right": share.value, "cases": share.cases}


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
