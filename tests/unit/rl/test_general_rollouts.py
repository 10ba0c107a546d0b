"""General prompts in a step: judged by reward models, watched by the world's own score, out of the curriculum's way."""

import random
from collections.abc import Sequence

import pytest

from aha.rewards.preference import CalibratedScorer, PreferenceReward
from aha.rewards.rubric import RubricConfig
from aha.rl.config import GeneralConfig, GRPOConfig
from aha.rl.held_out import HeldOut
from aha.rl.metrics import cell_accuracy, group_facts, step_metrics
from aha.rl.prompts import SUITE_SEED, GeneratedPrompts
from aha.rl.rollout import assign_advantages, general_weights, grade_general
from aha.rl.trainer import stratified
from aha.tasks.families import get_family, get_general, held_out_suite
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle, StrictStyleName
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer
from aha.types import FinishReason, Problem, Rollout, RolloutGroup

from ..conftest import MakeContext, nested
from ..generators import Replies


class ByLength:
    """A reward model that likes long answers: anything that can be hacked will do."""

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        return [float(len(sequence)) for sequence in sequences]


@pytest.fixture
def preference() -> PreferenceReward:
    tokenizer = Tokenizer.train(["The capital of Norland is Windport."] * 5, 300, CHAT_TEMPLATE)
    scorer = CalibratedScorer(ByLength(), 60.0, 20.0)
    return PreferenceReward(tokenizer, {"helpful": scorer, "harmless": scorer})


def group(*summaries: str, finish: FinishReason = FinishReason.STOP) -> RolloutGroup:
    made = RolloutGroup(get_general("facts").sample(random.Random(0), 1, "en"), (1, 2))
    for summary in summaries:
        text = f"<think>\nthe capital\n</think>\n\n{summary}"
        made.rollouts.append(Rollout((5,) * 7, (0.0,) * 7, finish, text))
    return made


def test_the_reward_is_preference_and_form_and_language_and_never_the_truth(preference: PreferenceReward) -> None:
    facts = get_general("facts")
    right = group("x").problem
    best = facts.respond(right, random.Random(0))
    groups = [group(best, "Norland is good. " * 12, ""), group(best, finish=FinishReason.LENGTH)]
    grade_general(preference, groups, RubricConfig(language=1.0), weight=2.0, answer_tags=False)
    truly, hacked, empty = groups[0].rollouts
    assert truly.rewards["true_score"] == 1.0
    assert hacked.rewards["true_score"] == 0.0
    assert hacked.rewards["preference"] > truly.rewards["preference"]
    for rollout in (truly, hacked):
        expected = 2.0 * rollout.rewards["preference"] + rollout.rewards["format"] + rollout.rewards["language"]
        assert rollout.reward == pytest.approx(expected)
    assert empty.reward == 0.0
    assert groups[1].rollouts[0].reward == 0.0, "a truncated answer has no form and is not judged"


def test_metrics_keep_reasoning_and_the_rest_apart(preference: PreferenceReward) -> None:
    general = group("The capital of Norland is Windport.", "no")
    grade_general(preference, [general], RubricConfig(), weight=1.0, answer_tags=False)
    reasoning = RolloutGroup(get_family("sums").sample(random.Random(0), 2, "en"), (1,))
    for reward in (2.0, 1.0):
        rewards = {"accuracy": reward - 1.0, "format": 1.0}
        reasoning.rollouts.append(Rollout((5,) * 9, (0.0,) * 9, FinishReason.STOP, "", rewards, reward))
    facts = [group_facts(reasoning), group_facts(general)]
    metrics = step_metrics(facts)
    assert metrics["completions/mean_length_right"] == metrics["completions/mean_length_wrong"] == 9.0
    assert metrics["accuracy_well_formed"] == 0.5
    assert metrics["completions/mean_length"] == 8.0
    assert 0.0 < metrics["rewards/preference/mean"] < 1.0
    assert cell_accuracy(facts) == [("sums", 2, 0.5)]
    assign_advantages([reasoning, general], divide_by_std=True)
    assert reasoning.rollouts[0].advantage == pytest.approx(1.0, abs=1e-3)


