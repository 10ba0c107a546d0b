"""Logic: who stands where, deduced from comparisons. Exactly one order fits the clues."""

from __future__ import annotations

import random
import re

from aha.tasks.scribe import Scribe
from aha.types import Domain, Language, Problem, Solution, Style, Voice

PEOPLE = {1: 3, 2: 4, 3: 5, 4: 6, 5: 7}
NAMES: dict[Language, tuple[str, ...]] = {
    "en": ("Ann", "Bob", "Cid", "Dan", "Eve", "Fay", "Gus", "Hal"),
    "zh": ("甲", "乙", "丙", "丁", "戊", "己", "庚", "辛"),
}
CLUES: dict[Language, tuple[str, str]] = {
    "en": ("{high} is taller than {low}.", "{low} is shorter than {high}."),
    "zh": ("{high}比{low}高。", "{low}比{high}矮。"),
}
QUESTIONS: dict[Language, str] = {"en": "Who is number {rank} from the top?", "zh": "从高到低第{rank}是谁？"}
_PERSON = "([A-Z][a-z]{2}|[" + "".join(NAMES["zh"]) + "])"
_CLAIM = re.compile(_PERSON + " ?> ?" + _PERSON)


class Ordering:
    """`PEOPLE[level]` people of eight, ordered by height; clues compare neighbours in the order."""

    name = "ordering"
    domain: Domain = "logic"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws an order and a rank to ask for; clues come shuffled and in both directions."""
        order = rng.sample(range(8), PEOPLE[level])
        rank = rng.randint(1, len(order))
        pairs = list(zip(order, order[1:], strict=False))
        rng.shuffle(pairs)
        names = NAMES[language]
        forms = CLUES[language][: 1 if level == 1 else 2]
        clues = [rng.choice(forms).format(high=names[high], low=names[low]) for high, low in pairs]
        gap = " " if language == "en" else ""
        question = gap.join([*clues, QUESTIONS[language].format(rank=rank)])
        facts = {"order": order, "rank": rank, "_clues": [list(pair) for pair in pairs]}
        return Problem(self.name, self.domain, level, language, question, names[order[rank - 1]], facts)

    def verify(self, problem: Problem, answer: str) -> bool:
        """The person's name, in either language."""
        person = problem.facts["order"][problem.facts["rank"] - 1]
        return answer.strip() in (NAMES["en"][person], NAMES["zh"][person])

    def solve(self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0) -> Solution:
        """Lists the comparisons, finds the tallest, then the next one down, until the rank that is asked for.

        `full` names the next person at once. `check` tests candidates against the clues, in random order, and rejects
        those that somebody stands above. `brief` names the people without the clues.
        """
        scribe = Scribe(rng, style, voice, slip_rate)
        # A space before each English name keeps it the same token as in the clues.
        names = NAMES["zh"] if problem.language == "zh" else tuple(f" {name}" for name in NAMES["en"])
        order, rank = problem.facts["order"], problem.facts["rank"]
        above = {low: high for high, low in zip(order, order[1:], strict=False)}
        if style != "brief":
            scribe.say(text=",".join(f"{names[high]}>{names[low]}" for high, low in problem.facts["_clues"]) + "\n")
        left = list(order)
        found: list[int] = []
        for place in range(1, rank + 1):
            person = self._next(scribe, rng, names, left, above, style, slip_rate)
            scribe.say(text=f"{place}{names[person]}\n")
            left.remove(person)
            found.append(person)
        return Solution(scribe.text, names[found[-1]].strip())

    @staticmethod
    def _next(
        scribe: Scribe, rng: random.Random, names: tuple[str, ...], left: list[int], above: dict[int, int], style: Style, slip: float
    ) -> int:
        """The tallest of those left; outside of `check` a slip takes somebody else."""
        if style != "check":
            return rng.choice(left) if rng.random() < slip else left[0]
        candidates = list(left)
        rng.shuffle(candidates)
        for person in candidates:
            if person == left[0]:
                return person
            scribe.say("try", text=f"{names[person].strip()}:{names[above[person]]}>{names[person]}")
            scribe.say("no", text="\n")
        raise AssertionError("the tallest is among the candidates")

    def check_steps(self, problem: Problem, thinking: str) -> tuple[int, int]:
        """Comparisons X>Y that hold in the order."""
        order = problem.facts["order"]
        place = {NAMES[language][person]: at for at, person in enumerate(order) for language in ("en", "zh")}
        claims = _CLAIM.findall(thinking)
        true = sum(1 for high, low in claims if high in place and low in place and place[high] < place[low])
        return true, len(claims)
