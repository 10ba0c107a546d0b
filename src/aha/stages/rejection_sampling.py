"""Rejection sampling (R1 2.3.1 and 2.3.3): a model's own right and readable solutions, rewritten for readers.

The cold start samples R1-Zero so, the large fine-tuning set the model of the first RL stage. Of several samples a
prompt only right ones are kept, then filters drop what reads badly; every drop is counted by rule, family and level in
`audit.json`. What is kept gets one language and a summary: V3 writes the summary where it can (its sentence must name
the same answer in the question's language), a rule does where it cannot; the thinking's language is mended by rule.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field

from aha.configuration import Config, StageName
from aha.data.conversations import Conversation, write_conversations
from aha.errors import ConfigError
from aha.evals.readability import longest_paragraph, repetition_rate
from aha.evals.stage import LONGEST_PROMPT, SamplingStage
from aha.files import write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.rewards.rules import accuracy, language_consistency
from aha.stages.assistant import Assistant
from aha.stages.sampling import Row, sample_in_batches
from aha.stages.sft import EXAMPLES
from aha.tasks.datasets import need_judges
from aha.tasks.families import FAMILIES, Level, ReasoningName, draw, get_family
from aha.tasks.rewriting import one_language, summary
from aha.tasks.stored import StoredProblems
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle, StrictStyleName
from aha.text.thinking import Parsed, final_answer
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext, StageResult
from aha.types import Language, Problem, SamplingParams

AUDIT = "audit.json"
RULES = ("format", "wrong", "language", "repetition", "long paragraph", "judge", "duplicate", "enough of this problem")
"""Why a sample is dropped, in the order in which it is looked at."""
FEWEST_JUDGED = 20
"""Answers on which an agreement must be measured to mean anything."""


class FilterConfig(Config):
    """What counts as readable."""

    min_language: float = Field(0.0, ge=0, le=1, description="least language consistency of the thinking; 0: any")
    max_repetition: float = Field(0.2, ge=0, le=1, description="largest share of repeated lines")
    max_paragraph: int = Field(160, gt=0, description="longest line of thinking, in characters")
    per_problem: int = Field(2, gt=0, description="at most so many solutions of one problem")


class RejectionSamplingConfig(Config):
    """Where solutions come from, and which are kept."""

    style: StrictStyleName = Field("chat", description="prompt style: R1-Zero's template, or R1's chat format")
    prompts: int = Field(1500, gt=0, description="training problems that are asked")
    samples: int = Field(4, gt=0, description="samples per problem")
    temperature: float = Field(1.0, gt=0, description="of sampling (R1: 1)")
    max_completion_tokens: int = Field(256, gt=0, description="limit in tokens")
    problems: StageName = Field("", description="the stage whose training problems are asked, instead of the families'")
    rewrite: bool = Field(True, description="mend language and summary for readers; off keeps the model's own words")
    max_prompt_tokens: int = Field(LONGEST_PROMPT, gt=0, description="problems with longer prompts are passed over")
    engine_rows: int = Field(256, gt=0, description="samples decoded at once; each needs a cache of its longest length")
    families: tuple[ReasoningName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that are asked")
    levels: tuple[Level, ...] = Field((1, 2, 3), min_length=1, description="levels that are asked")
    chinese: float = Field(0.3, ge=0, le=1, description="share of problems in Chinese")
    filters: FilterConfig = Field(default_factory=FilterConfig, description="what counts as readable")
    assistant: StageName = Field("", description="the stage whose model sums up and judges (V3); empty: rules alone")
    judge_samples: int = Field(200, ge=0, description="samples by which V3's judgement is measured against the rules")
    judge_floor: float = Field(0.95, ge=0, le=1, description="agreement from which V3 has a say in what is kept")
    prompts_at_once: int = Field(128, gt=0, description="problems between two checkpoints")


class RejectionSampling(SamplingStage):
    """The stage: writes `examples.jsonl` and `audit.json`."""

    kind: ClassVar[str] = "rejection_sampling"

    def run(self, context: StageContext[RejectionSamplingConfig]) -> StageResult:
        """Samples batch after batch; what is finished is not repeated after an interruption."""
        config = context.config
        rows = self._sample(context)
        assistant = self._assistant(context) if config.assistant else None
        judge = None
        if assistant is not None:
            judge = self._judge(context, rows, assistant)
            if judge["has_a_say"]:
                judge_readable(rows, config.filters, lambda items: context.distributed.spread(items, assistant.judge))
        kept, audit = select(rows, config.filters, rewritten=config.rewrite)
        if judge is not None:
            audit["judge"] = judge
        if config.problems and not kept:
            raise ConfigError(
                f"{context.name}: none of {len(rows)} samples is right and readable ({_drops(audit)}): ask more "
                "problems, let the model think longer (max_completion_tokens), or loosen the filters"
            )
        if config.rewrite:
            conversations = self._rewrite(context, kept, assistant, audit)
        else:
            conversations = [_conversation(context.name, row, row["summary"], row["thinking"]) for row in kept]
        if context.distributed.is_first:
            write_conversations(context.folder / EXAMPLES, conversations)
            write_json(context.folder / AUDIT, audit)
        context.distributed.barrier()
        return StageResult({"sampled": len(rows), "examples": len(conversations)})

    def _sample(self, context: StageContext[RejectionSamplingConfig]) -> list[Row]:
        """All samples of all processes, graded, as JSON rows in a fixed order."""
        config = context.config
        parent = context.parent_model_folder()
        model, tokenizer = load_pretrained(parent, **context.placement), Tokenizer.load(parent)
        longest = config.max_prompt_tokens + config.max_completion_tokens
        generator = self._make_generator(model, max_rows=config.engine_rows, max_context=longest)
        problems = self._problems(context, tokenizer)
        if len(problems) < config.prompts:
            context.progress.notify(f"{context.name}: {len(problems)} different problems ({config.prompts} asked for)")

        sampling = SamplingParams(
            config.temperature, max_completion_tokens=config.max_completion_tokens, n=config.samples
        )
        asker = Asker(generator, tokenizer, PromptStyle.named(config.style))

        def rows_of(some: Sequence[Problem], seeds: Sequence[int]) -> list[list[Row]]:
            return [
                [
                    to_row(problem, asker.style.parse(one.text, one.truncated), len(one.completion.token_ids))
                    for one in group
                ]
                for problem, group in zip(some, asker.ask(some, sampling, seeds), strict=True)
            ]

        def note(rows: Sequence[Row]) -> dict[str, str]:
            return {"right": f"{sum(row['right'] for row in rows) / len(rows):.1%}"}

        groups = sample_in_batches(context, problems, rows_of, config.prompts_at_once, note)
        return [row for group in groups for row in group]

    def _problems(self, context: StageContext[RejectionSamplingConfig], tokenizer: Tokenizer) -> list[Problem]:
        """What is asked: the families' problems, or the first of another stage's in a shuffled order."""
        config = context.config
        seed = context.derive_seed("problems")
        if not config.problems:
            return training_problems(config, seed)

        style = PromptStyle.named(config.style)

        def fits(problem: Problem) -> bool:
            return len(style.prompt(tokenizer, problem)) <= config.max_prompt_tokens

        stored = StoredProblems(context.parent_folder(config.problems), seed, fits)
        need_judges(family for family, _ in stored.cells)
        return list(itertools.islice(stored.once(), config.prompts))

    def _assistant(self, context: StageContext[RejectionSamplingConfig]) -> Assistant:
        config = context.config
        folder = context.parent_model_folder(config.assistant)
        model = load_pretrained(folder, **context.placement)
        generator = self._make_generator(model, max_rows=256, max_context=2 * LONGEST_PROMPT)
        return Assistant(generator, Tokenizer.load(folder))

    def _judge(
        self, context: StageContext[RejectionSamplingConfig], rows: list[Row], assistant: Assistant
    ) -> dict[str, Any]:
        """How often V3, given the truth, agrees with the rules on sampled answers."""
        config = context.config
        named = [row for row in rows if row["answer"]]
        chosen = random.Random(context.derive_seed("judge")).sample(named, min(config.judge_samples, len(named)))
        verdicts = context.distributed.spread([(_problem(row), row["answer"]) for row in chosen], assistant.judge)
        agreement = sum(v == row["right"] for v, row in zip(verdicts, chosen, strict=True)) / max(1, len(chosen))
        say = len(chosen) >= FEWEST_JUDGED and agreement >= config.judge_floor
        context.progress.notify(
            f"{context.name}: V3, given the truth, agrees with the rules on {agreement:.1%} of {len(chosen)} answers: "
            f"{'it has a say' if say else 'the rules decide alone'}"
        )
        return {"samples": len(chosen), "agreement": agreement, "floor": config.judge_floor, "has_a_say": say}

    def _rewrite(
        self,
        context: StageContext[RejectionSamplingConfig],
        kept: list[Row],
        assistant: Assistant | None,
        audit: dict[str, Any],
    ) -> list[Conversation]:
        """The reader's form of what is kept: thinking in one language, and a summary with the answer."""
        items = [(_problem(row), row["answer"]) for row in kept]
        sentences = context.distributed.spread(items, assistant.sum_up) if assistant and items else [""] * len(items)
        conversations, by_assistant = [], 0
        for row, (problem, answer), sentence in zip(kept, items, sentences, strict=True):
            usable = is_summary(sentence, problem, answer)
            by_assistant += usable
            shown = sentence if usable else summary(answer, problem.language)
            thinking = one_language(row["thinking"], problem.language)
            conversations.append(_conversation(context.name, row, shown, thinking))
        audit["summaries"] = {"by V3": by_assistant, "by rule": len(kept) - by_assistant}
        audit["thinking rewritten by"] = "rule"
        return conversations


