"""Four families that go through a stretch of a list in order: sums, programs, pulses, cups. Level: items to go through.

Mathematics adds, code runs a program of additions and products, science follows a level through pulses, logic follows
a ball under cups. Each line is one step modulo 10, or one swap of two of five places. A second pass goes over the
stretch again and puts its end beside that of the pass before ("8?8 same").
"""

from __future__ import annotations

import random
import re
from typing import Any, ClassVar

from aha.tasks.integer_answers import IntegerAnswers
from aha.tasks.lists import LABELS, LONGEST_LIST, Item, ListFamily
from aha.tasks.words import WORDS, word
from aha.types import Domain, Language, Piece, Problem, Step, Voice

LINE = re.compile(r"(?P<label>[a-z])(?P<item>[+*]?[0-9]{1,2})(?:[+ ](?P<state>[0-9]))?=(?P<result>[0-9])")
VERDICT = re.compile(
    rf"(?P<end>[0-9])(?:\?(?P<before>[0-9]))?(?:(?P<same>{'|'.join(WORDS['same'].values())})|(?P<differ>{'|'.join(WORDS['differ'].values())}))"
)
MOST_PASSES = 5
COMPARED = 0.3
"""Of facts, comparisons of two ends."""
SHOW_SHARE = 0.15
"""Of practice, stretches that are copied on request: what teaches where to stop. With 0.4 look-ups do not form."""
END: dict[Language, str] = {"en": "End", "zh": "完"}
SHOW: dict[Language, str] = {"en": ". Show {first} to {last}.\n", "zh": "。列出{first}到{last}。\n"}


class Chain(IntegerAnswers, ListFamily):
    """A state that is carried from item to item."""

    states: ClassVar[range]
    """What the state can be."""
    joint: ClassVar[str] = " "
    """What stands between an item and the state before it."""

    def draw_item(self, rng: random.Random) -> Item:
        """One item."""
        raise NotImplementedError

    def step(self, item: Item, state: int) -> int:
        """The state after an item."""
        raise NotImplementedError

    def sample(self, rng: random.Random, level: int, language: Language, longest: int = LONGEST_LIST) -> Problem:
        """A list, a stretch of it of `level` items, and what it starts with."""
        items = [self.draw_item(rng) for _ in range(rng.randint(max(level, 2), max(level, longest)))]
        return self._asked(items, rng, level, language)

    def ask_again(self, problem: Problem, rng: random.Random, level: int) -> Problem:
        """Another stretch of the same list."""
        items = problem.facts["items"]
        return self._asked(items, rng, min(level, len(items)), problem.language)

    def _asked(self, items: list[Item], rng: random.Random, level: int, language: Language) -> Problem:
        first = rng.randint(0, len(items) - level)
        start, last = rng.choice(self.states), first + level - 1
        state = start
        for item in items[first : last + 1]:
            state = self.step(item, state)
        asked = self.wording[language].format(start=start, first=LABELS[first], last=LABELS[last])
        facts = {"items": items, "start": start, "first": first, "last": last}
        question = self.listed(items, language) + asked
        return Problem(self.name, self.domain, level, language, question, str(state), facts)

    def guess(self, problem: Problem, rng: random.Random) -> str:
        """Any state."""
        return str(rng.choice(self.states))

    def chance(self, problem: Problem) -> float:
        """One in as many as there are states."""
        return 1 / len(self.states)

    def line(self, index: int, item: Item, state: int, result: int, restate: bool = True) -> str:
        """Label, item, state before and after."""
        before = f"{self.joint}{state}" if restate else ""
        return f"{LABELS[index]}{self.written(item)}{before}={result}\n"

    def lines(self, problem: Problem, rng: random.Random, voice: Voice, restate: bool = True) -> list[str]:
        """One line an item."""
        return self._pass(problem, rng, -1, restate)[0]

    def _pass(self, problem: Problem, rng: random.Random, slip_at: int, restate: bool) -> tuple[list[str], int]:
        """The lines of a pass and its end; one result may be wrong, and is carried on."""
        facts, state, found = problem.facts, problem.facts["start"], []
        for number, index in enumerate(range(facts["first"], facts["last"] + 1)):
            true = result = self.step(facts["items"][index], state)
            while number == slip_at and result == true:
                result = rng.choice(self.states)
            found.append(self.line(index, facts["items"][index], state, result, restate))
            state = result
        return found, state

    def passes(
        self, problem: Problem, rng: random.Random, voice: Voice, more: bool, slip: bool, further: float, restate: bool
    ) -> tuple[str, str]:
        """Passes until two ends agree."""
        lines, end = self._pass(problem, rng, rng.randrange(problem.level) if slip else -1, restate)
        text, ends = "".join(lines), [end]
        while more and len(ends) < MOST_PASSES:
            lines, end = self._pass(problem, rng, -1, restate)
            agrees = end == ends[-1]
            compared = f"{end}?{ends[-1]}" if restate else str(end)
            verdict = compared + word("same" if agrees else "differ", voice)
            text += f"{word('wait', voice)}\n{''.join(lines)}{verdict}\n"
            ends.append(end)
            if agrees and rng.random() >= further:
                break
        return text, str(end)

    def practice(self, problem: Problem, rng: random.Random) -> list[Piece]:
        """A stretch copied on request, or the list from some item on, some items with a single step."""
        items = problem.facts["items"]
        first = rng.randrange(len(items))
        if rng.random() < SHOW_SHARE:
            last = rng.randint(first, len(items) - 1)
            request = SHOW[problem.language].format(first=LABELS[first], last=LABELS[last])
            copied = "".join(self.copied(items, first, last))
            return [Piece(request, False), Piece(f"{copied}{END[problem.language]}\n")]
        pieces = [Piece("\n" + LABELS[first], False)]
        for index, copied in enumerate(self.copied(items, first, len(items) - 1), start=first):
            if rng.random() < 0.4:
                state = rng.choice(self.states)
                item = f"{self.written(items[index])}{self.joint}"
                result = self.step(items[index], state)
                own = [Piece(LABELS[index] + item), Piece(str(state), False), Piece(f"={result}\n")]
            else:
                own = [Piece(copied)]
            pieces += own if index > first else [Piece(own[0].text[1:]), *own[1:]]
        return pieces

    def fact(self, rng: random.Random, language: Language) -> tuple[str, str]:
        """An item, a state, and the state after it; or the ends of two passes, compared."""
        if rng.random() < COMPARED:
            end = rng.choice(self.states)
            before = end if rng.random() < 0.5 else rng.choice(self.states)
            return f"{end}?{before}", word("same" if end == before else "differ", language)
        item, state = self.draw_item(rng), rng.choice(self.states)
        return f"{self.written(item)}{self.joint}{state}", f"={self.step(item, state)}"

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """A line is true where its item is the list's and its result the step's; the order of lines is not judged.

        A verdict that accepts is true where what it accepts is the answer, one that rejects where what the passes
        before it came to is not.
        """
        steps: list[Step] = []
        ends: list[int] = []
        state = problem.facts["start"]
        for number, text in enumerate(thinking.splitlines()):
            if (line := LINE.fullmatch(text)) is not None:
                before = state if line["state"] is None else int(line["state"])
                state = int(line["result"])
                steps.append(Step(text, self._holds(problem, line["label"] + line["item"], before, state), number))
            elif (verdict := VERDICT.fullmatch(text)) is not None and ends:
                accepts = verdict["differ"] is None
                claimed = verdict["end"] if accepts else str(ends[-1])
                true = (claimed == problem.answer) == accepts
                steps.append(Step(text, true, number, accepts=accepts))
                ends.append(int(verdict["end"]))
            elif text in WORDS["wait"].values():
                ends.append(state)
                state = problem.facts["start"]
        return steps

    def _holds(self, problem: Problem, labelled: str, state: int, result: int) -> bool:
        items, index = problem.facts["items"], LABELS.index(labelled[0])
        if index >= len(items) or labelled[1:] != self.written(items[index]):
            return False
        return self.step(items[index], state) == result


