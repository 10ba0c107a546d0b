"""Two families that search: boxes whose digits add up, rules that explain an example. Level: candidates that fail.

Candidates are tested in order until one fits. Each test is one line that ends in a verdict: a step, its result
beside what is wanted ("b4+8=2?2 yes"). A second pass tests the accepted candidate again, boxes from the other
side; where it does not fit after all, the search goes on behind it.
"""

from __future__ import annotations

import random
import re
from typing import ClassVar

from aha.tasks.chains import apply
from aha.tasks.lists import LABELS, LONGEST_LIST, Item, ListFamily
from aha.tasks.words import WORDS, word
from aha.types import Domain, Language, Piece, Problem, Step, Voice

TEST = re.compile(
    r"(?P<label>[a-z])(?P<work>[ 0-9+*]+)=(?P<result>[0-9])(?:\?(?P<wanted>[0-9]))?"
    rf"(?:(?P<yes>{'|'.join(WORDS['yes'].values())})|(?P<no>{'|'.join(WORDS['no'].values())}))"
)
MOST_PASSES = 4
SHORT_LIST = 5
"""Items up to which practice says verdicts: whole searches occur in the corpus at low levels only."""


class Search(ListFamily):
    """One of several candidates fits."""

    wants: ClassVar[str]
    """The fact that says what a candidate's result must be."""

    def draw_item(self, rng: random.Random) -> Item:
        """A candidate, fitting or not."""
        raise NotImplementedError

    def work(self, item: Item, start: int, backwards: bool = False) -> tuple[str, int]:
        """The step of a candidate's test as it is written, and its result."""
        raise NotImplementedError

    def sample(self, rng: random.Random, level: int, language: Language, longest: int = LONGEST_LIST) -> Problem:
        """As many candidates as the level has failures, and the one that fits at a random place among them."""
        start, target, right = rng.randint(1, 9), rng.randint(0, 9), rng.randrange(level + 1)
        items = []
        for index in range(level + 1):
            item = self.draw_item(rng)
            while (self.work(item, start)[1] == target) != (index == right):
                item = self.draw_item(rng)
            items.append(item)
        facts = {"items": items, "start": start, "target": target}
        question = self.listed(items, language) + self.wording[language].format(**facts)
        if "{start}" not in self.wording[language]:
            del facts["start"]
        return Problem(self.name, self.domain, level, language, question, LABELS[right], facts)

    def ask_again(self, problem: Problem, rng: random.Random, level: int) -> None:
        """A list is made for its question."""
        return

    def guess(self, problem: Problem, rng: random.Random) -> str:
        """A candidate without a test."""
        return rng.choice(LABELS[: len(problem.facts["items"])])

    def chance(self, problem: Problem) -> float:
        """One in as many as there are candidates."""
        return 1 / len(problem.facts["items"])

    def verify(self, problem: Problem, answer: str) -> bool:
        """The label of the candidate that fits."""
        return answer.strip() == problem.answer

    def canonical(self, problem: Problem, answer: str) -> str | None:
        """The label."""
        label = answer.strip()
        return label if len(label) == 1 and label in LABELS else None

    def test(
        self, problem: Problem, index: int, voice: Voice, slip: bool = False, backwards: bool = False,
        restate: bool = True,
    ) -> tuple[str, bool]:  # fmt: skip
        """A candidate's line, and its verdict; with a slip the result, and so the verdict, is wrong."""
        facts = problem.facts
        work, result = self.work(facts["items"][index], facts.get("start", 0), backwards)
        if slip:
            result = facts["target"] if result != facts["target"] else (result + 1 + index) % 10
        fits = result == facts["target"]
        wanted = f"?{facts['target']}" if restate else ""
        return f"{LABELS[index]}{work}={result}{wanted}{word('yes' if fits else 'no', voice)}\n", fits

    def lines(self, problem: Problem, rng: random.Random, voice: Voice, restate: bool = True) -> list[str]:
        """Candidates in order until one fits."""
        return self._tested(problem, voice, restate)[0]

    def _tested(
        self, problem: Problem, voice: Voice, restate: bool, slip_at: int = -1, first: int = 0
    ) -> tuple[list[str], int | None]:
        """The lines of a pass from a candidate on, and the place of the one that it accepts."""
        found = []
        for index in range(first, len(problem.facts["items"])):
            line, fits = self.test(problem, index, voice, slip=index == slip_at, restate=restate)
            found.append(line)
            if fits:
                return found, index
        return found, None

    def passes(
        self, problem: Problem, rng: random.Random, voice: Voice, more: bool, slip: bool, further: float, restate: bool
    ) -> tuple[str, str]:
        """A search, and tests of what it accepts; where nothing fits it begins again."""
        slip_at = rng.randrange(len(problem.facts["items"])) if slip else -1
        lines, end = self._tested(problem, voice, restate, slip_at)
        text = "".join(lines)
        for _ in range(MOST_PASSES if more or end is None else 0):
            text += word("wait", voice) + "\n"
            if end is None:
                lines, end = self._tested(problem, voice, restate)
            else:
                line, fits = self.test(problem, end, voice, backwards=True, restate=restate)
                lines = [line]
                if not fits:
                    rest, end = self._tested(problem, voice, restate, first=end + 1)
                    lines += rest
            text += "".join(lines)
            if end is not None and rng.random() >= further:
                break
        return text, LABELS[end] if end is not None else problem.answer

    def practice(self, problem: Problem, rng: random.Random) -> list[Piece]:
        """Verdicts on all of a short list, or the list from some candidate on, some with a step without a verdict."""
        items = problem.facts["items"]
        if len(items) <= SHORT_LIST and rng.random() < 0.3:
            asked = problem.question.removeprefix(self.listed(items, problem.language))
            tests = [self.test(problem, index, problem.language, backwards=rng.random() < 0.2)[0]
                     for index in range(len(items))]  # fmt: skip
            return [Piece(asked + "\n", False), Piece("".join(tests))]
        first = rng.randrange(len(items))
        pieces = [Piece("\n" + LABELS[first], False)]
        for index, copied in enumerate(self.copied(items, first, len(items) - 1), start=first):
            if rng.random() < 0.4:
                start = rng.randint(1, 9)
                work, result = self.work(items[index], start, rng.random() < 0.2)
                asked = str(start) if "start" in problem.facts else ""
                own = [Piece(LABELS[index] + work.removesuffix(asked)), Piece(asked, False), Piece(f"={result}\n")]
            else:
                own = [Piece(copied)]
            pieces += own if index > first else [Piece(own[0].text[1:]), *own[1:]]
        return pieces

    def fact(self, rng: random.Random, language: Language) -> tuple[str, str]:
        """A result beside what is wanted, and the verdict."""
        result = rng.randint(0, 9)
        wanted = result if rng.random() < 0.4 else rng.randint(0, 9)
        return f"{result}?{wanted}", word("yes" if result == wanted else "no", language)

    def check_steps(self, problem: Problem, thinking: str) -> list[Step]:
        """A test is true where its work and result are, its verdict where the candidate fits or does not."""
        steps: list[Step] = []
        items, facts = problem.facts["items"], problem.facts
        for number, text in enumerate(thinking.splitlines()):
            line = TEST.fullmatch(text)
            if line is None:
                continue
            index, accepts = LABELS.index(line["label"]), line["no"] is None
            true = known = index < len(items)
            if known:
                ways = [self.work(items[index], facts.get("start", 0), backwards) for backwards in (False, True)]
                true = (line["work"], int(line["result"])) in ways
                known = ways[0][1] == facts["target"]
            shown = text[: line.end("wanted") if line["wanted"] else line.end("result")]
            steps += [
                Step(shown, true and line["wanted"] in (None, str(facts["target"])), number),
                Step(text[len(shown) :].strip(), known == accepts, number, accepts=accepts),
            ]
        return steps


