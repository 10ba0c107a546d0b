"""Will thinking grow in reinforcement learning? The rules, in one place, and their sentences. No torch here.

RL from a right or wrong answer reweighs what a model does already. So long thinking grows, and makes answers right,
where short answers are hopeless and long ones right and not too rare (2510.11495):

1. short: above the lowest level, answers without work are right at most 5 points more often than a guess is, or at
   least 40 points less often than long ones. Otherwise RL sharpens them, which is easier: thinking shrinks.
2. long: at the corpus's levels, at least 80% of the long answers are right.
3. share: at the corpus's levels, at least 2% of all answers are long.
4. steps: look-ups and single steps are right in at least 90%: RL does not mend them.

Another question is whether more passes pay, forced ones ("Wait") above all: only where they can tell right from wrong
(2510.12157) and may confirm. A model whose verdicts are coins still learns to work things out.

5. verdicts: the share of right attempts that are rejected and of wrong ones that are accepted add up to less than 30%.
6. continuation: a forced "Wait" makes at most 5%, or one, of the right long answers wrong.

A rule is left out where fewer than ten cases bear on it, and where a family has nothing of the kind. Where nothing
fails but there are fewer than ten long answers, nobody can say.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from aha.rewards.reflection import gives_up
from aha.tasks.families import FAMILIES
from aha.text.thinking import Parsed
from aha.types import Problem

ABOVE_CHANCE, BELOW_LONG = 0.05, 0.40
LONG_RIGHT, LONG_SHARE = 0.80, 0.02
VERDICT_ERRORS = 0.30
RIGHT_TO_WRONG = 0.05
STEPS_RIGHT = 0.90
FEWEST = 10
"""Cases that a rule needs."""
WORDS = {
    "grows": "will grow",
    "unknown": "may grow (too few long answers to say)",
    "stays": "will not grow",
    "errs": "will not grow, or grow without getting things right",
    "shrinks": "will shrink",
}
"""An outcome in words."""

Kind = Literal["long", "short", "given_up", "malformed"]
"""An answer with work to its end; without any; with work, and then a guess; not of the strict form."""
Outcome = Literal["grows", "unknown", "stays", "errs", "shrinks"]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer, as the rules see it."""

    family: str
    level: int
    kind: Kind
    correct: bool
    chance: float
    """The probability that a guess is right."""


@dataclass(frozen=True, slots=True)
class Share:
    """How many of some cases there were."""

    found: int
    cases: int

    @property
    def value(self) -> float | None:
        """The share; None of no cases."""
        return self.found / self.cases if self.cases else None

    @property
    def known(self) -> float | None:
        """The share, where there are cases enough for a rule."""
        return self.value if self.cases >= FEWEST else None