class Sums(Chain):
    """Mathematics: cards are added up, and the last digit is asked."""

    name = "sums"
    domain: Domain = "math"
    heading: dict[Language, str] = {"en": "Cards", "zh": "牌"}
    wording: dict[Language, str] = {
        "en": ". Start with {start}, add {first} to {last}. Last digit?",
        "zh": "。从{start}起加{first}到{last}，个位？",
    }
    states = range(10)
    joint = "+"

    def draw_item(self, rng: random.Random) -> Item:
        """A card."""
        return (rng.randint(1, 9),)

    def step(self, item: Item, state: int) -> int:
        """The last digit of the sum."""
        return int((state + item[0]) % 10)


class Program(Chain):
    """Code: some lines of a program of additions and products are run, and the last digit of x is asked."""

    name = "program"
    domain: Domain = "code"
    heading: dict[Language, str] = {"en": "Code", "zh": "代码"}
    wording: dict[Language, str] = {
        "en": ". x={start}, run {first} to {last}. Last digit of x?",
        "zh": "。x={start}，运行{first}到{last}，x个位？",
    }
    states = range(10)

    def draw_item(self, rng: random.Random) -> Item:
        """An instruction."""
        return ("+", rng.randint(1, 9)) if rng.random() < 0.5 else ("*", rng.choice((2, 3, 7, 9)))

    def step(self, item: Item, state: int) -> int:
        """The last digit of x after the instruction."""
        return apply(item[0], state, item[1])


class _Swaps(Chain):
    """Items that swap two of five places."""

    states = range(1, 6)

    def draw_item(self, rng: random.Random) -> Item:
        """Two different places, the lower one first."""
        return tuple(sorted(rng.sample(self.states, 2)))

    def step(self, item: Item, state: int) -> int:
        """Where the swap takes what is at a place."""
        low, high = item
        return int({low: high, high: low}.get(state, state))


class Pulses(_Swaps):
    """Science: an atom of five levels, and pulses that each swap two of them."""

    name = "pulses"
    domain: Domain = "science"
    heading: dict[Language, str] = {"en": "Pulses", "zh": "脉冲"}
    wording: dict[Language, str] = {
        "en": ". Level {start}, pulses {first} to {last}. Which level?",
        "zh": "。能级{start}，脉冲{first}到{last}，哪级？",
    }


class Cups(_Swaps):
    """Logic: a ball under one of five cups, and swaps of two of them."""

    name = "cups"
    domain: Domain = "logic"
    heading: dict[Language, str] = {"en": "Cups", "zh": "杯"}
    wording: dict[Language, str] = {
        "en": ". Ball under {start}, swaps {first} to {last}. Where is it?",
        "zh": "。球在{start}，换{first}到{last}，球在哪？",
    }


def apply(operation: Any, state: int, operand: int) -> int:
    """One addition or product, modulo 10."""
    return (state + operand) % 10 if operation == "+" else (state * operand) % 10
