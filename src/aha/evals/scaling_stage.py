"""Test-time scaling as a stage: the curves of a run's models, all completions kept."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator

from aha.configuration import Config, StageName
from aha.evals.scaling import Answered, Curves, curves_of, from_json, report, to_json
from aha.evals.scaling_rows import Job, Rewards, ScalingSettings, answer, unfit_method
from aha.evals.stage import LONGEST_PROMPT, SamplingStage
from aha.files import write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.models.reward_model import BACKBONE, RewardScorer, load_reward_model
from aha.rewards.preference import CalibratedScorer, judged_token_ids
from aha.test_time.best_of_n import scores_by_model
from aha.test_time.candidates import Candidate, Respondent
from aha.text.prompt_style import PromptStyle, StyleName
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext, StageResult
from aha.types import Problem, SamplingParams

RESULTS = "scaling.json"


class ScalingSuite(Config):
    """Which model is asked, and in which prompt style."""

    stage: StageName = Field(description="the stage whose model is asked")
    style: StyleName = Field("zero", description="prompt style")


class ScalingConfig(ScalingSettings):
    """Test-time scaling of a run's models; `reward_model` names the stage that trained it."""

    suites: tuple[ScalingSuite, ...] = Field((), description="models and how each is asked")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        for suite in self.suites:
            if unfit := unfit_method(self.methods, PromptStyle.named(suite.style)):
                raise ValueError(
                    f"{suite.stage}: {unfit} needs a model that thinks between tags; asked as "
                    f"{suite.style!r} it does not"
                )
        return self

    def parents(self) -> tuple[str, ...]:
        """The stages that this one reads."""
        names = [*(suite.stage for suite in self.suites), *([self.reward_model] if self.reward_model else [])]
        return tuple(dict.fromkeys(names))


class Scaling(SamplingStage):
    """The stage: reads its parents' models, writes `rollouts.jsonl` and `scaling.json`."""

    kind: ClassVar[str] = "scaling"

    def run(self, context: StageContext[ScalingConfig]) -> StageResult:
        """Does one piece of work after another; what is finished is not repeated after an interruption."""
        config = context.config
        saved = context.checkpointer.load()
        found: dict[str, Curves] = (
            {name: from_json(rows) for name, rows in saved.state["curves"].items()} if saved else {}
        )
        work = [(number, suite, job) for number, suite in enumerate(config.suites) for job in config.jobs()]
        start = saved.step if saved else 0
        rewards = self._rewards(context)
        respondents: dict[int, Respondent] = {}
        with context.progress.task(context.name, len(work), start) as task:
            for done, (number, suite, job) in enumerate(work[start:], start + 1):
                if number not in respondents:
                    respondents = {number: self._respondent(context, suite)}
                rows = self._all_rows(context, job, respondents[number], rewards)
                for row in rows:
                    context.rollouts.write({"model": suite.stage, "style": suite.style, **asdict(row)})
                seed = context.derive_seed("subsets")
                new = curves_of(rows, config.methods, config.max_completion_tokens, config.subsets, seed)
                merge(found.setdefault(str(number), {}), new)
                task.update(done, {suite.stage: f"{job.source} {job.setting}"})
                if context.checkpointer.due():
                    curves = {name: to_json(own) for name, own in found.items()}
                    context.checkpointer.save(done, {}, {"curves": curves})
        results: dict[str, dict[str, Any]] = {}
        for number, suite in enumerate(config.suites):
            results.setdefault(suite.stage, {})[suite.style] = report(found[str(number)], config.compared_at)
        if context.distributed.is_first:
            write_json(context.folder / RESULTS, results)
        return StageResult()

    @staticmethod
    def _rewards(context: StageContext[ScalingConfig]) -> Rewards | None:
        config = context.config
        if not config.reward_model:
            return None
        return load_rewards(context.parent_folder(config.reward_model), context.distributed.device)

    def _respondent(self, context: StageContext[ScalingConfig], suite: ScalingSuite) -> Respondent:
        config = context.config
        folder = context.parent_model_folder(suite.stage)
        model = load_pretrained(folder, **context.placement)
        generator = self._make_generator(model, max_rows=256, max_context=LONGEST_PROMPT + config.room)
        return Respondent(
            generator,
            Tokenizer.load(folder),
            PromptStyle.named(suite.style),
            SamplingParams(config.temperature, config.top_p, config.max_completion_tokens),
            config.room,
            context.derive_seed(suite.stage),
        )

    @staticmethod
    def _all_rows(
        context: StageContext[ScalingConfig], job: Job, respondent: Respondent, rewards: Rewards | None
    ) -> list[Answered]:
        """All processes' rows of one piece of work, in a fixed order."""
        config = context.config
        own = config.problems()[context.distributed.rank :: context.distributed.world_size]
        rows = [asdict(row) for row in answer(job, respondent, own, config, rewards)]
        gathered = [Answered(**row) for part in context.distributed.all_gather_object(rows) for row in part]
        return sorted(gathered, key=lambda r: (r.family, r.level, r.key, r.question, r.setting, r.index))


def merge(curves: Curves, new: Curves) -> None:
    """Adds points to curves."""
    for method, curve in new.items():
        curves.setdefault(method, {}).update(curve)


def load_rewards(folder: Path, device: torch.device | str = "cpu") -> Rewards:
    """A trained reward model as what gives candidates their rewards; it reads what it was trained to read.

    Raises:
        CheckpointError: the folder holds no reward model.
    """
    model, about = load_reward_model(folder, device)
    tokenizer = Tokenizer.load(folder / BACKBONE)
    scorer = CalibratedScorer(RewardScorer(model), about["mean"], about["std"])
    preference = about["preference"]

    def judged(problem: Problem, one: Candidate) -> list[int]:
        return judged_token_ids(tokenizer, preference, problem.question, one.thinking, one.visible or one.answer)

    return lambda problems, candidates: scores_by_model(scorer.rewards, judged, problems, candidates)
