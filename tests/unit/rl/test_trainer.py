"""The loop's options, on a tiny model whose completions are graded by a script."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from aha.configuration import build_config, changed_settings
from aha.errors import ConfigError, NothingToLearnError
from aha.evals.stage import MakeGenerator
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.rewards.rubric import Grader
from aha.rl import trainer as loop
from aha.rl.config import GRPOConfig
from aha.rl.plan import describe_plan
from aha.rl.trainer import GRPOTrainer
from aha.runs import read_jsonl
from aha.text.tokenizer import Tokenizer
from aha.training.distributed import Distributed
from aha.types import Completion, Request, RolloutGroup

from ..conftest import MakeContext, nested

Script = Callable[[int], Sequence[float]]
"""The accuracies of a group, from its number in the order of sampling."""
MakeTrainer = Callable[..., GRPOTrainer]

SILENT, MIXED = (1.0, 1.0, 1.0, 1.0), (0.0, 1.0, 0.5, 0.5)
"""Rewards of a group; the mixed one has samples without advantage, which are no reason to leave them out."""


@pytest.fixture
def make_trainer(make_context: MakeContext, base: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeTrainer]:
    """A trainer whose groups are graded by a script; the loop's own grader never starts."""
    made: list[GRPOTrainer] = []

    def make(script: Script, generator: MakeGenerator = Engine, **changes: Any) -> GRPOTrainer:
        settings = {
            "steps": 1, "prompts_per_step": 3, "group_size": 4, "held_out.every": 0, "preflight.prompts": 0,
            "sampling.lengths": [{"from_step": 0, "max_completion_tokens": 8}],
            "optimizer": {"adam_lr": 0.02, "muon_lr": 0.0, "warmup_steps": 0, "schedule": "constant"},
        }  # fmt: skip
        config = GRPOConfig.model_validate(nested({**settings, **changes}))
        seen = 0

        def grade(_: Grader, groups: Sequence[RolloutGroup]) -> None:
            nonlocal seen
            for group in groups:
                for rollout, accuracy in zip(group.rollouts, script(seen), strict=True):
                    rollout.rewards, rollout.reward = {"accuracy": accuracy, "format": 1.0}, accuracy + 1.0
                seen += 1

        monkeypatch.setattr(loop, "grade_reasoning", grade)
        context = make_context(f"r1-zero-{len(made)}", config, ("base",))
        model = load_pretrained(context.parent_model_folder())
        made.append(GRPOTrainer(config, model, base, context, generator))
        return made[-1]

    yield make
    for one in made:
        one.grader.close()
        one.context.logs.close()


def updates_of(trainer: GRPOTrainer) -> list[tuple[list[RolloutGroup], bool]]:
    """What the policy is going to be updated with: groups, and whether the policy has sampled them."""
    seen: list[tuple[list[RolloutGroup], bool]] = []
    update = trainer.policy.step

    def step(groups: Sequence[RolloutGroup], limit: int, on_policy: bool, last: bool) -> dict[str, Any]:
        seen.append((list(groups), on_policy))
        return update(groups, limit, on_policy, last)

    trainer.policy.step = step  # type: ignore[method-assign]
    return seen


def sampled(trainer: GRPOTrainer) -> list[list[RolloutGroup]]:
    """The groups that each step is going to sample, all rounds together."""
    seen: list[list[RolloutGroup]] = []
    rollouts = trainer._rollouts

    def sample(step: int) -> tuple[list[RolloutGroup], list[dict[str, Any]]]:
        groups, facts = rollouts(step)
        seen.append(groups)
        return groups, facts

    trainer._rollouts = sample  # type: ignore[method-assign]
    return seen


def numbers(found: Sequence[RolloutGroup], among: Sequence[RolloutGroup]) -> list[int]:
    """Which of the sampled groups these are; updates take them in a random order."""
    places = {id(group): number for number, group in enumerate(among)}
    return sorted(places[id(group)] for group in found)


