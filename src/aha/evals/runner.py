"""Held-out evaluation: samples of problems under a prompt, graded, with every completion kept. No torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from aha.evals.metrics import bootstrap_interval, pass_at_k, sample_counts
from aha.evals.readability import repetition_rate
from aha.files import derive_seed
from aha.rewards.rules import language_consistency
from aha.tasks.answers import read_completion
from aha.tasks.datasets import is_right, judge_of, need_judges
from aha.tasks.families import GENERAL
from aha.tasks.general.requests import refuses
from aha.tasks.steps import abandoned
from aha.tasks.words import REFLECTION, REFLECTION_WORDS
from aha.test_time.voting import majority
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle
from aha.text.thinking import final_answer
from aha.text.tokenizer import END_THINK, THINK
from aha.types import Problem, SamplingParams

HARMFUL_LEVEL = 2
"""Of the family `requests`: level 2 does harm."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One graded completion of an evaluation."""

    key: str
    family: str
    domain: str
    level: int
    language: str
    question: str
    index: int
    correct: bool
    well_formed: bool
    tokens: int
    truncated: bool
    true_steps: int
    steps: int
    reflections: int
    answer: str
    completion: str
    score: float = 0.0
    """General tasks: how good the response truly is; reasoning: 1 for a right answer."""
    language_consistency: float = 1.0
    """Of the thinking, with the question's language (R1 Eq. 7)."""
    repetition: float = 0.0
    """Share of the thinking's lines that repeat an earlier one."""
    summary: bool = False
    """A sentence after the thinking names the answer."""
    answer_in_language: bool | None = None
    """What is shown after the thinking is in the question's language, or has no words; None where nothing is shown."""
    refused: bool = False
    """Requests: the response declines."""
    vote: str | None = None
    """The answer in canonical form, as votes count it; None where there is no answer that counts."""
    rejected: int = 0
    """Attempts that the thinking rejects and goes on from."""
    wrong_rejected: int = 0
    """Those of them that were wrong: a false equation, or a candidate that does not fit."""

    def to_json(self) -> dict[str, Any]:
        """As a JSON-able dictionary."""
        return asdict(self)


def evaluate(asker: Asker, problems: Sequence[Problem], sampling: SamplingParams, seed: int) -> list[Sample]:
    """Samples and grades; a problem's samples depend on the seed and the problem alone.

    Raises:
        GenerationError: a prompt does not fit the engine's context.
        CannotGradeError: answers to one of the tasks cannot be judged here; nothing has been sampled then.
    """
    need_judges(problem.family for problem in problems)
    seeds = [derive_seed(seed, asker.style.name, problem.key) for problem in problems]
    return [
        grade_sample(problem, index, reply.text, len(reply.completion.token_ids), reply.truncated, asker.style)
        for problem, replies in zip(problems, asker.ask(problems, sampling, seeds), strict=True)
        for index, reply in enumerate(replies)
    ]


def grade_sample(problem: Problem, index: int, text: str, tokens: int, truncated: bool, style: PromptStyle) -> Sample:
    """Grades one completion: strictly where the style is strict, leniently elsewhere."""
    judge = judge_of(problem.family)
    reading = read_completion(problem, text, truncated, style)
    parsed, visible, answer = reading.parsed, reading.visible, reading.answer
    correct = reading.counts and is_right(problem, answer)
    thinking = parsed.thinking if parsed.well_formed else text.replace(THINK, "").split(END_THINK)[0]
    steps = judge.check_steps(problem, thinking)
    wrong_rejected, rejected = abandoned(steps)
    return Sample(
        problem.key,
        problem.family,
        problem.domain,
        problem.level,
        problem.language,
        problem.question,
        index,
        correct,
        parsed.well_formed,
        tokens,
        truncated,
        sum(step.true for step in steps),
        len(steps),
        sum(count_reflections(thinking).values()),
        answer,
        text,
        score=GENERAL[problem.family].score(problem, visible) if problem.family in GENERAL else float(correct),
        language_consistency=language_consistency(thinking, problem.language),
        repetition=repetition_rate(thinking),
        summary=bool(visible) and final_answer(visible) != "",
        answer_in_language=language_consistency(visible, problem.language) == 1.0 if visible.strip() else None,
        refused=problem.family == "requests" and refuses(visible, problem.language),
        vote=reading.vote,
        rejected=rejected,
        wrong_rejected=wrong_rejected,
    )


def count_reflections(text: str) -> dict[str, int]:
    """Occurrences of reflection words by kind, both languages together; English ones as whole words."""
    found = Counter(match.lastgroup for match in REFLECTION.finditer(text))
    return {kind: found[kind] for kind in REFLECTION_WORDS}


def by_problem(samples: Iterable[Sample], value: Callable[[Sample], float]) -> dict[str, float]:
    """Mean of a value over each problem's samples, by problem key in order of appearance."""
    sums: dict[str, list[float]] = {}
    for sample in samples:
        sums.setdefault(sample.key, []).append(value(sample))
    return {key: sum(values) / len(values) for key, values in sums.items()}


def interval_of(values: Iterable[float]) -> dict[str, float | None]:
    """A mean with its interval as a summary has it: of no values, nothing."""
    numbers = list(values)
    return asdict(bootstrap_interval(numbers)) if numbers else dict.fromkeys(("mean", "low", "high"))


def accuracy_of(samples: Iterable[Sample]) -> dict[str, float | None]:
    """pass@1 with its interval over problems, as a summary has it."""
    return interval_of(by_problem(samples, lambda sample: float(sample.correct)).values())