NONE = Share(0, 0)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known beside the answers."""

    rejects_right: Share = NONE
    accepts_wrong: Share = NONE
    right_to_wrong: Share = NONE
    look_ups: Share = NONE
    steps: Share = NONE


@dataclass(frozen=True, slots=True)
class Verdict:
    """What will become of thinking, whether more passes will pay, and why not."""

    outcome: Outcome
    reasons: tuple[str, ...]
    """Why it will not grow, each with its remedy; none where it grows."""
    more_passes_pay: bool | None = None
    """None where nothing is known."""
    reasons_against_more: tuple[str, ...] = ()
    """Why they will not, each with its remedy."""


def kind_of(problem: Problem, parsed: Parsed) -> Kind:
    """What sort of answer a completion is."""
    if not parsed.well_formed:
        return "malformed"
    steps = FAMILIES[problem.family].check_steps(problem, parsed.thinking)
    if all(step.accepts is not None for step in steps):
        return "short"
    return "given_up" if gives_up(parsed.thinking) else "long"


def answer_of(problem: Problem, parsed: Parsed, correct: bool) -> Answer:
    """An answer to a problem of a family of lists."""
    chance = FAMILIES[problem.family].chance(problem)
    return Answer(problem.family, problem.level, kind_of(problem, parsed), correct, chance)


def right(answers: Iterable[Answer], kind: Kind) -> Share:
    """How many of the answers of a kind are right."""
    own = [answer.correct for answer in answers if answer.kind == kind]
    return Share(sum(own), len(own))


def share_of(answers: Sequence[Answer], kind: Kind) -> Share:
    """How many of the answers are of a kind."""
    return Share(sum(answer.kind == kind for answer in answers), len(answers))


def mean_chance(answers: Sequence[Answer]) -> float | None:
    """How often guesses at these questions are right."""
    return sum(answer.chance for answer in answers) / len(answers) if answers else None


def judge(answers: Sequence[Answer], corpus_levels: Iterable[int], evidence: Evidence | None = None) -> Verdict:
    """Applies the rules.

    Args:
        answers: of one family, or of several that are trained together.
        corpus_levels: levels at which the model has seen whole solutions.
        evidence: what else was measured.
    """
    known = set(corpus_levels)
    there = [answer for answer in answers if answer.level in known]
    evidence = evidence or Evidence()
    against = tuple(reason for reason in (_verdicts(evidence), _continuation(evidence)) if reason)
    asked = evidence.rejects_right, evidence.accepts_wrong, evidence.right_to_wrong
    pays = not against if any(share.known is not None for share in asked) else None
    by_outcome: dict[Outcome, list[str | None]] = {
        "shrinks": [_short(answers)], "errs": [_long(there), *_steps(evidence)], "stays": [_rare(there)],
    }  # fmt: skip
    failing = [(outcome, reason) for outcome, own in by_outcome.items() for reason in own if reason]
    if failing:
        return Verdict(failing[0][0], tuple(reason for _, reason in failing), pays, against)
    cases = right(there, "long").cases
    if cases < FEWEST:
        return Verdict("unknown", (_too_few(cases),), pays, against)
    return Verdict("grows", (), pays, against)


def _short(answers: Sequence[Answer]) -> str | None:
    levels = {answer.level for answer in answers}
    above = [answer for answer in answers if answer.level > min(levels) or len(levels) == 1]
    own = [answer for answer in above if answer.kind == "short"]
    short, long = right(above, "short").known, right(above, "long").known
    chance = mean_chance(own)
    if short is None or chance is None or short <= chance + ABOVE_CHANCE:
        return None
    if long is not None and short <= long - BELOW_LONG:
        return None
    beside = f", long ones {long:.0%}" if long is not None else ""
    return (
        f"short answers are right {short:.0%} of the time (a guess {chance:.0%}{beside}): RL will sharpen them "
        "instead; ask higher levels, or questions whose answer can only be worked out or guessed"
    )


def _long(there: Sequence[Answer]) -> str | None:
    share = right(there, "long")
    if share.known is None or share.known >= LONG_RIGHT:
        return None
    return (
        f"long answers are right in {share.known:.0%} only at the corpus's levels ({share.found} of {share.cases}; "
        f"{LONG_RIGHT:.0%} is needed): RL does not mend steps; pretrain longer, in smaller steps, until single steps "
        "are nearly always right"
    )


def _rare(there: Sequence[Answer]) -> str | None:
    share = share_of(there, "long").known
    if share is None or share >= LONG_SHARE:
        return None
    return (
        f"long answers are {share:.1%} of all ({LONG_SHARE:.0%} is needed): RL will hardly meet one to reward; "
        "more whole solutions in the corpus (corpus.answers.long), or a longer limit if they are cut off"
    )


def _too_few(long: int) -> str:
    return f"long answers at the corpus's levels: {long}, too few to judge; ask more problems or samples"


def _verdicts(evidence: Evidence) -> str | None:
    rejects, accepts = evidence.rejects_right.known, evidence.accepts_wrong.known
    if rejects is None or accepts is None or rejects + accepts < VERDICT_ERRORS:
        return None
    return (
        f"its verdicts reject {rejects:.0%} of what is right and accept {accepts:.0%} of what is wrong (together less "
        f"than {VERDICT_ERRORS:.0%} is needed, a coin has 100%): trying again does not pay; more verdicts in the "
        "corpus (corpus.practice, corpus.second_pass), or pretrain longer"
    )


def _continuation(evidence: Evidence) -> str | None:
    cases = evidence.right_to_wrong
    if cases.known is None or cases.known <= RIGHT_TO_WRONG or cases.found < 2:
        return None
    return (
        f'a forced "Wait" makes {cases.known:.0%} of the right long answers wrong ({cases.found} of {cases.cases}; at '
        f"most {RIGHT_TO_WRONG:.0%}): second passes must be able to confirm; more of them in the corpus "
        "(corpus.second_pass), fewer after mistakes (corpus.slip)"
    )


def _steps(evidence: Evidence) -> list[str]:
    found = []
    look_ups, steps = evidence.look_ups.known, evidence.steps.known
    if look_ups is not None and look_ups < STEPS_RIGHT:
        found.append(
            f"look-ups are right in {look_ups:.0%} only ({STEPS_RIGHT:.0%} is needed): pretrain longer, in smaller "
            "steps, shorter lists first"
        )
    if steps is not None and steps < STEPS_RIGHT:
        found.append(
            f"single steps are right in {steps:.0%} only ({STEPS_RIGHT:.0%} is needed): pretrain longer, with more "
            "facts (corpus.practice)"
        )
    return found


def overall(verdicts: dict[str, Verdict]) -> str:
    """What families' verdicts come to, in a sentence on growth and one on more passes."""
    named = {outcome: [name for name, verdict in verdicts.items() if verdict.outcome == outcome] for outcome in WORDS}
    parts = [f"{WORDS[outcome]} in {', '.join(own)}" for outcome, own in named.items() if own]
    growth = f"In RL thinking {'; it '.join(parts)}."
    pays, not_ = ([name for name, one in verdicts.items() if one.more_passes_pay is said] for said in (True, False))
    more = [f"{words} in {', '.join(own)}" for words, own in (("will pay", pays), ("will not pay", not_)) if own]
    return growth + (f' After RL more passes, as a forced "Wait" makes them, {", they ".join(more)}.' if more else "")


def in_short(answers: Sequence[Answer]) -> str:
    """The verdict from answers alone, in one sentence, for what asks a model anyway; empty where there are too few."""
    if len(answers) < FEWEST:
        return ""
    verdict = judge(answers, {answer.level for answer in answers})
    chance = mean_chance(answers)
    long, short = (f"{share.value:.0%} right" if (share := right(answers, kind)).cases else "none" for kind in
                   ("long", "short"))  # fmt: skip
    shares = [share_of(answers, kind).value or 0.0 for kind in ("long", "short")]
    found = (
        f"{shares[0]:.0%} of {len(answers)} answers are long ({long}), {shares[1]:.0%} short ({short}; a guess "
        f"{chance:.0%})"
    )
    why = f", since {'; and '.join(verdict.reasons)}" if verdict.outcome in ("stays", "errs", "shrinks") else ""
    return f"{found}: thinking {WORDS[verdict.outcome]}{why}"
