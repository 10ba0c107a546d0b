"""What a policy in training is measured by: held-out problems, and the truth beside the reward models' opinion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aha.evals.runner import Sample, evaluate, summarize, summarize_general
from aha.evals.stage import together
from aha.models.reward_model import RewardScorer, load_reward_model
from aha.rewards.preference import CalibratedScorer, PreferenceReward
from aha.rl.config import GeneralConfig, GRPOConfig
from aha.rl.prompts import SUITE_SEED, Prompts
from aha.tasks.families import held_out_suite
from aha.text.asker import Asker
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext
from aha.types import Problem, SamplingParams

WELL_FORMED = 0.9
"""Share of well-formed completions from which the length of thinking is looked at: before, form is what changes."""


def becomes_well_formed(before: bool | None, share: float | None) -> tuple[bool | None, bool]:
    """Whether completions are well-formed now, once and for all, and whether this is the step at which they became so.

    Args:
        before: what this function returned last; None before the first step. A policy that begins so never becomes so.
        share: of a step's completions; None for a step without reasoning.
    """
    if share is None:
        return before, False
    formed = share >= WELL_FORMED
    return bool(before) or formed, formed and before is False


def preference_reward(config: GRPOConfig, tokenizer: Tokenizer, context: StageContext) -> PreferenceReward | None:
    """The reward models that judge general prompts, from the stages that trained them; None without such prompts."""
    if config.general is None:
        return None

    def scorer(stage: str) -> CalibratedScorer:
        model, about = load_reward_model(context.parent_folder(stage), context.distributed.device)
        return CalibratedScorer(RewardScorer(model), about["mean"], about["std"])

    general = config.general
    return PreferenceReward(tokenizer, {"helpful": scorer(general.helpful), "harmless": scorer(general.harmless)})


class HeldOut:
    """Measures the policy as the generator holds it."""

    def __init__(
        self,
        config: GRPOConfig,
        asker: Asker,
        context: StageContext,
        preference: PreferenceReward | None,
        prompts: Prompts,
    ) -> None:
        self._config, self._asker = config, asker
        self._context, self._preference = context, preference
        self._suite = prompts.held_out()

    def measure(self) -> tuple[dict[str, Any], str]:
        """The tables of a row of metrics, and the headline in words. All processes take part."""
        config = self._config
        everything = self._sampled(self._suite, config.held_out.samples)
        trained = summarize([sample for sample in everything if sample.level in config.prompts.levels])
        row: dict[str, Any] = {"evaluation": summarize(everything), "evaluation_trained_levels": trained}
        accuracy = trained["pass_at_1"]["mean"]
        words = "trained levels: " + ("not asked (eval_levels)" if accuracy is None else f"{accuracy:.1%}")
        if config.general is not None and self._preference is not None:
            row["evaluation_general"] = general = self._general(config.general, self._preference)
            words += f"; general tasks: {general['score']:.1%}, by the reward models {general['preference']:.1%}"
        return row, words

    def _sampled(self, suite: Sequence[Problem], samples: int) -> list[Sample]:
        config = self._config
        sampling = SamplingParams(config.sampling.temperature, max_completion_tokens=config.longest, n=samples)
        seed = self._context.derive_seed("evaluation")
        return together(
            self._context.distributed, suite, lambda problems: evaluate(self._asker, problems, sampling, seed)
        )

    def _general(self, general: GeneralConfig, preference: PreferenceReward) -> dict[str, Any]:
        """The true score of general tasks beside what the reward models say of the same responses."""
        suite = list(held_out_suite(general.families, (1, 2, 3), general.eval_per_level, SUITE_SEED))
        samples = self._sampled(suite, general.eval_samples)
        problems = {problem.question: problem for problem in suite}
        items = []
        for sample in samples:
            parsed = self._asker.style.parse(sample.completion, sample.truncated)
            items.append((problems[sample.question], parsed.thinking, parsed.summary if parsed.well_formed else ""))
        rewards = [reward for reward in preference.rewards(items) if reward is not None]
        return {**summarize_general(samples), "preference": sum(rewards) / max(1, len(rewards))}