def training_problems(config: RejectionSamplingConfig, seed: int) -> list[Problem]:
    """Different training problems, families and levels in equal shares."""
    rng = random.Random(seed)
    cells = [(family, level) for family in config.families for level in config.levels]
    problems: list[Problem] = []
    seen: set[str] = set()
    for number in range(config.prompts):
        family, level = cells[number % len(cells)]
        for _ in range(20):
            language: Language = "zh" if rng.random() < config.chinese else "en"
            problem = draw(rng, get_family(family), level, language, held_out=False)
            if problem.key not in seen:
                seen.add(problem.key)
                problems.append(problem)
                break
    return problems


def to_row(problem: Problem, parsed: Parsed, tokens: int) -> Row:
    """A sample as JSON: the problem, what was thought and answered, and whether that is right."""
    right = parsed.well_formed and bool(accuracy(problem, parsed))
    return {
        "problem": asdict(problem),
        "well_formed": parsed.well_formed,
        "right": right,
        "thinking": parsed.thinking,
        "summary": parsed.summary,
        "answer": parsed.answer,
        "tokens": tokens,
    }


def _conversation(source: str, row: Row, shown: str, thinking: str) -> Conversation:
    problem = _problem(row)
    about = {"source": source, "family": problem.family, "level": problem.level, "key": problem.key}
    return Conversation.of(problem.question, shown, thinking, **about)


