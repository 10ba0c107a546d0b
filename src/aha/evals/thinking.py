"""Does thinking grow, help, and reach further? What a run's models think, as they do and when they must go on.

Everything is measured on the same held-out problems for every model: the length of well-formed thinking, accuracy by
level, what a forced "Wait" changes (once, twice), and whether rejected attempts matter: a right answer's thinking is
cut just before its first rejection, and the answer is forced there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from pydantic import Field

from aha.configuration import Config, StageName
from aha.evals.metrics import bootstrap_interval, ends, paired_interval
from aha.evals.runner import grade_sample
from aha.evals.scaling_stage import ScalingSuite
from aha.evals.stage import LONGEST_PROMPT, SamplingStage
from aha.files import write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.protocols import Judge
from aha.runs import read_jsonl
from aha.tasks.datasets import judge_of
from aha.tasks.families import FAMILIES, SEARCHES, FamilyName, Level, held_out_suite
from aha.test_time.budget_forcing import end_thinking_at, think_again
from aha.test_time.candidates import Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tags import find_tag
from aha.text.tokenizer import END_THINK, Tokenizer
from aha.training.stage import StageContext, StageResult
from aha.types import Completion, FinishReason, Problem, SamplingParams

RESULTS = "thinking.json"


class ThinkingSettings(Config):
    """Which problems are asked, and how."""

    families: tuple[FamilyName, ...] = Field(tuple(FAMILIES), min_length=1, description="families that are asked")
    levels: tuple[Level, ...] = Field(
        tuple(range(1, 9)), min_length=1, description="levels that reinforcement learning trains"
    )
    one_above: Level = Field(9, description="one level above the highest of these")
    half_above: Level = Field(12, description="one and a half times the highest of these")
    problems_per_level: int = Field(14, gt=0, description="held-out problems per family and level")
    samples: int = Field(4, gt=0, description="samples per problem")
    passes: int = Field(2, ge=0, description='times that the end of thinking is replaced by "Wait", at most')
    temperature: float = Field(1.0, gt=0, description="of sampling")
    room: int = Field(900, gt=0, description="limit of a completion with all that is put into it, in tokens")
    suite_seed: int = Field(0, description="of the choice of problems: the same for all seeds of a recipe")

    def problems(self) -> list[Problem]:
        """The held-out problems that are asked."""
        levels = sorted({*self.levels, self.one_above, self.half_above})
        return list(held_out_suite(self.families, levels, self.problems_per_level, self.suite_seed))


class ThinkingConfig(ThinkingSettings):
    """Models of a run; the first is what the others are compared with."""

    models: tuple[ScalingSuite, ...] = Field((), description="models and how each is asked, the base first")
    rl: StageName = Field("r1-zero", description="the stage of reinforcement learning whose own problems are compared")

    def parents(self) -> tuple[str, ...]:
        """The stages that this one reads."""
        return tuple(dict.fromkeys((*(suite.stage for suite in self.models), self.rl)))


@dataclass(frozen=True, slots=True)
class Thought:
    """One answer, with what was thought."""

    key: str
    family: str
    level: int
    index: int
    passes: int
    """How often its thinking had to go on."""
    correct: bool
    well_formed: bool
    thinking_tokens: int
    rejects: bool
    """Its thinking holds an attempt that it rejected."""
    truncated: bool
    completion: str


def thoughts(respondent: Respondent, problems: Sequence[Problem], settings: ThinkingSettings) -> list[Thought]:
    """Asks all problems, lets the thinking go on, and reads everything."""
    drawn = respondent.samples(problems, settings.samples)
    rows = _read(respondent, problems, drawn, 0)
    for turn in range(settings.passes):
        drawn = think_again(respondent, problems, drawn, turn)
        rows += _read(respondent, problems, drawn, turn + 1)
    return rows


def _read(
    respondent: Respondent, problems: Sequence[Problem], drawn: Sequence[Sequence[Completion]], passes: int
) -> list[Thought]:
    return [
        _thought(respondent, problem, index, completion, passes)
        for problem, completions in zip(problems, drawn, strict=True)
        for index, completion in enumerate(completions)
    ]


def _thought(respondent: Respondent, problem: Problem, index: int, completion: Completion, passes: int) -> Thought:
    ended = completion.finish_reason is FinishReason.STOP
    text = respondent.tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids)
    graded = grade_sample(problem, index, text, len(completion.token_ids), not ended, respondent.style)
    place = find_tag(respondent.tokenizer, completion.token_ids, END_THINK)
    opening = 0 if respondent.style.prefilled else 1
    return Thought(
        problem.key,
        problem.family,
        problem.level,
        index,
        passes,
        graded.correct,
        graded.well_formed,
        max(0, len(place.before) - opening) if place else len(completion.token_ids),
        graded.rejected > 0,
        not ended,
        text,
    )


def repairs(
    respondent: Respondent, problems: Sequence[Problem], rows: Sequence[Thought], families: Iterable[str]
) -> list[tuple[str, bool]]:
    """Right answers that hold a rejection, their thinking cut just before the first: (problem's key, still right)."""
    known = {problem.key: problem for problem in problems}
    chosen, cut = [], []
    for row in rows:
        if row.passes or not row.correct or not row.rejects or row.family not in set(families):
            continue
        problem = known[row.key]
        before = _before_rejection(judge_of(problem.family), problem, row.completion)
        if before is None:
            continue
        ids = respondent.tokenizer.encode_markup(before)
        chosen.append(problem)
        cut.append([Completion(tuple(ids), tuple([0.0] * len(ids)), FinishReason.LENGTH)])
    answered = []
    for problem, own in zip(chosen, cut, strict=True):
        budget = max(1, len(own[0].token_ids))
        ((candidate,),) = end_thinking_at(respondent, [problem], [own], budget)
        answered.append((problem.key, judge_of(problem.family).verify(problem, candidate.answer)))
    return answered


def _before_rejection(judge: Judge, problem: Problem, completion: str) -> str | None:
    """A completion up to the words that reject its first attempt."""
    head, found, _ = completion.partition(END_THINK)
    opening = len(head) - len(head.split(">", 1)[-1]) if head.startswith("<") else 0
    lines, at = head[opening:].splitlines(keepends=True), opening
    rejections = {step.line: step for step in judge.check_steps(problem, head[opening:]) if step.accepts is False}
    for number, line in enumerate(lines):
        if number in rejections:
            words = rejections[number].text
            return head[: at + line.rindex(words.split()[-1])] if found else None
        at += len(line)
    return None


def by_level(rows: Sequence[Thought]) -> dict[str, Any]:
    """Accuracy with its interval, form, and thinking of well-formed answers, by level."""
    found = {}
    for level in sorted({row.level for row in rows}):
        own = [row for row in rows if row.level == level]
        formed = [row.thinking_tokens for row in own if row.well_formed]
        found[str(level)] = {
            "accuracy": asdict(bootstrap_interval(_by_problem(own))),
            "well_formed": len(formed) / len(own),
            "thinking_tokens": _mean(formed),
            "answers": len(own),
        }
    return found


def _by_problem(rows: Sequence[Thought]) -> list[float]:
    """Accuracy of each problem, problems in a fixed order."""
    groups: dict[str, list[bool]] = {}
    for row in sorted(rows, key=lambda row: (row.family, row.level, row.key, row.index)):
        groups.setdefault(row.key, []).append(row.correct)
    return [sum(own) / len(own) for own in groups.values()]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _ratio(after: float | None, before: float | None) -> float | None:
    return after / before if after is not None and before else None


def about_model(rows: Sequence[Thought], settings: ThinkingSettings) -> dict[str, Any]:
    """What one model's rows say: by level, at the trained levels, beyond them, and what forced passes change."""
    natural = [row for row in rows if not row.passes]

    def at(levels: Iterable[int], passes: int = 0) -> list[Thought]:
        wanted = set(levels)
        return [row for row in rows if row.level in wanted and row.passes == passes]

    def gained(levels: Iterable[int]) -> dict[str, Any]:
        before = at(levels)
        return {
            str(turn): asdict(paired_interval(_by_problem(at(levels, turn)), _by_problem(before)))
            for turn in range(1, settings.passes + 1)
        }

    highest = at([max(settings.levels)])
    top = _mean([row.correct for row in highest])
    beyond = [_mean([row.correct for row in at([level])]) for level in (settings.one_above, settings.half_above)]
    own = at(settings.levels)
    levels = by_level(natural)
    for level, cell in levels.items():
        cell["forced"] = gained([int(level)])
        cell["think_longer"] = think_longer([row for row in rows if row.level == int(level)])
    return {
        "by_level": levels,
        "by_family": {
            family: by_level([row for row in natural if row.family == family])
            for family in sorted({row.family for row in natural})
        },
        "trained_levels": {
            "accuracy": asdict(bootstrap_interval(_by_problem(own))),
            "thinking_tokens": _mean([row.thinking_tokens for row in own if row.well_formed]),
            "well_formed": _mean([row.well_formed for row in own]),
        },
        "beyond_training": [_ratio(one, top) for one in beyond],
        "forced": {"trained_levels": gained(settings.levels), "one_level_above": gained([settings.one_above])},
        "think_longer": think_longer(rows),
    }


def think_longer(rows: Sequence[Thought]) -> dict[str, float | None]:
    """What one more pass does to answers: the share of right ones that it spoils, of wrong ones that it mends."""
    first = {(row.key, row.index): row.correct for row in rows if not row.passes}
    pairs = [(first[row.key, row.index], row.correct) for row in rows if row.passes == 1]
    return {
        "right_to_wrong": _mean([not after for before, after in pairs if before]),
        "wrong_to_right": _mean([after for before, after in pairs if not before]),
    }


def growth_on_own_problems(metrics: Iterable[Mapping[str, Any]]) -> float | None:
    """How many times as long thinking is in the last steps of reinforcement learning as in the first."""
    found = ends([row[name] for row in metrics if row.get(name := "completions/mean_thinking_tokens") is not None])
    return _ratio(found[1], found[0]) if found else None


class Thinking(SamplingStage):
    """The stage: reads its parents' models, writes `rollouts.jsonl` and `thinking.json`."""

    kind: ClassVar[str] = "thinking"

    def run(self, context: StageContext[ThinkingConfig]) -> StageResult:
        """Asks model after model; what is finished is not repeated after an interruption."""
        config = context.config
        saved = context.checkpointer.load()
        found: dict[str, Any] = saved.state["found"] if saved else {}
        start = saved.step if saved else 0
        problems = config.problems()
        with context.progress.task(context.name, len(config.models), start) as task:
            for done, suite in enumerate(config.models[start:], start + 1):
                respondent = self._respondent(context, suite)
                own = problems[context.distributed.rank :: context.distributed.world_size]
                mine = thoughts(respondent, own, config)
                highest = max(config.levels)
                cut = repairs(respondent, own, [row for row in mine if row.level == highest], SEARCHES)
                rows = [Thought(**row) for part in self._gather(context, [asdict(row) for row in mine]) for row in part]
                rows.sort(key=lambda row: (row.family, row.level, row.key, row.index, row.passes))
                for row in rows:
                    context.rollouts.write({"model": suite.stage, "style": suite.style, **asdict(row)})
                about = about_model(rows, config)
                kept = [right for part in self._gather(context, cut) for _, right in part]
                about |= _repairs(rows, highest, kept)
                found[suite.stage] = about
                words = f"{(about['trained_levels']['accuracy']['mean']):.1%} right"
                task.update(done, {suite.stage: words})
                if context.checkpointer.due():
                    context.checkpointer.save(done, {}, {"found": found})
        if context.distributed.is_first:
            write_json(context.folder / RESULTS, found)
        return StageResult(summary={"thinking": self._summary(context, found)})

    @staticmethod
    def _gather(context: StageContext[ThinkingConfig], rows: list[Any]) -> list[list[Any]]:
        return context.distributed.all_gather_object(rows)

    def _respondent(self, context: StageContext[ThinkingConfig], suite: ScalingSuite) -> Respondent:
        config = context.config
        folder = context.parent_model_folder(suite.stage)
        model = load_pretrained(folder, **context.placement)
        return Respondent(
            self._make_generator(model, max_rows=256, max_context=LONGEST_PROMPT + config.room),
            Tokenizer.load(folder),
            PromptStyle.named(suite.style),
            SamplingParams(config.temperature, 1.0, config.room),
            config.room,
            context.derive_seed(suite.stage),
        )

    @staticmethod
    def _summary(context: StageContext[ThinkingConfig], found: Mapping[str, Any]) -> dict[str, Any]:
        """What `summary.json` says of the trained model beside its base."""
        config = context.config
        base, trained = found[config.models[0].stage], found[config.rl]
        before, after = (one["trained_levels"]["thinking_tokens"] for one in (base, trained))
        metrics = read_jsonl(context.parent_folder(config.rl) / "metrics.jsonl")
        return {
            "growth": _ratio(after, before),
            "growth_on_own_problems": growth_on_own_problems(metrics),
            "beyond_training": trained["beyond_training"],
            "forced": {
                where: {turn: 100 * one["mean"] for turn, one in gained.items()}
                for where, gained in trained["forced"].items()
            },
            "repair_share": trained["repair_share"],
            "repair_worth": trained["repair_worth"],
        }


def _repairs(rows: Sequence[Thought], level: int, kept: Sequence[bool]) -> dict[str, Any]:
    """Of right answers in the families that search, at a level: the share with a rejection, and what those lose.

    `repair_worth` is in points: 100 less what is still right where the thinking is cut before the rejection.
    """
    right = [row for row in rows if row.correct and not row.passes and row.level == level and row.family in SEARCHES]
    share = _mean([row.rejects for row in right])
    still = _mean(kept)
    return {"repair_share": share, "repair_worth": None if still is None else 100 * (1 - still)}
