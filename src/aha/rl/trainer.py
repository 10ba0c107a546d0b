"""Reinforcement learning with verifiable rewards as a stage.

Rollouts, rewards, advantages, updates, held-out checks.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, ClassVar

from torch import Tensor

from aha.errors import ConfigError, NothingToLearnError
from aha.evals.stage import MakeGenerator
from aha.models.language_model import LanguageModel
from aha.models.sharded_tensors import FullCopy, copy_into
from aha.protocols import Generator
from aha.rewards.rubric import Grader
from aha.rl.advantage import first_with_signal, rewards_agree
from aha.rl.config import GRPOConfig
from aha.rl.curriculum import Curriculum
from aha.rl.held_out import HeldOut, becomes_well_formed, preference_reward
from aha.rl.metrics import (
    answers_of,
    cell_accuracy,
    first_look,
    group_facts,
    no_signal_verdict,
    over_updates,
    solved,
    step_metrics,
)
from aha.rl.plan import describe_plan
from aha.rl.policy import PolicyUpdate
from aha.rl.prompts import make_prompts
from aha.rl.rollout import (
    assign_advantages,
    general_weights,
    grade_general,
    grade_reasoning,
    rollout_row,
    sample_groups,
    stratified,
    think_on,
)
from aha.rl.warnings import Warnings
from aha.rollout_servers import RolloutServersConfig
from aha.tasks.datasets import need_judges
from aha.tasks.families import GENERAL, draw, get_general
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle
from aha.text.templates import with_chat_ends
from aha.text.tokenizer import Tokenizer
from aha.training.loop import TrainingLoop
from aha.training.stage import StageContext, StageResult
from aha.training.trained_model import load_for_training, save_trained
from aha.types import Language, Problem, RolloutGroup, SamplingParams

MakeRemote = Callable[[RolloutServersConfig, LanguageModel, int, bool, Callable[[], None]], Generator]
"""Builds a generator over servers: settings, model, context, whether this process brings the weights, a barrier."""
REFERENCE = "reference."


class ReinforcementLearning:
    """The stage: from a base model to one that reasons.

    Args:
        make_generator: the engine; recipes pass the built-in one.
        make_remote: the same over servers, for runs that name some.
    """

    kind: ClassVar[str] = "grpo"

    def __init__(self, make_generator: MakeGenerator, make_remote: MakeRemote | None = None) -> None:
        self._make_generator, self._make_remote = make_generator, make_remote

    def run(self, context: StageContext) -> StageResult:
        """Trains, or goes on training, and writes the model folder."""
        config = context.config
        assert isinstance(config, GRPOConfig)
        parent = context.parent_model_folder()
        model = load_for_training(context, parent, config.lora)
        tokenizer = Tokenizer.load(parent)
        if config.style == "chat":
            model.generation_config = with_chat_ends(model.generation_config, tokenizer)
        trainer = GRPOTrainer(config, model, tokenizer, context, self._generator(config, context))
        try:
            trainer.train()
        finally:
            trainer.grader.close()
        trainer.save(context.model_folder)
        return StageResult({"curriculum": trainer.curriculum.state()}, tokens_trained=int(trainer.tokens_trained))

    def _generator(self, config: GRPOConfig, context: StageContext) -> MakeGenerator:
        """The built-in engine, or servers that get their weights from rank 0."""
        servers, distributed = config.sampling.servers, context.distributed
        if servers is None:
            return self._make_generator
        assert self._make_remote is not None, "the recipe gives the stage no way to reach servers"
        make_remote = self._make_remote

        def make(model: LanguageModel, max_rows: int, max_context: int) -> Generator:
            return make_remote(servers, model, max_context, distributed.is_first, distributed.barrier)

        return make


class GRPOTrainer(TrainingLoop):
    """Every process samples and trains its share of the groups; metrics are those of all groups."""

    VISIBLE = ("reward", "rewards/accuracy/mean", "rewards/preference/mean", "completions/mean_length")

    def __init__(
        self,
        config: GRPOConfig,
        model: LanguageModel,
        tokenizer: Tokenizer,
        context: StageContext,
        make_generator: MakeGenerator,
    ) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer
        self.longest = config.longest
        if config.sampling.keep_routing and not model.config.num_moe_layers:
            raise ConfigError("sampling.keep_routing: this model has no experts to choose; set it to false")
        played = copy.deepcopy(model).requires_grad_(False) if context.parallel.spreads else model
        self.policy = PolicyUpdate(
            model,
            config.loss,
            config.optimizer,
            config.steps * config.minibatches,
            context.distributed,
            context.parallel,
            temperature=config.sampling.temperature,
            keep_routing=config.sampling.keep_routing,
        )
        super().__init__(context, self.policy.update, config.steps)
        context_tokens = config.prompts.max_tokens + self.longest
        if context_tokens > (known := model.config.max_position_embeddings):
            context.progress.notify(
                f"{context.name}: note: prompts of {config.prompts.max_tokens} and completions of {self.longest} "
                f"tokens exceed the {known} positions of the model; lower prompts.max_tokens or sampling.lengths"
            )
        self.generator = make_generator(played, max_rows=config.sampling.engine_rows, max_context=context_tokens)
        style = PromptStyle.named(config.style)
        self.asker = Asker(self.generator, tokenizer, style)
        self.grader = Grader(config.rubric, config.rubric.seconds, style.answer_tags, context.progress.notify)
        self.preference = preference_reward(config, tokenizer, context)
        prompts = make_prompts(config, tokenizer, context)
        need_judges(family for family, _ in prompts.cells)  # the workers that grade can only drop samples
        self.held_out = HeldOut(config, self.asker, context, self.preference, prompts)
        self.curriculum = Curriculum(config.prompts.curriculum, prompts.cells, prompts.draw)
        self.warnings = Warnings(context.progress.notify)
        self.silent_steps = 0
        self.well_formed: bool | None = None
        self._newly_well_formed = False
        self.tokens_trained = 0.0

    def between_steps(self, done: int) -> None:
        """Plan and preflight at the start; held-out evaluations and models to keep on the way."""
        config, context = self.config, self.context
        if done == 0:
            plan = describe_plan(config, self.model, len(self.curriculum.cells), context.distributed.world_size)
            context.progress.notify(f"{context.name}: {plan}")
            self._preflight()
        if (
            self._newly_well_formed
            or done in (0, self.steps)
            or (config.held_out.every and done % config.held_out.every == 0)
        ):
            self._evaluate(done)
        if config.keep_every and done % config.keep_every == 0 and 0 < done < self.steps:
            self.save(context.folder / f"model-step-{done:05d}")

    def step(self, step: int) -> dict[str, Any]:
        """Samples, grades and updates once (`minibatches` times)."""
        config, context = self.config, self.context
        if (
            self.policy.reference is not None
            and config.loss.reference_reset_steps
            and step
            and step % config.loss.reference_reset_steps == 0
        ):
            self.policy.reset_reference()
        started = perf_counter()
        groups, facts = self._rollouts(step)
        sampled = perf_counter()
        weights_of = self._weights_of if config.loss.normalize == "each" else None
        assign_advantages(groups, config.loss.divide_by_std, weights_of)
        metrics = step_metrics(facts)
        self._watch_for_signal(facts)
        share = metrics.get("rewards/format/mean")
        self.well_formed, self._newly_well_formed = becomes_well_formed(self.well_formed, share)
        self.curriculum.update(cell_accuracy(facts))
        metrics |= self.curriculum.metrics()
        metrics |= over_updates(self._updates(step, self._with_signal(groups, facts)))
        self.tokens_trained += metrics["tokens_trained"]
        self.num_tokens += sum(group["tokens"] for group in facts)
        metrics["max_completion_tokens"] = float(self._limit(step))
        finished = perf_counter()
        tokens = sum(length for group in facts for length in group["lengths"])
        context.timings.write(
            {
                "step": step,
                "step_time": finished - started,
                "rollout_seconds": sampled - started,
                "update_seconds": finished - sampled,
                "generated_tokens_per_second": tokens / (sampled - started),
            }
        )
        self._log_rollouts(step, groups)
        self.warnings.see(metrics)
        return metrics

    def _rollouts(self, step: int) -> tuple[list[RolloutGroup], list[dict[str, Any]]]:
        """This process's groups and the facts of everybody's, of several rounds where silent groups are replaced."""
        config, distributed = self.config, self.context.distributed
        groups: list[RolloutGroup] = []
        facts: list[dict[str, Any]] = []
        for round_number in range(config.sampling.dynamic_rounds):
            problems = self._problems(step, round_number)
            own = distributed.share(len(problems))
            experts = self._reports_experts(step)
            sampling = [self._sampling(self._limit(step, problems[i].level), experts) for i in own]
            seeds = [self.context.derive_seed("rollout", step, round_number, i) for i in own]
            new = sample_groups(self.asker, [problems[i] for i in own], sampling, seeds)
            if share := config.sampling.forced_share:
                chosen = random.Random(self.context.derive_seed("forced", step, round_number))
                forced = [chosen.random() < share for _ in problems]
                think_on(self.asker, new, sampling, seeds, [forced[i] for i in own])
            self._grade(new)
            groups += new
            facts += distributed.gather_shares([group_facts(group) for group in new])
            if sum(not rewards_agree(group["rewards"]) for group in facts) >= config.prompts_per_step:
                break
        return groups, facts

    def _limit(self, step: int, level: int | None = None) -> int:
        """Tokens that a completion may have at a step: of a problem of that level, or of the highest."""
        return self.config.sampling.max_completion_tokens(step, level or self.config.highest_level)

    def _sampling(self, limit: int, report_experts: bool = False) -> SamplingParams:
        """How a group is sampled, with a limit in tokens."""
        return SamplingParams(
            self.config.sampling.temperature,
            max_completion_tokens=limit,
            n=self.config.group_size,
            processed_logprobs=True,
            report_experts=report_experts,
        )

    def _reports_experts(self, step: int) -> bool:
        """Whether the sampler says which experts it chose: to keep them, or where that is cheap now and then."""
        sampling, every = self.config.sampling, self.config.held_out.every
        if sampling.servers is not None or not self.model.config.num_moe_layers:
            return False
        on_cpu = self.context.distributed.device.type == "cpu"  # on CUDA it takes decoding without graphs
        return sampling.keep_routing or bool(every and on_cpu and step % every == 0)

    def _with_signal(self, groups: list[RolloutGroup], facts: Sequence[dict[str, Any]]) -> list[RolloutGroup]:
        """With dynamic sampling, this process's among the first `prompts_per_step` groups that are not silent."""
        config, distributed = self.config, self.context.distributed
        if config.sampling.dynamic_rounds == 1:
            return groups
        count = config.prompts_per_step
        chosen = set(first_with_signal([group["rewards"] for group in facts], count))
        own = [first + i for first in range(0, len(facts), count) for i in distributed.share(count)]
        return [group for number, group in zip(own, groups, strict=True) if number in chosen]

    def _grade(self, groups: list[RolloutGroup]) -> None:
        """Rules for reasoning; reward models for the rest."""
        grade_reasoning(self.grader, [group for group in groups if group.problem.family not in GENERAL])
        general = [group for group in groups if group.problem.family in GENERAL]
        if general and self.preference is not None and self.config.general is not None:
            config = self.config
            grade_general(
                self.preference, general, config.rubric, self.config.general.weight, self.asker.style.answer_tags
            )

    def _weights_of(self, problem: Problem) -> dict[str, float]:
        """The weight of each reward on a problem."""
        rubric, general = self.config.rubric, self.config.general
        if problem.family in GENERAL and general is not None:
            return general_weights(rubric, general.weight)
        return rubric.weights()

    def _problems(self, step: int, round_number: int) -> list[Problem]:
        rng = random.Random(self.context.derive_seed("problems", step, round_number))
        count, general = self.config.prompts_per_step, self.config.general
        others = round(general.share * count) if general is not None and step >= general.from_step else 0
        problems = [self.curriculum.sample(rng) for _ in range(count - others)]
        return problems + [self._general_problem(rng) for _ in range(others)]

    def _general_problem(self, rng: random.Random) -> Problem:
        """A training prompt of a general family, all families alike."""
        assert self.config.general is not None
        family = get_general(rng.choice(self.config.general.families))
        language: Language = "zh" if rng.random() < self.config.prompts.chinese else "en"
        return draw(rng, family, rng.choice(family.levels), language, held_out=False)

    def _updates(self, step: int, groups: list[RolloutGroup]) -> list[dict[str, Any]]:
        """All updates of a rollout; the processes' groups are split at random into minibatches."""
        config = self.config
        limit = self._limit(step)
        order = list(range(len(groups)))
        random.Random(self.context.derive_seed("minibatches", step)).shuffle(order)
        results = []
        for part in range(config.minibatches):
            chosen = [groups[i] for i in order[part :: config.minibatches]]
            results.append(self.policy.step(chosen, limit, on_policy=part == 0, last=part + 1 == config.minibatches))
        self.generator.load_weights(FullCopy(self.model.state_dict()), step + 1)
        return results

    def _watch_for_signal(self, facts: Sequence[dict[str, Any]]) -> None:
        silent = all(rewards_agree(group["rewards"]) for group in facts)
        self.silent_steps = self.silent_steps + 1 if silent else 0
        if silent:
            verdict = no_signal_verdict(facts)
            self.context.progress.notify(f"no signal in this step: {verdict}")
            if self.silent_steps >= self.config.patience:
                raise NothingToLearnError(f"{self.silent_steps} steps in a row without any signal: {verdict}")

    def _preflight(self) -> None:
        """Asks the base inside the think tag, on training problems: is there anything for RL to find?"""
        config, distributed = self.config, self.context.distributed
        if not config.preflight.prompts:
            return
        rng = random.Random(self.context.derive_seed("preflight"))
        problems = [self.curriculum.sample(rng) for _ in range(config.preflight.prompts)]
        own = distributed.share(len(problems))
        thinking = PromptStyle.named("zero_think" if config.style == "zero" else config.style)
        groups = sample_groups(
            Asker(self.generator, self.tokenizer, thinking),
            [problems[i] for i in own],
            [self._sampling(self.longest)] * len(own),
            [self.context.derive_seed("preflight", i) for i in own],
        )
        grade_reasoning(self.grader, groups)
        facts = distributed.gather_shares([group_facts(one) | answers_of(one, thinking.answer_tags) for one in groups])
        once, ever = solved(facts)
        self.context.metrics.write({"step": -1, "preflight/pass_at_1": once, "preflight/pass_at_group": ever})
        self.context.progress.notify(
            f"before training, when it thinks, the model solves {once:.1%} of the training problems at one try "
            f"and {ever:.1%} within {config.group_size} tries"
        )
        if look := first_look([answer for group in facts for answer in group["answers"]]):
            self.context.progress.notify(look)
        if ever < config.preflight.floor:
            raise NothingToLearnError(
                f"the base solves {once:.1%} when it thinks and {ever:.1%} within {config.group_size} tries (at least "
                f"{config.preflight.floor:.0%} is needed): groups without a right answer teach nothing. "
                "Pretrain longer, with "
                "more worked solutions, or train on easier levels"
            )

    def _evaluate(self, done: int) -> None:
        """Held-out evaluation, logged and said."""
        if self.config.held_out.every:
            row, words = self.held_out.measure()
            self.context.metrics.write({"step": done, **row})
            self.context.progress.notify(f"held-out accuracy after {done} steps, {words}")

    def _log_rollouts(self, step: int, groups: list[RolloutGroup]) -> None:
        """A few groups of rank 0 with all their completions, as text."""
        for group in stratified(groups, self.config.log_rollouts):
            self.context.rollouts.write(rollout_row(step, group))

    def save(self, folder: Any) -> None:
        """Writes a model folder, from rank 0."""
        save_trained(self.model, folder, self.tokenizer.files(), self.context.distributed)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """With the reference's weights, the curriculum and what has been watched."""
        tensors, counters = super().state()
        if self.policy.reference is not None:
            tensors |= {REFERENCE + name: tensor for name, tensor in self.policy.reference.state_dict().items()}
        return tensors, counters | {
            "curriculum": self.curriculum.state(),
            "warnings": self.warnings.state(),
            "silent_steps": self.silent_steps,
            "well_formed": self.well_formed,
            "tokens_trained": self.tokens_trained,
            "weights_version": self.generator.weights_version,
        }

    def load_state(self, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
        """Restores what `state` gave; the generator gets the weights."""
        super().load_state(tensors, state)
        if self.policy.reference is not None:
            for name, tensor in self.policy.reference.state_dict().items():
                copy_into(tensor, tensors[REFERENCE + name])
        self.curriculum.load_state(state["curriculum"])
        self.warnings.load_state(state["warnings"])
        self.silent_steps = state["silent_steps"]
        self.well_formed = state["well_formed"]
        self.tokens_trained = state["tokens_trained"]
        self.generator.load_weights(FullCopy(self.model.state_dict()), state["weights_version"])