def _drops(audit: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {count}" for name, count in audit["total"].items() if count)


def _problem(row: Row) -> Problem:
    return Problem(**row["problem"])


def is_summary(sentence: str, problem: Problem, answer: str) -> bool:
    """Whether a sentence names this answer, in the question's language, and little else."""
    return (
        final_answer(sentence) == answer
        and language_consistency(sentence, problem.language) == 1.0
        and len(sentence) <= len(answer) + 60
    )


def judge_readable(
    rows: Sequence[Row],
    filters: FilterConfig,
    judge: Callable[[Sequence[tuple[Problem, str]]], Sequence[bool]],
) -> None:
    """Sets `judged_right` of every row that breaks no rule of a single sample; each answer to a question is asked once.

    Duplicates are judged as well: which of them is kept is decided afterwards.
    """
    readable = [row for row in rows if _reason(row, _problem(row), filters) is None]
    items = {(row["problem"]["question"], row["answer"]): (_problem(row), row["answer"]) for row in readable}
    verdicts = dict(zip(items, judge(list(items.values())), strict=True))
    for row in readable:
        row["judged_right"] = verdicts[row["problem"]["question"], row["answer"]]


def select(rows: Sequence[Row], filters: FilterConfig, rewritten: bool = True) -> tuple[list[Row], dict[str, Any]]:
    """Applies the rules in order.

    Args:
        rows: samples, those of one problem next to each other or not; judged ones have `judged_right`.
        filters: what counts as readable.
        rewritten: duplicates are those that are the same once the language is mended.

    Returns:
        What is kept, and the audit: how many came in, were dropped by which rule, and kept; in all and by family and
        level.
    """
    kept: list[Row] = []
    fates: Counter[tuple[str, str]] = Counter()
    seen: set[tuple[str, str]] = set()
    per_problem: Counter[str] = Counter()
    for row in rows:
        problem = _problem(row)
        thinking = one_language(row["thinking"], problem.language) if rewritten else row["thinking"]
        text = (problem.key, thinking)
        reason = _reason(row, problem, filters)
        if reason is None and text in seen:
            reason = "duplicate"
        if reason is None and per_problem[problem.key] >= filters.per_problem:
            reason = "enough of this problem"
        if reason is None:
            seen.add(text)
            per_problem[problem.key] += 1
            kept.append(row)
        fates[f"{problem.family} {problem.level}", reason or "kept"] += 1
    cells = sorted({cell for cell, _ in fates})
    columns = (*RULES, "kept")
    table = {cell: {name: fates[cell, name] for name in columns} for cell in cells}
    total = {name: sum(row[name] for row in table.values()) for name in columns}
    return kept, {"in": len(rows), "total": total, "by_cell": table}


def _reason(row: Row, problem: Problem, filters: FilterConfig) -> str | None:
    """The first rule of a single sample that it breaks."""
    checks = {
        "format": row["well_formed"],
        "wrong": row["right"],
        "language": language_consistency(row["thinking"], problem.language) >= filters.min_language,
        "repetition": repetition_rate(row["thinking"]) <= filters.max_repetition,
        "long paragraph": longest_paragraph(row["thinking"]) <= filters.max_paragraph,
        "judge": row.get("judged_right", True),
    }
    return next((name for name, fine in checks.items() if not fine), None)
