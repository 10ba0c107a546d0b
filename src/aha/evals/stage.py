"""Held-out evaluation as a stage: every model of a run in every prompt style, all completions kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, ClassVar, Protocol

from pydantic import Field

from aha.configuration import Config, StageName
from aha.evals.experts import expert_report
from aha.evals.runner import Sample, evaluate, summarize, summarize_general
from aha.files import write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.models.language_model import LanguageModel
from aha.protocols import Generator
from aha.tasks.families import FAMILIES, GENERAL, FamilyName, GeneralName, Level, held_out_suite
from aha.tasks.stored import HELD_OUT, read_stored
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle, StyleName
from aha.text.tokenizer import Tokenizer
from aha.training.distributed import Distributed
from aha.training.stage import StageContext, StageResult
from aha.types import Problem, SamplingParams

LONGEST_PROMPT = 256
"""Room for a prompt of the laptop world, in tokens, beside the completion."""


class Suite(Config):
    """Which model is asked, and in which prompt styles."""

    stage: StageName = Field(description="the stage whose model is evaluated")
    styles: tuple[StyleName, ...] = Field(("zero",), min_length=1, description="prompt styles")
    trained_levels_only: bool = Field(False, description="leave out the levels that are not trained")


class EvaluationSettings(Config):
    """Which held-out problems are asked, and how answers are sampled."""

    families: tuple[FamilyName, ...] = Field(tuple(FAMILIES), description="families that are asked")
    levels: tuple[Level, ...] = Field((1, 2, 3, 4, 5), min_length=1, description="levels that are asked")
    trained_levels: tuple[Level, ...] = Field((1, 2, 3), min_length=1, description="levels of the headline numbers")
    problems_per_level: int = Field(34, gt=0, description="held-out problems per family and level")
    samples: int = Field(8, gt=0, description="samples per problem")
    temperature: float = Field(1.0, ge=0, description="of sampling")
    top_p: float = Field(1.0, gt=0, le=1, description="nucleus")
    max_completion_tokens: int = Field(256, gt=0, description="limit in tokens")
    suite_seed: int = Field(0, description="of the choice of problems: the same for all seeds of a recipe")
    general: tuple[GeneralName, ...] = Field((), description="general families that are asked as well")
    general_per_level: int = Field(12, gt=0, description="held-out general problems per family and level")
    general_samples: int = Field(2, gt=0, description="samples per general problem")
    engine_rows: int = Field(256, gt=0, description="samples decoded at once; each needs a cache of its longest length")

    def sampling(self, samples: int) -> SamplingParams:
        """How answers are sampled."""
        return SamplingParams(self.temperature, self.top_p, self.max_completion_tokens, n=samples)


class EvaluationConfig(EvaluationSettings):
    """Held-out evaluation of a run's models."""

    suites: tuple[Suite, ...] = Field((), description="models and prompt styles")
    problems: tuple[StageName, ...] = Field((), description="stages whose held-out problems are asked as well")
    problems_limit: int = Field(0, ge=0, description="at most so many of each such stage; 0 asks all")


class MakeGenerator(Protocol):
    """Builds an engine around a model."""

    def __call__(self, model: LanguageModel, max_rows: int, max_context: int) -> Generator:
        """An engine for so many samples at once, of so many tokens each."""
        ...


class SamplingStage:
    """A stage that samples.

    Args:
        make_generator: the engine; recipes pass the built-in one.
    """

    def __init__(self, make_generator: MakeGenerator) -> None:
        self._make_generator = make_generator


