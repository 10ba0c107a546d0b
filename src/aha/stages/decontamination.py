"""Decontamination: what shares a run of words with a held-out problem is not trained on, and is reported."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from aha.configuration import Config, StageName
from aha.data.conversations import Conversation, read_conversations, write_conversations
from aha.data.decontamination import NGrams
from aha.errors import ConfigError
from aha.files import write_json
from aha.stages.problems import AUDIT
from aha.stages.sft import EXAMPLES
from aha.tasks.stored import HELD_OUT, TRAIN, stored_problems, write_problems
from aha.training.stage import StageContext, StageResult
from aha.types import Problem

REPORTED = 1000
"""Pairs in the report; all of them are counted."""


class DecontaminationConfig(Config):
    """Which training problems or conversations are too much like a problem that is measured by."""

    source: StageName = Field(
        description="the stage whose problems or conversations are looked at; its held-out ones count"
    )
    against: tuple[StageName, ...] = Field((), description="further stages whose held-out problems count")
    words: int = Field(
        13,
        ge=0,
        le=100,
        description="words in a row that are shared by no accident; 0: only what is the same as a whole",
    )


class Decontamination:
    """The stage: drops what shares that many words in a row with a held-out problem or its solution, and says what.

    Questions and solutions are looked at, and all turns of conversations. Wording that several held-out problems share,
    such as a puzzle's rules, counts for nothing.
    """

    kind: ClassVar[str] = "decontamination"

    def run(self, context: StageContext[DecontaminationConfig]) -> StageResult:
        """Filters; the held-out problems stay as they are."""
        config = context.config
        report: dict[str, Any] = {}
        if context.distributed.is_first:
            report = _Filter(context).write()
            write_json(context.folder / AUDIT, report)
            context.progress.notify(
                f"{context.name}: {report['dropped']} of {report['in']} {report['what']} {_overlap(config.words)}, "
                "and are left out"
            )
        return StageResult(context.distributed.broadcast_object(report if context.distributed.is_first else None))


class _Filter:
    """Streams a stage's files through."""

    def __init__(self, context: StageContext[DecontaminationConfig]) -> None:
        config = context.config
        self._context, self._config = context, config
        self._source = context.parent_folder(config.source)
        self._grams = NGrams(config.words)
        for stage in (config.source, *config.against):
            for problem in _problems(context.parent_folder(stage) / HELD_OUT):
                question, solution = _texts(problem)
                self._grams.add(question, _name(problem))
                self._grams.add(solution, _name(problem), whole=False)  # short ones are alike by accident
        self._dropped: set[str] = set()
        self._pairs: list[dict[str, str]] = []
        self._counts = {"in": 0, "dropped": 0}

    def write(self) -> dict[str, Any]:
        """Writes what is left; returns the report.

        Raises:
            ConfigError: nothing is.
        """
        folder, problems = self._context.folder, (self._source / TRAIN).is_file()
        write_problems(folder / TRAIN, self._kept_problems())
        write_problems(folder / HELD_OUT, _problems(self._source / HELD_OUT))
        write_conversations(folder / EXAMPLES, self._kept_conversations(by_themselves=not problems))
        counts, what = self._counts, "training problems" if problems else "conversations"
        if counts["in"] and counts["in"] == counts["dropped"]:
            first = self._pairs[0]
            raise ConfigError(
                f"{self._context.name}: all {counts['in']} {what} {_overlap(self._config.words)}; {first['problem']}, "
                f"for one, has {first['shared']!r} in common with {first['like']}. Where that is no more than your "
                "data's wording, raise decontamination_words, or set it to 0"
            )
        kept = counts["in"] - counts["dropped"]
        return {**counts, "kept": kept, "what": what, "words": self._config.words, "pairs": self._pairs}

    def _kept_problems(self) -> Iterator[Problem]:
        for problem in _problems(self._source / TRAIN):
            if not self._is_like_a_held_out_one(_texts(problem), _name(problem)):
                yield problem
            else:
                self._dropped.add(problem.key)

    def _kept_conversations(self, by_themselves: bool) -> Iterator[Conversation]:
        for number, one in enumerate(read_conversations(self._source / EXAMPLES), start=1):
            if by_themselves:
                texts = [text for m in one.messages for text in (m.content, m.reasoning_content or "")]
                if self._is_like_a_held_out_one(texts, f"conversation {number}"):
                    continue
            elif one.about.get("problem") in self._dropped:
                continue
            yield one

    def _is_like_a_held_out_one(self, texts: Sequence[str], name: str) -> bool:
        self._counts["in"] += 1
        found = next((like for text in texts if (like := self._grams.find(text)) is not None), None)
        if found is None:
            return False
        self._counts["dropped"] += 1
        if len(self._pairs) < REPORTED:
            self._pairs.append({"problem": name, "like": found[0], "shared": found[1]})
        return True


def _overlap(words: int) -> str:
    same = "are the same as a held-out problem"
    return f"share {words} words in a row with a held-out problem, or {same}" if words else same


def _problems(path: Path) -> Iterator[Problem]:
    return stored_problems(path) if path.is_file() else iter(())


def _name(problem: Problem) -> str:
    return str(problem.facts.get("_id", problem.key))


def _texts(problem: Problem) -> tuple[str, str]:
    """The question as the data have it, without the instruction that all questions share, and the worked solution."""
    question = problem.facts.get("question") or problem.facts.get("prompt") or problem.question
    return str(question), str(problem.facts.get("_solution") or "")