def test_rewards_of_both_sorts_normalised_one_by_one() -> None:
    """Each sort with its own weights; a sample without a verdict is no part of its group."""
    general, rubric = group("a", "b"), RubricConfig(accuracy=3.0, format=0.0)
    preferred = ((0.9, 1.0), (0.1, 0.0))
    for rollout, (preference, language) in zip(general.rollouts, preferred, strict=True):
        rollout.rewards = {"preference": preference, "format": 1.0, "language": language, "true_score": 1.0 - language}
        rollout.reward = 1.0
    reasoning = RolloutGroup(get_family("sums").sample(random.Random(0), 2, "en"), (1,))
    for accuracy, form in ((1.0, 0.0), (0.0, 1.0), (None, None)):
        rewards = {} if accuracy is None else {"accuracy": accuracy, "format": form}
        reward = None if accuracy is None else 1.0
        reasoning.rollouts.append(Rollout((5,), (0.0,), FinishReason.STOP, "", rewards, reward))

    def weights_of(problem: Problem) -> dict[str, float]:
        return rubric.weights() if problem.family == "sums" else general_weights(RubricConfig(language=0.5), 2.0)

    assign_advantages([reasoning, general], True, weights_of)
    assert [one.advantage for one in general.rollouts] == pytest.approx([2.5, -2.5], rel=1e-3)
    assert [one.advantage for one in reasoning.rollouts] == pytest.approx([3.0, -3.0, 0.0], rel=1e-3)
    assign_advantages([reasoning, general], True)
    assert [one.advantage for one in (*general.rollouts, *reasoning.rollouts)] == [0.0] * 5, "their sums agree"


def test_both_reward_models_are_needed() -> None:
    with pytest.raises(ValueError, match="both reward models"):
        GeneralConfig(helpful="helpful-rm")
    with pytest.raises(ValueError, match="did you mean 'facts'"):
        GeneralConfig(families=("fact",), helpful="a", harmless="b")


def test_general_prompts_that_would_come_after_the_end_are_refused() -> None:
    late = GeneralConfig(from_step=30, helpful="a", harmless="b")
    assert GRPOConfig(steps=31, general=late).general == late
    with pytest.raises(ValueError, match="from_step = 30 with steps = 30"):
        GRPOConfig(steps=30, general=late)


@pytest.mark.parametrize(("style", "begin"), [("zero", "<think>so</think>\n"), ("chat", "so\n</think>\n\n")])
def test_held_out_answers_reach_the_reward_models_in_either_form(
    style: StrictStyleName, begin: str, make_context: MakeContext, base: Tokenizer, preference: PreferenceReward
) -> None:
    """Under R1-Zero's template the completion brings its own think tag, in the chat format the prompt has it."""
    general = GeneralConfig(families=("facts",), helpful="h", harmless="s", eval_per_level=2, eval_samples=2)
    config = GRPOConfig(
        style=style,
        general=general,
        **nested({"prompts.families": ("boxes",), "held_out.levels": (1,), "held_out.problems_per_level": 1}),
    )
    asked = [*held_out_suite(["facts"], (1, 2, 3), 2, SUITE_SEED), *GeneratedPrompts(config).held_out()]

    def reply(problem: Problem, rng: random.Random) -> str:
        answer = "the answer " * 20
        return begin + (f"<answer>{answer}</answer>" if style == "zero" else answer)

    context = make_context("r1", config, ())
    generator = Replies(base, asked, reply)
    asker = Asker(generator, base, PromptStyle.named(style))
    row, _ = HeldOut(config, asker, context, preference, GeneratedPrompts(config)).measure()
    assert row["evaluation_general"]["preference"] > 0.9


def test_a_few_rollouts_show_both_sorts() -> None:
    general = [group("a"), group("b")]
    reasoning = [RolloutGroup(get_family("boxes").sample(random.Random(i), 1, "en"), (1,)) for i in range(3)]
    assert stratified([*reasoning, *general], 2) == [reasoning[0], general[0]]
    assert stratified([*reasoning, *general], 9) == [reasoning[0], general[0], reasoning[1], general[1], reasoning[2]]
    assert stratified(reasoning, 2) == reasoning[:2]
    assert stratified(general, 0) == []