class Evaluation(SamplingStage):
    """The stage: reads its parents' models, writes `samples.jsonl` and `results.json`."""

    kind: ClassVar[str] = "evaluation"

    def run(self, context: StageContext[EvaluationConfig]) -> StageResult:
        """Evaluates suite after suite; what is finished is not repeated after an interruption."""
        config = context.config
        saved = context.checkpointer.load()
        results: dict[str, dict[str, Any]] = saved.state["results"] if saved else {}
        experts: dict[str, Any] = saved.state["experts"] if saved else {}
        jobs = [(suite, style) for suite in config.suites for style in suite.styles]
        start = saved.step if saved else 0
        with context.progress.task(context.name, len(jobs), start) as task:
            for done, (suite, style) in enumerate(jobs[start:], start + 1):
                stage = suite.stage
                model, tokenizer = self._load(context, stage)
                levels = config.trained_levels if suite.trained_levels_only else config.levels
                asked = config.changed(levels=levels)
                samples = self._evaluate(context, asked, model, tokenizer, stage, PromptStyle.named(style))
                results.setdefault(stage, {})[style] = report(samples, config)
                for sample in samples:
                    context.rollouts.write({"model": stage, "style": style, **sample.to_json()})
                if style == "zero":
                    experts[stage] = expert_report(model, tokenizer, [s for s in samples if s.family not in GENERAL])
                accuracy = results[stage][style]["trained_levels"]["pass_at_1"]["mean"]
                found = "not asked at trained levels" if accuracy is None else f"{accuracy:.1%}"
                task.update(done, {stage: f"{style} {found}"})
                context.progress.notify(f"{stage}, asked as {style!r}: held-out accuracy {found}")
                if context.checkpointer.due():
                    context.checkpointer.save(done, {}, {"results": results, "experts": experts})
        if context.distributed.is_first:
            write_json(context.folder / "results.json", results)
            write_json(context.folder / "experts.json", experts)
        return StageResult(about={stage: headline(by_style) for stage, by_style in results.items()})

    @staticmethod
    def _load(context: StageContext[EvaluationConfig], stage: str) -> tuple[LanguageModel, Tokenizer]:
        folder = context.parent_model_folder(stage)
        return load_pretrained(folder, **context.placement), Tokenizer.load(folder)

    def _evaluate(
        self,
        context: StageContext[EvaluationConfig],
        config: EvaluationConfig,
        model: LanguageModel,
        tokenizer: Tokenizer,
        stage: str,
        style: PromptStyle,
    ) -> list[Sample]:
        """All processes' samples of one model, in a fixed order."""
        stored = [read_stored(context.parent_folder(one) / HELD_OUT) for one in config.problems]
        limit = config.problems_limit or None
        sets = question_sets(config, [problem for some in stored for problem in some[:limit]])
        asked = [problem for problems, _ in sets for problem in problems]
        context_tokens = style.longest_prompt(tokenizer, asked) + config.max_completion_tokens
        generator = self._make_generator(model, max_rows=config.engine_rows, max_context=context_tokens)
        asker, seed = Asker(generator, tokenizer, style), context.derive_seed(stage)
        samples: list[Sample] = []
        for problems, count in sets:
            measure = partial(evaluate, asker, sampling=config.sampling(count), seed=seed)
            samples += together(context.distributed, problems, measure)
        return in_order(samples)


def headline(by_style: dict[str, Any]) -> dict[str, Any]:
    """A stage's row of the summary: R1-Zero's template on the trained levels, accuracy by family on all of them."""
    first = by_style["zero"] if "zero" in by_style else next(iter(by_style.values()))
    row = {**first["trained_levels"], "by_family": first["all_levels"]["by_family"]}
    if "general" in first:
        row["general"] = first["general"]
    row["pass_at_1_by_style"] = {name: found["trained_levels"]["pass_at_1"] for name, found in by_style.items()}
    return row


def together(
    distributed: Distributed, problems: Sequence[Problem], measure: Callable[[Sequence[Problem]], list[Sample]]
) -> list[Sample]:
    """Measures problems, each process its share; everybody's samples, in a fixed order."""
    own = measure([problems[i] for i in distributed.share(len(problems))])
    gathered = distributed.all_gather_object([sample.to_json() for sample in own])
    return in_order(Sample(**row) for rows in gathered for row in rows)


def in_order(samples: Iterable[Sample]) -> list[Sample]:
    """Samples by family, level, problem and number, whoever made them."""
    return sorted(samples, key=lambda s: (s.family, s.level, s.key, s.question, s.index))


def question_sets(config: EvaluationSettings, others: Sequence[Problem] = ()) -> list[tuple[list[Problem], int]]:
    """The held-out reasoning problems and, where they are asked, the general ones, with the samples of each.

    Args:
        config: what is asked.
        others: problems that are not from the generated families.
    """
    seed = config.suite_seed
    suite = held_out_suite(config.families, config.levels, config.problems_per_level, seed)
    sets = [([*suite, *others], config.samples)]
    if config.general:
        general = held_out_suite(config.general, (1, 2, 3, 4, 5), config.general_per_level, seed)
        sets.append((list(general), config.general_samples))
    return sets


def report(samples: list[Sample], config: EvaluationSettings) -> dict[str, Any]:
    """The numbers of one model in one prompt style: reasoning on the trained levels and on all; general tasks."""
    reasoning = [sample for sample in samples if sample.family not in GENERAL]
    trained = [sample for sample in reasoning if sample.level in config.trained_levels]
    results = {"trained_levels": summarize(trained), "all_levels": summarize(reasoning)}
    general = [sample for sample in samples if sample.family in GENERAL]
    return {**results, "general": summarize_general(general)} if general else results
