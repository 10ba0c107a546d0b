"""Reinforcement learning with verifiable rewards as a stage.

Rollouts, rewards, advantages, updates, held-out checks.
"""

from __future__ import annotations

import copy
import itertools
import random
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any, ClassVar

from aha.errors import NothingToLearnError
from aha.evals.metrics import pass_at_k
from aha.evals.stage import MakeGenerator
from aha.models.language_model import LanguageModel
from aha.models.sharded_tensors import FullCopy, copy_into
from aha.protocols import Generator
from aha.rewards.rubric import Grader
from aha.rl.advantage import first_with_signal, rewards_agree
from aha.rl.config import GRPOConfig
from aha.rl.curriculum import Curriculum
from aha.rl.held_out import HeldOut, becomes_well_formed, preference_reward
from aha.rl.metrics import cell_accuracy, group_facts, no_signal_verdict, over_updates, step_metrics
from aha.rl.plan import describe_plan
from aha.rl.policy import PolicyUpdate
from aha.rl.prompts import make_prompts
from aha.rl.rollout import assign_advantages, collect, grade_general, grade_reasoning
from aha.rollout_servers import RolloutServersConfig
from aha.tasks.datasets import need_judges
from aha.tasks.families import GENERAL, draw, get_general
from aha.text.templates import with_chat_ends
from aha.text.tokenizer import Tokenizer
from aha.training.checkpointer import Saved
from aha.training.model_state import load_training_state, training_state
from aha.training.stage import StageContext, StageResult
from aha.training.trained_model import load_for_training, save_trained
from aha.types import Language, Problem, RolloutGroup

MakeRemote = Callable[[RolloutServersConfig, LanguageModel, int, bool, Callable[[], None]], Generator]
"""Builds a generator over servers: settings, model, context, whether this process brings the weights, a barrier."""
REFERENCE = "reference."
SHOWN = ("reward", "rewards/accuracy/mean", "rewards/preference/mean", "completions/mean_length")
"""Figures beside the progress bar."""


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
        seed = context.derive_seed("adapters")
        model = load_for_training(parent, context.distributed.device, config.compute, config.lora, seed)
        tokenizer = Tokenizer.load(parent)
        if config.form == "chat":
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
        servers, distributed = config.rollout_servers, context.distributed
        if servers is None:
            return self._make_generator
        assert self._make_remote is not None, "the recipe gives the stage no way to reach servers"
        make_remote = self._make_remote

        def make(model: LanguageModel, max_rows: int, max_context: int) -> Generator:
            return make_remote(servers, model, max_context, distributed.is_first, distributed.barrier)

        return make