def test_dynamic_sampling_fills_a_step_with_the_first_groups_that_carry_a_signal(make_trainer: MakeTrainer) -> None:
    script = [SILENT, MIXED, MIXED, SILENT, MIXED, MIXED, MIXED]
    trainer = make_trainer(lambda number: script[number], **{"sampling.dynamic_rounds": 4})
    everything, trained = sampled(trainer), updates_of(trainer)
    metrics = trainer.step(0)
    (groups,), ((kept, _),) = everything, trained
    assert len(groups) == 6, "two rounds are enough"
    assert numbers(kept, groups) == [1, 2, 4]
    assert all(len(group.rollouts) == 4 for group in kept), "whole groups, samples without advantage too"
    assert metrics["frac_reward_zero_std"] == pytest.approx(2 / 6), "of all that were sampled"


def test_dynamic_sampling_ends_with_its_rounds(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(lambda number: MIXED if number == 5 else SILENT, **{"sampling.dynamic_rounds": 2})
    everything, trained = sampled(trainer), updates_of(trainer)
    trainer.step(0)
    assert len(everything[0]) == 6 and numbers(trained[0][0], everything[0]) == [5]


def test_without_dynamic_sampling_silent_groups_count(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(lambda number: MIXED if number == 1 else SILENT)
    everything, trained = sampled(trainer), updates_of(trainer)
    trainer.step(0)
    assert numbers(trained[0][0], everything[0]) == [0, 1, 2]


def test_each_process_trains_its_part_of_the_groups_that_are_kept(make_trainer: MakeTrainer) -> None:
    """Two rounds of three in two processes: groups 0, 2, 3, 5 and 1, 4."""
    trainer = make_trainer(lambda number: MIXED, **{"sampling.dynamic_rounds": 2})
    groups, _ = trainer._rollouts(0)
    groups += trainer._rollouts(1)[0]
    facts = [{"rewards": rewards} for rewards in (SILENT, MIXED, MIXED, MIXED, MIXED, MIXED)]
    for rank, own, kept in ((0, [0, 2, 3, 5], [2, 3]), (1, [1, 4], [1])):
        object.__setattr__(trainer.context, "distributed", Distributed(rank, world_size=2))
        chosen = trainer._with_signal([groups[i] for i in own], facts)
        assert numbers(chosen, groups) == kept


@pytest.mark.parametrize(("normalize", "first"), [("together", 1.0), ("each", 3.0)])
def test_the_rubrics_weights_are_those_of_the_advantages(
    make_trainer: MakeTrainer, normalize: str, first: float
) -> None:
    """Two of four right, all well-formed: the sum is divided by its deviation, or accuracy is and then weighs 3."""
    settings = {"loss.normalize": normalize, "rubric.accuracy": 3.0, "steps": 1}
    trainer = make_trainer(lambda number: (1.0, 1.0, 0.0, 0.0), **settings)
    everything = sampled(trainer)
    trainer.step(0)
    for group in everything[0]:
        found = [one.advantage for one in group.rollouts]
        assert found == pytest.approx([first, first, -first, -first], rel=1e-4)


def test_each_problem_has_the_length_limit_of_its_level(make_trainer: MakeTrainer) -> None:
    """Eight tokens and four for each level, of both: what is allowed, and what the engine has room for."""
    asked: list[tuple[int, int]] = []

    class Recording(Engine):
        def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
            asked.extend((len(one.prompt_token_ids), one.sampling.max_completion_tokens) for one in requests)
            return super().generate(requests)

    settings = {"sampling.tokens_per_level": 4, "prompts.levels": (1, 2, 5), "prompts_per_step": 12}
    trainer = make_trainer(lambda number: MIXED, Recording, **settings)
    everything = sampled(trainer)
    metrics = trainer.step(0)
    expected = [8 + 4 * group.problem.level for group in everything[0]]
    assert len(set(expected)) == 3 and [limit for _, limit in asked] == expected
    lengths = {group.problem.level: max(len(one.completion_token_ids) for one in group.rollouts)
               for group in everything[0]}  # fmt: skip
    assert lengths == {1: 12, 2: 16, 5: 28}, "random weights seldom stop by themselves"
    assert metrics["max_completion_tokens"] == trainer.longest == 28
    assert trainer.generator.max_context == trainer.config.prompts.max_tokens + 28  # type: ignore[attr-defined]
    plan = describe_plan(trainer.config, trainer.model, 18, 1)
    assert "at most 28 tokens each (4 more for each level)" in plan


FORCING = {
    "style": "chat", "group_size": 8, "prompts_per_step": 6, "sampling.forced_share": 0.5,
    "sampling.lengths": [{"from_step": 0, "max_completion_tokens": 96}],
}  # fmt: skip
"""Long enough for random weights to end a thinking now and then, in the form in which the prompt begins it."""
EIGHT = (0.0, 1.0) * 4


@pytest.mark.parametrize("keep_routing", [False, True])
def test_some_prompts_completions_must_think_on(make_trainer: MakeTrainer, keep_routing: bool) -> None:
    """What the sampler says of the tokens around the forced ones, log-probabilities and experts, is the trainer's."""
    settings = FORCING | {"sampling.keep_routing": keep_routing, "loss.mtp_share": 0.5}
    trainer = make_trainer(lambda number: EIGHT, **settings)
    everything = sampled(trainer)
    metrics = trainer.step(0)
    (groups,) = everything
    forced = [one for group in groups for one in group.rollouts if one.forced]
    assert forced and any(not any(one.forced for one in group.rollouts) for group in groups)
    for one in forced:
        assert one.old_logprobs[one.forced.start : one.forced.stop] == (0.0,) * len(one.forced)
        assert len(one.old_logprobs) == len(one.completion_token_ids) <= 96
    trained = [one for group in groups for one in group.rollouts if one.advantage]
    assert metrics["tokens_trained"] == sum(one.sampled_tokens for one in trained)
    assert metrics["tokens_trained"] < sum(len(one.completion_token_ids) for one in trained)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-4
    assert metrics.get("sampling/routing_difference") == (0.0 if keep_routing else None)


def test_the_same_prompts_think_on_in_any_number_of_processes(make_trainer: MakeTrainer) -> None:
    class Alone(Distributed):
        def all_gather_object(self, value: Any) -> list[Any]:
            return [value] * self.world_size

    settings = FORCING | {"sampling.forced_share": 0.4}
    trainer = make_trainer(lambda number: EIGHT, **settings)

    def rollouts(rank: int, world_size: int) -> list[RolloutGroup]:
        object.__setattr__(trainer.context, "distributed", Alone(rank, world_size))
        return trainer._rollouts(0)[0]

    whole, first, second = rollouts(0, 1), rollouts(0, 2), rollouts(1, 2)
    forced = [[list(one.forced) for one in group.rollouts] for group in whole]
    assert 0 < sum(any(group) for group in forced) < 6
    assert [[list(one.forced) for one in group.rollouts] for group in first] == forced[::2]
    assert [[list(one.forced) for one in group.rollouts] for group in second] == forced[1::2]


def rows_of(trainer: GRPOTrainer) -> list[dict[str, Any]]:
    return list(read_jsonl(trainer.context.folder / "metrics.jsonl"))


def test_minibatches_are_several_updates_of_one_rollout(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(lambda number: MIXED, prompts_per_step=4, minibatches=2)
    everything, trained = sampled(trainer), updates_of(trainer)
    metrics = trainer.step(0)
    (first, at_first), (second, later) = trained
    assert len(first) == len(second) == 2
    assert numbers([*first, *second], everything[0]) == [0, 1, 2, 3]
    assert (at_first, later) == (True, False), "the second update's policy has not sampled its groups"
    assert trainer.update.optimizer.steps == 2
    with_advantage = [rollout for group in everything[0] for rollout in group.rollouts if rollout.advantage]
    assert metrics["tokens_trained"] == sum(len(rollout.completion_token_ids) for rollout in with_advantage)
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5, "measured before the first of them"


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_minibatches_of_a_policy_that_stands_still_have_the_ratio_1(
    make_trainer: MakeTrainer, temperature: float
) -> None:
    """The later ones compare with the sampler's log-probabilities: those at the temperature of sampling."""
    trainer = make_trainer(
        lambda number: MIXED,
        prompts_per_step=4,
        minibatches=2,
        **{"sampling.temperature": temperature, "optimizer.adam_lr": 1e-12},
        **{"loss.clip_low": 1e-4, "loss.clip_high": 1e-4},
    )
    metrics = trainer.step(0)
    assert trainer.update.optimizer.steps == 2
    assert metrics["clip_ratio/region_mean"] == 0.0
    assert metrics["sampling/sampling_logp_difference/max"] < 1e-5


class PerturbedServer(Engine):
    """Samples as the engine does, and reports log-probabilities that are off, as other numerics make them."""

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        return [
            [replace(one, logprobs=tuple(logprob - 0.2 for logprob in one.logprobs)) for one in samples]
            for samples in super().generate(requests)
        ]


@pytest.mark.parametrize("cap", [None, 0.0])
def test_where_servers_sample_what_they_disagree_about_is_corrected(
    make_trainer: MakeTrainer, cap: float | None
) -> None:
    """By default, at any temperature."""
    servers = {"urls": ["http://nowhere"], "folder": "shared"}
    settings = {"sampling.servers": servers, "sampling.temperature": 0.7, "loss.importance_cap": cap}
    trainer = make_trainer(lambda number: MIXED, PerturbedServer, **settings)
    assert trainer.config.loss.importance_cap == (2.0 if cap is None else 0.0)
    printed = changed_settings(trainer.config, None)["loss"]
    assert printed == {"importance_cap": 2.0 if cap is None else 0.0}, "said outright"
    metrics = trainer.step(0)
    ratio = metrics["sampling/importance_sampling_ratio/mean"]
    assert ratio == pytest.approx(math.exp(0.2) if cap is None else 1.0, abs=1e-4)
    assert metrics["sampling/sampling_logp_difference/mean"] == pytest.approx(0.2, abs=1e-4)


def test_the_built_in_engine_is_not_corrected() -> None:
    assert GRPOConfig().loss.importance_cap is None
    assert "loss" not in changed_settings(GRPOConfig(), None)


def with_other_routers(trainer: GRPOTrainer) -> GRPOTrainer:
    """A trainer whose routers are no longer quite those that sampled, as if its numerics differed."""
    update = trainer._updates

    def updates(step: int, groups: list[RolloutGroup]) -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for router in trainer.model.routers():
                router.weight += 0.1 * router.weight.std() * torch.randn(router.weight.shape, generator=generator)
        return update(step, groups)

    trainer._updates = updates  # type: ignore[method-assign]
    return trainer


def sampled_load(groups: Sequence[RolloutGroup], experts: int) -> list[list[int]]:
    """How many tokens the sampler sent to each expert, of what is trained on; [layers, experts]."""
    rows = [
        part
        for group in groups
        for part in (group.prompt_experts, *(one.experts for one in group.rollouts if one.advantage))
    ]
    every = np.concatenate([part for part in rows if part is not None])
    return [np.bincount(every[:, layer].ravel(), minlength=experts).tolist() for layer in range(every.shape[1])]


def test_kept_routing_computes_with_the_samplers_experts(make_trainer: MakeTrainer) -> None:
    settings = {"sampling.keep_routing": True, "optimizer.clip_norm": 1e9}
    trainer = with_other_routers(make_trainer(lambda number: MIXED, **settings))
    everything = sampled(trainer)
    metrics = trainer.step(0)
    assert 0.0 < metrics["sampling/routing_difference"] < 0.5
    expected, found = (np.array(load) for load in (sampled_load(everything[0], 4), metrics["expert_load"]))
    # The last token of a completion went through no layer of the sampler: two experts each of the trainer's choice.
    trained = sum(bool(one.advantage) for group in everything[0] for one in group.rollouts)
    assert (found >= expected).all() and (found - expected).sum(1).tolist() == [2 * trained] * len(found)
    gates = [router.weight.grad for router in list(trainer.model.routers())[: len(found)]]
    assert all(gradient is not None and gradient.abs().max() > 0 for gradient in gates)


def test_routing_is_compared_and_not_kept_by_default(make_trainer: MakeTrainer) -> None:
    """On the steps of held-out evaluations alone."""
    settings = {"held_out.every": 2, "held_out.problems_per_level": 1, "held_out.samples": 1, "steps": 3}
    trainer = make_trainer(lambda number: MIXED, **settings)
    everything = sampled(trainer)
    rows = [trainer.step(step) for step in range(3)]
    assert [row.get("sampling/routing_difference") for row in rows] == [0.0, None, 0.0], "the same weights"
    other = with_other_routers(make_trainer(lambda number: MIXED, **settings))
    everything = sampled(other)
    metrics = other.step(0)
    assert 0.0 < metrics["sampling/routing_difference"] < 0.5
    load = np.array(metrics["expert_load"]) - np.array(sampled_load(everything[0], 4))
    assert (load < 0).any(), "the trainer's own experts compute"


def test_a_run_goes_on_in_the_middle_of_its_window_and_its_warnings(make_trainer: MakeTrainer) -> None:
    """With everything that lets thinking grow: the same metrics and the same weights as without the break."""
    settings = FORCING | {
        "steps": 4, "sampling.forced_share": 0.6, "sampling.tokens_per_level": 8, "loss.normalize": "each",
        "prompts.curriculum": {"start_levels": 1, "easy_share": 0.3, "open_at": 0.1, "memory": 0.0},
        "prompts.families": ("sums", "cups"),
    }  # fmt: skip
    whole = make_trainer(lambda number: EIGHT, **settings)
    rows = [whole.step(step) for step in range(4)]
    assert rows[-1]["curriculum/top/sums"] + rows[-1]["curriculum/top/cups"] > 2
    assert whole.warnings.state()["said"] == ["cut"], "random weights hardly ever end"
    begun, resumed = (make_trainer(lambda number: EIGHT, **settings) for _ in range(2))
    for trainer in (begun, resumed):
        object.__setattr__(trainer.context, "name", whole.context.name)  # the same problems and samples
    assert [begun.step(step) for step in range(2)] == rows[:2]
    tensors, state = begun.state()
    resumed.load_state({name: tensor.clone() for name, tensor in tensors.items()}, json.loads(json.dumps(state)))
    said: list[str] = []
    object.__setattr__(resumed.context.progress, "notify", said.append)
    assert [resumed.step(step) for step in range(2, 4)] == rows[2:]
    assert not [words for words in said if "length limit" in words]
    assert resumed.curriculum.state() == whole.curriculum.state()
    assert resumed.warnings.state() == whole.warnings.state()
    final = whole.model.state_dict()
    assert all(torch.equal(final[name], tensor) for name, tensor in resumed.model.state_dict().items())


def test_servers_cannot_say_which_experts_they_chose() -> None:
    servers = {"urls": ["http://nowhere"], "folder": "shared"}
    with pytest.raises(ConfigError, match=r"sampling: keep_routing: servers do not say"):
        build_config(GRPOConfig, {"sampling": {"keep_routing": True, "servers": servers}})


@pytest.mark.parametrize("every", [0, 2])
def test_the_reference_becomes_the_policy(make_trainer: MakeTrainer, every: int) -> None:
    trainer = make_trainer(lambda number: MIXED, steps=5, **{"loss.kl_beta": 0.01, "loss.reference_reset_steps": every})
    trainer.train()
    near = [row["kl"] < 1e-7 for row in rows_of(trainer)]
    assert near == ([True, False, True, False, True] if every else [True, False, False, False, False])


def test_models_are_kept_on_the_way(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(lambda number: MIXED, steps=4, keep_every=2)
    trainer.train()
    trainer.save(trainer.context.model_folder)
    assert [path.name for path in trainer.context.folder.glob("model-*")] == ["model-step-00002"], "the last is `model`"
    two_steps = make_trainer(lambda number: MIXED, steps=2)
    object.__setattr__(two_steps.context, "name", trainer.context.name)  # the same problems and samples
    two_steps.train()
    kept = load_pretrained(trainer.context.folder / "model-step-00002").state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in two_steps.model.state_dict().items())
    final = load_pretrained(trainer.context.model_folder).state_dict()
    assert not all(torch.equal(kept[name], tensor) for name, tensor in final.items())


def test_tokens_are_counted_over_steps_each_completion_with_its_prompt(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer(lambda number: MIXED, steps=2)
    everything = sampled(trainer)
    trainer.train()
    tokens = [
        sum(len(group.prompt_token_ids) + len(one.completion_token_ids) for group in groups for one in group.rollouts)
        for groups in everything
    ]
    assert [row["num_tokens"] for row in rows_of(trainer)] == [tokens[0], sum(tokens)]


def test_a_base_that_finds_nothing_is_told_before_the_first_step(make_trainer: MakeTrainer) -> None:
    """Of two problems one is solved, by one of four samples."""
    script = [(1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 0.0)]
    settings = {"steps": 1, "preflight.prompts": 2}
    trainer = make_trainer(lambda number: script[number], **settings, **{"preflight.floor": 0.51})
    with pytest.raises(NothingToLearnError, match=r"the base solves 12\.5% when it thinks and 50\.0% within 4 tries"):
        trainer.train()
    assert rows_of(trainer) == [
        {"stage": "r1-zero-0", "step": -1, "preflight/pass_at_1": 0.125, "preflight/pass_at_group": 0.5}
    ]
    trainer = make_trainer(
        lambda number: [*script, MIXED, MIXED, MIXED][number], **settings, **{"preflight.floor": 0.5}
    )
    trainer.train()
    assert [row["step"] for row in rows_of(trainer)] == [-1, 0]


def test_before_the_first_step_the_answers_are_judged(
    make_trainer: MakeTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three problems, four samples each, of a model that has never seen a tag: no answer has the form."""
    said: list[str] = []
    trainer = make_trainer(lambda number: MIXED, **{"preflight.prompts": 3})
    monkeypatch.setattr(trainer.context.progress, "notify", said.append)
    trainer.train()
    (look,) = (words for words in said if words.startswith("a first look"))
    assert "0% of 12 answers are long (none), 0% short (none; a guess" in look
    assert "thinking will not grow, since long answers are 0.0% of all (2% is needed)" in look
    assert rows_of(trainer)[0].keys() == {"stage", "step", "preflight/pass_at_1", "preflight/pass_at_group"}


def test_patience_ends_with_the_reason(make_trainer: MakeTrainer) -> None:
    """Half of the groups are right and half are wrong, each as a whole; one signal in between starts anew."""
    right, wrong = (1.0,) * 4, (0.0,) * 4
    script = {5: MIXED}
    trainer = make_trainer(
        lambda number: script.get(number, (right, wrong)[number % 2]), steps=9, prompts_per_step=2, patience=3
    )
    reason = r"3 steps in a row without any signal: every group's rewards agree \(accuracy 50\.0%, form 100\.0%\)"
    with pytest.raises(NothingToLearnError, match=reason):
        trainer.train()
    assert len(rows_of(trainer)) == 5, "silent in steps 0 and 1, not in 2, silent in 3 and 4; 5 is one too many"