class Boxes(Search):
    """Logic, by elimination: whose two digits add up to a last digit?"""

    name = "boxes"
    domain: Domain = "logic"
    heading: dict[Language, str] = {"en": "Boxes", "zh": "箱"}
    wording: dict[Language, str] = {"en": ". Whose digits add to {target}?", "zh": "。哪个数字和为{target}？"}

    def draw_item(self, rng: random.Random) -> Item:
        """Two digits."""
        return rng.randint(0, 9), rng.randint(0, 9)

    def work(self, item: Item, start: int, backwards: bool = False) -> tuple[str, int]:
        """The last digit of the sum, from either side."""
        first, second = item[::-1] if backwards else item
        return f"{first}+{second}", (first + second) % 10


class Rules(Search):
    """Code: which operation turns one number into another?"""

    name = "rules"
    domain: Domain = "code"
    heading: dict[Language, str] = {"en": "Rules", "zh": "规则"}
    wording: dict[Language, str] = {
        "en": ". Which turns {start} into {target}?",
        "zh": "。哪个把{start}变成{target}？",
    }

    def draw_item(self, rng: random.Random) -> Item:
        """An operation."""
        return rng.choice("+*"), rng.randint(1, 9)

    def work(self, item: Item, start: int, backwards: bool = False) -> tuple[str, int]:
        """The last digit after the operation. There is no other way round."""
        return f"{item[0]}{item[1]} {start}", apply(item[0], start, item[1])