class GRPOTrainer:
    """The loop. Every process samples and trains its share of the groups; metrics are those of all groups."""

    def __init__(
        self,
        config: GRPOConfig,
        model: LanguageModel,
        tokenizer: Tokenizer,
        context: StageContext,
        make_generator: MakeGenerator,
    ) -> None:
        self.config, self.model, self.tokenizer, self.context = config, model, tokenizer, context
        self.longest = max(stage.max_completion_tokens for stage in config.lengths)
        played = copy.deepcopy(model).requires_grad_(False) if context.parallel.spreads else model
        self.update = PolicyUpdate(model, config, context.distributed, context.parallel)
        context_tokens = config.max_prompt_tokens + self.longest
        if context_tokens > (known := model.config.max_position_embeddings):
            context.progress.say(
                f"{context.name}: note: prompts of {config.max_prompt_tokens} tokens and completions of {self.longest} "
                f"may be longer than the {known} positions of the model; lower max_prompt_tokens or lengths"
            )
        self.generator = make_generator(played, max_rows=config.engine_rows, max_context=context_tokens)
        self.grader = Grader(config.rubric, config.grader_seconds, config.form, context.progress.say)
        self.preference = preference_reward(config, tokenizer, context)
        prompts = make_prompts(config, tokenizer, context)
        need_judges(family for family, _ in prompts.cells)  # the workers that grade can only drop samples
        self.held_out = HeldOut(config, self.generator, tokenizer, context, self.preference, prompts)
        self.curriculum = Curriculum(config.curriculum, prompts.cells, prompts.draw)
        self.silent_steps = 0
        self.well_formed: bool | None = None
        self.tokens_trained = 0.0
        self.num_tokens = 0
        """Tokens sampled so far, each with its prompt, by all processes: TRL's `num_tokens`."""

    def train(self) -> None:
        """Runs the remaining steps."""
        context, config = self.context, self.config
        saved = context.checkpointer.load()
        start = self._restore(saved) if saved else 0
        if start == 0:
            cells = len(self.curriculum.accuracy)
            plan = describe_plan(config, self.model, cells, context.distributed.world_size)
            context.progress.say(f"{context.name}: {plan}")
            self._preflight()
            self._evaluate(0)
        with context.progress.task(context.name, config.steps, start) as task:
            for step in range(start, config.steps):
                metrics = self.step(step)
                context.metrics.write({"step": step, **metrics})
                done = step + 1
                share = metrics.get("rewards/format/mean")
                self.well_formed, changed = becomes_well_formed(self.well_formed, share)
                if changed or done == config.steps or (config.eval_every and done % config.eval_every == 0):
                    self._evaluate(done)
                if config.keep_every and done % config.keep_every == 0 and done < config.steps:
                    self.save(context.folder / f"model-step-{done:05d}")
                task.update(
                    done,
                    {name: metrics[name] for name in SHOWN if name in metrics},
                )
                if context.checkpointer.due():
                    context.checkpointer.save(done, *self._state())

    def step(self, step: int) -> dict[str, Any]:
        """Samples, grades and updates once (`minibatches` times)."""
        config, context = self.config, self.context
        if (
            self.update.reference is not None
            and config.reference_reset_steps
            and step
            and step % config.reference_reset_steps == 0
        ):
            self.update.reset_reference()
        started = perf_counter()
        groups, facts = self._rollouts(step)
        sampled = perf_counter()
        assign_advantages(groups, config.divide_by_std)
        metrics = step_metrics(facts)
        self._watch_for_signal(facts)
        self.curriculum.update(cell_accuracy(facts))
        metrics |= over_updates(self._updates(step, self._with_signal(groups, facts)))
        self.tokens_trained += metrics["tokens_trained"]
        self.num_tokens += sum(group["tokens"] for group in facts)
        metrics["num_tokens"] = float(self.num_tokens)
        metrics["max_completion_tokens"] = float(config.max_completion_tokens(step))
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
        return metrics

    def _rollouts(self, step: int) -> tuple[list[RolloutGroup], list[dict[str, Any]]]:
        """This process's groups and the facts of everybody's, of several rounds where silent groups are replaced."""
        config, distributed = self.config, self.context.distributed
        groups: list[RolloutGroup] = []
        facts: list[dict[str, Any]] = []
        for round_number in range(config.dynamic_sampling_rounds):
            problems = self._problems(step, round_number)
            own = distributed.share(len(problems))
            new = collect(
                self.generator,
                self.tokenizer,
                [problems[i] for i in own],
                [self.context.derive_seed("rollout", step, round_number, i) for i in own],
                config.group_size,
                config.max_completion_tokens(step),
                config.temperature,
                config.form,
            )
            self._grade(new)
            groups += new
            facts += distributed.gather_shares([group_facts(group) for group in new])
            if sum(not rewards_agree(group["rewards"]) for group in facts) >= config.prompts_per_step:
                break
        return groups, facts

    def _with_signal(self, groups: list[RolloutGroup], facts: Sequence[dict[str, Any]]) -> list[RolloutGroup]:
        """With dynamic sampling, this process's among the first `prompts_per_step` groups that are not silent."""
        config, distributed = self.config, self.context.distributed
        if config.dynamic_sampling_rounds == 1:
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
            grade_general(self.preference, general, config.rubric, self.config.general.weight, config.form)

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
        language: Language = "zh" if rng.random() < self.config.chinese else "en"
        return draw(rng, family, rng.choice(family.levels), language, held_out=False)

    def _updates(self, step: int, groups: list[RolloutGroup]) -> list[dict[str, Any]]:
        """All updates of a rollout; the processes' groups are split at random into minibatches."""
        config = self.config
        order = list(range(len(groups)))
        random.Random(self.context.derive_seed("minibatches", step)).shuffle(order)
        results = []
        for part in range(config.minibatches):
            chosen = [groups[i] for i in order[part :: config.minibatches]]
            results.append(self.update.step(chosen, on_policy=part == 0))
        self.generator.load_weights(FullCopy(self.model.state_dict()), step + 1)
        return results

    def _watch_for_signal(self, facts: Sequence[dict[str, Any]]) -> None:
        silent = all(rewards_agree(group["rewards"]) for group in facts)
        self.silent_steps = self.silent_steps + 1 if silent else 0
        if silent:
            verdict = no_signal_verdict(facts)
            self.context.progress.say(f"no signal in this step: {verdict}")
            if self.silent_steps >= self.config.patience:
                raise NothingToLearnError(f"{self.silent_steps} steps in a row without any signal: {verdict}")

    def _preflight(self) -> None:
        """Asks the base inside the think tag, on training problems: is there anything for RL to find?"""
        config, distributed = self.config, self.context.distributed
        if not config.preflight_prompts:
            return
        rng = random.Random(self.context.derive_seed("preflight"))
        problems = [self.curriculum.sample(rng) for _ in range(config.preflight_prompts)]
        own = distributed.share(len(problems))
        groups = collect(
            self.generator,
            self.tokenizer,
            [problems[i] for i in own],
            [self.context.derive_seed("preflight", i) for i in own],
            config.group_size,
            self.longest,
            config.temperature,
            config.form,
            think_prefilled=True,
        )
        grade_reasoning(self.grader, groups)
        facts = distributed.gather_shares([group_facts(group) for group in groups])
        right = [
            (len(group["rewards"]), int(sum(group["parts"].get("accuracy", [])))) for group in facts if group["rewards"]
        ]
        once = sum(pass_at_k(n, c, 1) for n, c in right) / max(1, len(right))
        ever = sum(pass_at_k(n, c, n) for n, c in right) / max(1, len(right))
        self.context.metrics.write({"step": -1, "preflight/pass_at_1": once, "preflight/pass_at_group": ever})
        self.context.progress.say(
            f"before training, when it thinks, the model solves {once:.1%} of the training problems at one try "
            f"and {ever:.1%} within {config.group_size} tries"
        )
        if ever < config.preflight_floor:
            raise NothingToLearnError(
                f"the base solves {once:.1%} when it thinks and {ever:.1%} within {config.group_size} tries (at least "
                f"{config.preflight_floor:.0%} is needed): groups without a right answer teach nothing. "
                "Pretrain longer, with "
                "more worked solutions, or train on easier levels"
            )

    def _evaluate(self, done: int) -> None:
        """Held-out evaluation, logged and said."""
        if self.config.eval_every:
            row, words = self.held_out.measure()
            self.context.metrics.write({"step": done, **row})
            self.context.progress.say(f"held-out accuracy after {done} steps, {words}")

    def _log_rollouts(self, step: int, groups: list[RolloutGroup]) -> None:
        """A few groups of rank 0 with all their completions, as text."""
        for group in of_each_sort(groups, self.config.log_rollouts):
            self.context.rollouts.write(
                {
                    "step": step,
                    "family": group.problem.family,
                    "level": group.problem.level,
                    "question": group.problem.question,
                    "gold": group.problem.answer,
                    "completions": [
                        {
                            "text": rollout.text,
                            "tokens": len(rollout.completion_token_ids),
                            "finish_reason": rollout.finish_reason.value,
                            "reward": rollout.reward,
                            "rewards": rollout.rewards,
                            "advantage": rollout.advantage,
                        }
                        for rollout in group.rollouts
                    ],
                }
            )

    def save(self, folder: Any) -> None:
        """Writes a model folder, from rank 0."""
        save_trained(self.model, folder, self.tokenizer.files(), self.context.distributed)

    def _state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        tensors = training_state(self.model, self.update.optimizer)
        if self.update.reference is not None:
            tensors |= {REFERENCE + name: tensor for name, tensor in self.update.reference.state_dict().items()}
        state = {
            "optimizer_steps": self.update.optimizer.steps,
            "curriculum": self.curriculum.state(),
            "silent_steps": self.silent_steps,
            "well_formed": self.well_formed,
            "tokens_trained": self.tokens_trained,
            "num_tokens": self.num_tokens,
        }
        return tensors, state

    def _restore(self, saved: Saved) -> int:
        load_training_state(self.model, self.update.optimizer, saved.tensors, saved.state["optimizer_steps"])
        if self.update.reference is not None:
            for name, tensor in self.update.reference.state_dict().items():
                copy_into(tensor, saved.tensors[REFERENCE + name])
        self.curriculum.load_state(saved.state["curriculum"])
        self.silent_steps = saved.state["silent_steps"]
        self.well_formed = saved.state["well_formed"]
        self.tokens_trained = saved.state["tokens_trained"]
        self.num_tokens = saved.state["num_tokens"]
        self.generator.load_weights(FullCopy(self.model.state_dict()), saved.step)
        return saved.step


def of_each_sort(groups: Sequence[RolloutGroup], count: int) -> list[RolloutGroup]:
    """The first groups of reasoning and of general prompts by turns, so that few show both where there are both."""
    sorts = ([group for group in groups if (group.problem.family in GENERAL) == general] for general in (False, True))
    turns = (group for turn in itertools.zip_longest(*sorts) for group in turn if group is not None)
    return list(itertools.islice(turns, count))
