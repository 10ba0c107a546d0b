"""Science: speeds, distances, units of time and meeting times."""

from __future__ import annotations

import random

from aha.grading.expressions import integer
from aha.tasks.scribe import Scribe
from aha.tasks.steps import read_steps
from aha.types import Domain, Language, Problem, Solution, Step, Style, Voice

QUESTIONS: dict[str, dict[Language, str]] = {
    "distance": {
        "en": "A bus goes {v} km per hour for {t} hours, then {w} km more. How many km in all?",
        "zh": "公车每小时走{v}公里，走{t}小时，再走{w}公里。共多少公里？",
    },
    "minutes": {
        "en": "A bus goes {v} km per hour for {m} minutes, then {w} km more. How many km in all?",
        "zh": "公车每小时走{v}公里，走{m}分钟，再走{w}公里。共多少公里？",
    },
    "together": {
        "en": "Two trains {d} km apart go towards each other at {a} and {b} km per hour. After how many hours "
        "do they meet?",
        "zh": "两车相距{d}公里，相向而行，每小时{a}和{b}公里。几小时后相遇？",
    },
    "meeting": {
        "en": "A train leaves at {s}:00 at {a} km per hour, another towards it at {u}:00 at {b} km per hour, "
        "{d} km apart. "
        "When do they meet?",
        "zh": "一车{s}:00出发，每小时{a}公里，另一车{u}:00相向出发，每小时{b}公里，相距{d}公里。何时相遇？",
    },
}
MINUTES = 60
"""In an hour. A trip is the same problem (on the same side of the held-out line) in either unit."""


class Motion:
    """Level 1: a distance, the time in hours or in minutes. Level 2: two that approach. Levels 3 to 5: a head start.

    Speeds in tens from level 4.
    """

    name = "motion"
    domain: Domain = "science"
    levels: tuple[int, ...] = (1, 2, 3, 4, 5)

    def sample(self, rng: random.Random, level: int, language: Language) -> Problem:
        """Draws speeds and times so that the answer is whole."""
        if level == 1:
            kind, facts = "distance", self._distance(rng)
            answer = str(facts["v"] * facts["t"] + facts["w"])
            facts["_minutes"] = rng.random() < 0.5
        elif level == 2:
            (a, b), t = sorted((rng.randint(1, 12), rng.randint(1, 12))), rng.randint(2, 9)
            while (a + b) * t > 99:
                t -= 1
            kind, facts, answer = "together", {"a": a, "b": b, "d": (a + b) * t}, str(t)
        else:
            kind, facts, answer = "meeting", *self._meeting(rng, level)
        stated = {"kind": kind, **facts}
        wording = QUESTIONS["minutes" if facts.get("_minutes") else kind][language]
        question = wording.format(m=MINUTES * facts.get("t", 0), **stated)
        return Problem(self.name, self.domain, level, language, question, answer, stated)

    @staticmethod
    def _distance(rng: random.Random) -> dict[str, int]:
        v, t = rng.randint(2, 12), rng.randint(2, 8)
        return {"v": v, "t": t, "w": rng.randint(1, max(1, 99 - v * t))}

    @staticmethod
    def _meeting(rng: random.Random, level: int) -> tuple[dict[str, int], str]:
        unit, largest_head, largest_time = {3: (1, 2, 6), 4: (10, 2, 5), 5: (10, 4, 9)}[level]
        while True:
            a, b = rng.randint(2, 9) * unit, rng.randint(2, 9) * unit
            head, t = rng.randint(1, largest_head), rng.randint(2, largest_time)
            distance = a * head + (a + b) * t
            if distance <= (99 if level == 3 else 999):
                break
        start = rng.randint(1, 9)
        facts = {"s": start, "u": start + head, "a": a, "b": b, "d": distance}
        return facts, f"{start + head + t}:00"

    def verify(self, problem: Problem, answer: str) -> bool:
        """Whole numbers, or a time of day like 11:00."""
        answer = answer.strip()
        if problem.facts["kind"] == "meeting":
            if not answer.endswith(":00"):
                return False
            return integer(answer[:-3]) == int(problem.answer[:-3])
        return integer(answer) == int(problem.answer)

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The integer in plain digits; where the question is "when", the time of day without leading zeros."""
        if problem.facts["kind"] != "meeting":
            number = integer(answer)
            return None if number is None else str(number)
        hours, colon, minutes = answer.strip().rpartition(":")
        hour = integer(hours)
        if hour is None or not colon or not (len(minutes) == 2 and minutes.isascii() and minutes.isdigit()):
            return None
        return f"{hour}:{minutes}"

    def solve(
        self, problem: Problem, rng: random.Random, style: Style, voice: Voice, slip_rate: float = 0.0
    ) -> Solution:
        """Hours, head start, what is left, closing speed, time, clock; `brief` leaves out all but the last."""
        scribe = Scribe(rng, style, voice, slip_rate)
        facts = problem.facts
        if facts["kind"] == "distance":
            hours = facts["t"]
            if facts["_minutes"] and style != "brief":
                hours = scribe.compute(MINUTES * hours, "/", MINUTES)
            way = facts["v"] * hours if style == "brief" else scribe.compute(facts["v"], "*", hours)
            return self._close(scribe, scribe.compute(way, "+", facts["w"]), "{}")
        left = facts["d"]
        if facts["kind"] == "meeting":
            head = facts["u"] - facts["s"]
            if style != "brief":
                scribe.say(text=f"{facts['u']}-{facts['s']}={head}\n")
                scribe.say("way")
                way = scribe.compute(facts["a"], "*", head) if head > 1 else self._same(scribe, facts["a"])
                scribe.say("left")
                left = scribe.compute(left, "-", way) if left >= way else left
            else:
                left -= facts["a"] * head
        speed = facts["a"] + facts["b"]
        if style != "brief":
            scribe.say("speed")
            speed = scribe.compute(facts["a"], "+", facts["b"])
        scribe.say("time")
        time = (
            scribe.compute(left, "/", speed) if left % speed == 0 else self._same(scribe, max(1, round(left / speed)))
        )
        if facts["kind"] == "together":
            return self._close(scribe, time, "{}")
        return self._close(scribe, scribe.compute(facts["u"], "+", time), "{}:00")

    @staticmethod
    def _same(scribe: Scribe, value: int) -> int:
        scribe.say(text=f"{value}\n")
        return value

    @staticmethod
    def _close(scribe: Scribe, value: int, form: str) -> Solution:
        return Solution(scribe.text, form.format(value))

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """Equations, and what checks say of them."""
        return read_steps(thinking)
