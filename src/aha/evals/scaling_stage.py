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
from aha.evals.stage import LONGEST_PROMPT, MakeGenerator
from aha.files import write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.models.reward_model import BACKBONE, RewardScorer, load_reward_model
from aha.rewards.preference import CalibratedScorer, judged_token_ids
from aha.test_time.best_of_n import scores_by_model
from aha.test_time.candidates import Candidate, Respondent
from aha.text.elicitation import Elicitation
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext, StageResult
from aha.types import Problem

RESULTS = "scaling.json"


class ScalingSuite(Config):
    """Which model is asked, and how."""

    stage: StageName = Field(description="the stage whose model is asked")
    elicitation: Elicitation = Field("zero", description="the way of asking")


class ScalingConfig(ScalingSettings):
    """Test-time scaling of a run's models; `reward_model` names the stage that trained it."""

    suites: tuple[ScalingSuite, ...] = Field((), description="models and how each is asked")

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        for suite in self.suites:
            if unfit := unfit_method(self.methods, suite.elicitation):
                raise ValueError(
                    f"{suite.stage}: {unfit} needs a model that thinks between tags; asked as "
                    f"{suite.elicitation!r} it does not"
                )
        return self

    def parents(self) -> tuple[str, ...]:
        """The stages that this one reads."""
        names = [*(suite.stage for suite in self.suites), *([self.reward_model] if self.reward_model else [])]
        return tuple(dict.fromkeys(names))


class Scaling:
    """The stage: reads its parents' models, writes `rollouts.jsonl` and `scaling.json`.

    Args:
        make_generator: the engine; recipes pass the built-in one.
    """

    kind: ClassVar[str] = "scaling"

    def __init__(self, make_generator: MakeGenerator) -> None:
        self._make_generator = make_generator

    def run(self, context: StageContext) -> StageResult:
        """Does one piece of work after another; what is finished is not repeated after an interruption."""
        config = context.config
        assert isinstance(config, ScalingConfig)
        saved = context.checkpointer.load()
        found: dict[str, Curves] = (
            {name: from_json(rows) for name, rows in saved.state["curves"].items()} if saved else {}
        )
        work = [(number, suite, job) for number, suite in enumerate(config.suites) for job in config.jobs()]
        start = saved.step if saved else 0
        rewards = self._rewards(context, config)
        respondents: dict[int, Respondent] = {}
        with context.progress.task(context.name, len(work), start) as task:
            for done, (number, suite, job) in enumerate(work[start:], start + 1):
                if number not in respondents:
                    respondents = {number: self._respondent(context, config, suite)}
                rows = self._all_rows(context, config, job, respondents[number], rewards)
                for row in rows:
                    context.rollouts.write({"model": suite.stage, "elicitation": suite.elicitation, **asdict(row)})
                seed = context.derive_seed("subsets")
                new = curves_of(rows, config.methods, config.max_completion_tokens, config.subsets, seed)
                merge(found.setdefault(str(number), {}), new)
                task.update(done, {suite.stage: f"{job.source} {job.setting}"})
                if context.checkpointer.due():
                    curves = {name: to_json(own) for name, own in found.items()}
                    context.checkpointer.save(done, {}, {"curves": curves})
        results: dict[str, dict[str, Any]] = {}
        for number, suite in enumerate(config.suites):
            results.setdefault(suite.stage, {})[suite.elicitation] = report(found[str(number)], config.compared_at)
        if context.distributed.is_first:
            write_json(context.folder / RESULTS, results)
        return StageResult()

    @staticmethod
    def _rewards(context: StageContext, config: ScalingConfig) -> Rewards | None:
        if not config.reward_model:
            return None
        return load_rewards(context.parent_folder(config.reward_model), context.distributed.device)

    def _respondent(self, context: StageContext, config: ScalingConfig, suite: ScalingSuite) -> Respondent:
        folder = context.parent_model_folder(suite.stage)
        model = load_pretrained(folder, device=context.distributed.device)
        generator = self._make_generator(model, max_rows=256, max_context=LONGEST_PROMPT + config.room)
        return Respondent(
            generator,
            Tokenizer.load(folder),
            suite.elicitation,
            config.max_completion_tokens,
            config.room,
            context.derive_seed(suite.stage),
            config.temperature,
            config.top_p,
        )

    @staticmethod
    def _all_rows(
        context: StageContext, config: ScalingConfig, job: Job, respondent: Respondent, rewards: Rewards | None
    ) -> list[Answered]:
        """All processes' rows of one piece of work, in a fixed order."""
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
        return judged_token_ids(tokenizer, preference, problem.question, one.thinking, one.shown or one.answer)

    return lambda problems, candidates: scores_by_model(scorer.rewards, judged, problems, candidates)
