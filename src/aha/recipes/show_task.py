"""`aha task`: problems as the model sees them, with what the right answer and wrong ones score."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from aha.errors import ConfigError, GradingError
from aha.protocols import Judge
from aha.rewards.own import own_reward, short_name
from aha.tasks.datasets import load_dataset, open_dataset
from aha.tasks.families import FAMILIES
from aha.text.prompt_style import PromptStyle
from aha.text.templates import zero_document
from aha.text.tokenizer import Tokenizer
from aha.types import Language, Problem

NONSENSE = ("", "I do not know", "nan")
Prompt = Callable[[Problem], str]


def show_task(
    name: str,
    level: int | None,
    count: int,
    language: str,
    seed: int,
    data: Path | None,
    model: Path | None,
    style: PromptStyle,
    rewards: Sequence[str],
) -> None:
    """Prints problems of a family or task: the prompt, the answer, and the scores of right and wrong answers.

    Args:
        name: of the family or task.
        level: of a family's difficulty; None shows all.
        count: problems (of each level).
        language: of a family's problems.
        seed: of their choice.
        data: the task's data folder or file.
        model: whose template the prompts are shown in; None shows R1-Zero's.
        style: of the prompts.
        rewards: functions of the user's own, whose scores are shown beside.

    Raises:
        UnknownNameError: no such family or task.
        ConfigError: no such level, language or reward, or the data are not there.
        GradingError: a right answer does not score 1, a wrong one does, or grading is not possible here.
    """
    prompt = _prompt(model, style)
    if name in FAMILIES:
        family = FAMILIES[name]
        if language not in ("en", "zh"):
            raise ConfigError(f"language = {language!r}: must be 'en' or 'zh'")
        if level is not None and level not in family.levels:
            raise ConfigError(f"level = {level}: family {name!r} has levels {', '.join(map(str, family.levels))}")
        shown = _Shown(family, prompt, rewards)
        for problem, other in _drawn(name, level, count, "en" if language == "en" else "zh", seed):
            wrong = [*NONSENSE, f"{problem.answer} or not", other.answer]
            shown.show(problem, f"level {problem.level}", problem.answer, wrong)
        shown.sum_up()
        return
    with open_dataset(name) as task:
        problems = load_dataset(task, data)
        task.prepare()
        shown = _Shown(task, prompt, rewards)
        for problem in random.Random(f"show {seed} {name}").sample(problems, min(count, len(problems))):
            about, gold = str(problem.facts["_id"]), task.gold(problem)
            shown.show(problem.with_hint(task.instruction), about, gold, task.wrong_answers(problem))
        shown.sum_up(f"{len(problems):,} problems; ")


def _drawn(
    name: str, level: int | None, count: int, language: Language, seed: int
) -> Iterator[tuple[Problem, Problem]]:
    """Problems of a family, each with another that has another answer."""
    family = FAMILIES[name]
    for chosen in family.levels if level is None else (level,):
        rng = random.Random(f"show {seed} {name} {chosen}")
        others = random.Random(f"others {seed} {name} {chosen}")
        for _ in range(count):
            problem = other = family.sample(rng, chosen, language)
            while family.verify(problem, other.answer):
                other = family.sample(others, chosen, language)
            yield problem, other


def _prompt(model: Path | None, style: PromptStyle) -> Prompt:
    """How a problem is put to the model."""
    if model is not None:
        tokenizer = Tokenizer.load(model)
        return lambda problem: tokenizer.decode(style.prompt(tokenizer, problem))
    if style.name != "zero":
        raise ConfigError(f"--style {style.name} is a matter of the model's template: name the model with --model DIR")
    return lambda problem: zero_document(problem.question, "")


class _Shown:
    """Prints, and counts the wrong answers that are paid."""

    def __init__(self, judge: Judge, prompt: Prompt, rewards: Sequence[str]) -> None:
        self._judge, self._prompt, self._rewards = judge, prompt, rewards
        self._paid: list[str] = []

    def show(self, problem: Problem, about: str, gold: str | None, wrong: Sequence[str]) -> None:
        """One problem."""
        print(f"[{problem.domain}, {about}]\n{_indented(self._prompt(problem))}")
        if gold is None:
            print("    no one gold answer is known; of wrong ones:")
        elif self._judge.verify(problem, gold):
            print(f"    answer: {gold}\n    the gold answer scores 1{self._own(problem, gold)}")
        else:
            raise GradingError(f"the gold answer {gold!r} of {about} scores 0: the task is broken")
        for answer in dict.fromkeys(wrong):
            right = self._judge.verify(problem, answer)
            if right:
                self._paid.append(f"{answer!r} ({about})")
            print(f"    {answer!r} scores {int(right)}{self._own(problem, answer)}")
        print()

    def _own(self, problem: Problem, answer: str) -> str:
        scores = ((short_name(one), own_reward(one, problem, answer)) for one in self._rewards)
        return "".join(f", {name}: {'no verdict' if score is None else f'{score:g}'}" for name, score in scores)

    def sum_up(self, before: str = "") -> None:
        """The last line.

        Raises:
            GradingError: a wrong answer was paid.
        """
        print(f"{before}wrong answers that scored 1 above: {len(self._paid)}")
        if self._paid:
            raise GradingError(
                f"{len(self._paid)} wrong answers score 1, such as {self._paid[0]}: do not train on this"
            )


def _indented(text: str) -> str:
    return "\n".join(f"    | {line}" for line in text.split("\n"))