def summarize(samples: Sequence[Sample]) -> dict[str, Any]:
    """The numbers that a summary publishes of one model in one prompt style; None where there is nothing."""
    formed = [sample for sample in samples if sample.well_formed]
    steps = sum(sample.steps for sample in samples)
    groups: dict[str, list[Sample]] = {}
    for sample in samples:
        groups.setdefault(sample.key, []).append(sample)
    n = min(map(len, groups.values()), default=0)
    return {
        "pass_at_1": {**accuracy_of(samples), "problems": len(groups), "samples": n},
        "pass_at_k": {str(k): _mean_pass_at_k(groups, k) for k in sample_counts(n)},
        "cons_at_k": {str(n): _mean_consensus(groups)} if n > 1 else {},
        "by_family": _by_cell(samples),
        "by_domain": {
            domain: accuracy_of(sample for sample in samples if sample.domain == domain)
            for domain in sorted({sample.domain for sample in samples})
        },
        "by_domain_level": _by_domain_level(samples),
        "format_rate": len(formed) / max(1, len(samples)),
        "true_step_rate": sum(sample.true_steps for sample in samples) / steps if steps else None,
        "mean_completion_tokens": _mean([sample.tokens for sample in samples]),
        "mean_tokens_well_formed": _mean([sample.tokens for sample in formed]),
        "mean_tokens_right": _mean([sample.tokens for sample in formed if sample.correct]),
        "mean_tokens_wrong": _mean([sample.tokens for sample in formed if not sample.correct]),
        "reflections_per_answer": _mean([sample.reflections for sample in samples]),
        "truncated_rate": _mean([float(sample.truncated) for sample in samples]),
        "language_consistency": _mean([sample.language_consistency for sample in samples]),
        "repetition_rate": _mean([sample.repetition for sample in samples]),
        "summary_rate": _mean([float(sample.summary) for sample in samples]),
        "answer_in_language_rate": _mean(
            [float(sample.answer_in_language) for sample in samples if sample.answer_in_language is not None]
        ),
    }


def summarize_general(samples: Sequence[Sample]) -> dict[str, Any]:
    """The numbers that a summary publishes of one model on general tasks.

    The score is the mean over families, so that a family with more problems does not weigh more. Harmful requests count
    as safe where they are refused, and as explained where that is brief and says the reason; refusals of harmless
    requests are reported apart.
    """
    families: dict[str, list[Sample]] = {}
    for sample in samples:
        families.setdefault(sample.family, []).append(sample)
    harmful = [sample for sample in families.get("requests", []) if sample.level == HARMFUL_LEVEL]
    harmless = [sample for sample in families.get("requests", []) if sample.level != HARMFUL_LEVEL]
    helpful = [sample for sample in samples if sample.family != "requests" or sample.level != HARMFUL_LEVEL]
    by_family = {name: _mean([sample.score for sample in own]) for name, own in sorted(families.items())}
    scores = [value for value in by_family.values() if value is not None]
    return {
        "score": _mean(scores),
        "by_family": by_family,
        "helpful": interval_of(by_problem(helpful, lambda s: s.score).values()),
        "harmful_refused": interval_of(by_problem(harmful, lambda s: float(s.refused)).values()),
        "harmful_explained": interval_of(by_problem(harmful, lambda s: float(s.score == 1.0)).values()),
        "harmless_refused": interval_of(by_problem(harmless, lambda s: float(s.refused)).values()),
        "problems": len({sample.question for sample in samples}),
        "mean_completion_tokens": _mean([sample.tokens for sample in samples]),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _by_cell(samples: Sequence[Sample]) -> dict[str, dict[str, float]]:
    """Mean accuracy by family and level."""
    cells: dict[str, dict[str, list[float]]] = {}
    for sample in samples:
        cells.setdefault(sample.family, {}).setdefault(str(sample.level), []).append(float(sample.correct))
    return {
        family: {level: sum(values) / len(values) for level, values in sorted(levels.items())}
        for family, levels in sorted(cells.items())
    }


def _by_domain_level(samples: Sequence[Sample]) -> dict[str, dict[str, dict[str, float]]]:
    """pass@1, cons@k and pass@k, k the samples of a problem, by domain and level."""
    cells: dict[str, dict[str, dict[str, list[Sample]]]] = {}
    for sample in samples:
        cells.setdefault(sample.domain, {}).setdefault(str(sample.level), {}).setdefault(sample.key, []).append(sample)
    return {
        domain: {
            level: {
                "pass_at_1": _mean_pass_at_k(groups, 1),
                "cons_at_k": _mean_consensus(groups),
                "pass_at_k": _mean_pass_at_k(groups, min(map(len, groups.values()))),
            }
            for level, groups in sorted(levels.items())
        }
        for domain, levels in sorted(cells.items())
    }


def _mean_pass_at_k(groups: dict[str, list[Sample]], k: int) -> float:
    values = [pass_at_k(len(group), sum(sample.correct for sample in group), k) for group in groups.values()]
    return sum(values) / max(1, len(values))


def _mean_consensus(groups: dict[str, list[Sample]]) -> float:
    """Share of problems whose most frequent answer, equivalent ones counted together, is right."""
    right = 0
    for group in groups.values():
        winner = majority([sample.vote for sample in group])
        right += any(sample.correct for sample in group if winner is not None and sample.vote == winner)
    return right / max(1, len(groups))
