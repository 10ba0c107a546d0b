"""Decontamination: training problems that share a run of words with a held-out one are left out, and reported."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import Field

from aha.configuration import Config
from aha.data.conversations import read_conversations, write_conversations
from aha.data.decontamination import NGrams
from aha.files import write_json
from aha.stages.problems import AUDIT
from aha.stages.sft import EXAMPLES
from aha.tasks.stored import HELD_OUT, TRAIN, read_stored, write_problems
from aha.training.stage import StageContext, StageResult
from aha.types import Problem


class DecontaminationConfig(Config):
    """Which training problems are too much like one that is measured by."""

    problems: str = Field(description="the stage whose training problems are looked at, and whose held-out ones count")
    against: tuple[str, ...] = Field((), description="further stages whose held-out problems count")
    words: int = Field(13, ge=3, le=100, description="words in a row that are shared by no accident")


class Decontamination:
    """The stage: drops training problems that share that many words in a row with a held-out one, and says which."""

    kind: ClassVar[str] = "decontamination"

    def run(self, context: StageContext) -> StageResult:
        """Filters; the held-out problems stay as they are."""
        config = context.config
        assert isinstance(config, DecontaminationConfig)
        report: dict[str, Any] = {}
        if context.distributed.is_first:
            report = self._filter(context, config)
            write_json(context.folder / AUDIT, report)
            context.progress.say(
                f"{context.name}: {report['dropped']} of {report['in']} training problems share {config.words} words "
                "in a row with a held-out one, and are left out"
            )
        return StageResult(context.distributed.broadcast_object(report if context.distributed.is_first else None))

    @staticmethod
    def _filter(context: StageContext, config: DecontaminationConfig) -> dict[str, Any]:
        source = context.parent_folder(config.problems)
        grams = NGrams(config.words)
        for stage in (config.problems, *config.against):
            for problem in read_stored(context.parent_folder(stage) / HELD_OUT):
                grams.add(_text(problem), problem.facts.get("_id", problem.key))
        training = read_stored(source / TRAIN)
        dropped: dict[str, dict[str, str]] = {}
        for problem in training:
            found = grams.find(_text(problem))
            if found is not None:
                dropped[problem.key] = {
                    "problem": str(problem.facts.get("_id", problem.key)),
                    "like": found[0],
                    "shared": found[1],
                }
        write_problems(context.folder / TRAIN, (p for p in training if p.key not in dropped))
        write_problems(context.folder / HELD_OUT, read_stored(source / HELD_OUT))
        kept = [c for c in read_conversations(source / EXAMPLES) if c.about.get("problem") not in dropped]
        write_conversations(context.folder / EXAMPLES, kept)
        return {
            "in": len(training),
            "dropped": len(dropped),
            "kept": len(training) - len(dropped),
            "words": config.words,
            "pairs": list(dropped.values()),
        }


def _text(problem: Problem) -> str:
    """The question as the data have it, without the instruction that all questions share."""
    return str(problem.facts.get("question") or problem.facts.get("prompt") or problem.question)
