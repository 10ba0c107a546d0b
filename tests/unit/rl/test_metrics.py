"""What a step reports, and how silence is explained."""

import math
import random
import statistics
from dataclasses import replace

import pytest

from aha.rl.config import GeneralConfig, GRPOConfig, LengthStage
from aha.rl.held_out import becomes_well_formed
from aha.rl.metrics import (
    answers_of,
    cell_accuracy,
    first_look,
    group_facts,
    no_signal_verdict,
    over_updates,
    step_metrics,
)
from aha.tasks.families import GENERAL, get_family
from aha.types import FinishReason, Rollout, RolloutGroup

from ..conftest import nested


def group(*rows: tuple[float | None, float, float, int]) -> RolloutGroup:
    problem = get_family("sums").sample(random.Random(0), 2, "en")
    made = RolloutGroup(problem, (1, 2, 3))
    for reward, accuracy, form, length in rows:
        rewards = {} if reward is None else {"accuracy": accuracy, "format": form}
        made.rollouts.append(Rollout((5,) * length, (0.0,) * length, FinishReason.STOP, "", rewards, reward))
    return made


def test_metrics_of_a_step() -> None:
    facts = [
        group_facts(group((2.0, 1.0, 1.0, 10), (1.0, 0.0, 1.0, 20), (0.0, 0.0, 0.0, 30), (None, 0.0, 0.0, 5))),
        group_facts(group((2.0, 1.0, 1.0, 40), (2.0, 1.0, 1.0, 40))),
    ]
    metrics = step_metrics(facts)
    assert metrics["reward"] == pytest.approx(7 / 5)
    assert metrics["reward_std"] == pytest.approx(statistics.stdev([2.0, 1.0, 0.0, 2.0, 2.0]))
    assert metrics["reward_std_in_groups"] == pytest.approx((statistics.pstdev([2.0, 1.0, 0.0]) + 0.0) / 2)
    assert metrics["rewards/accuracy/std"] == pytest.approx(statistics.stdev([1.0, 0.0, 0.0, 1.0, 1.0]))
    assert metrics["frac_reward_zero_std"] == 0.5
    assert metrics["completions/dropped"] == 1
    assert metrics["completions/mean_length"] == pytest.approx(28)
    assert metrics["completions/mean_length_right"] == pytest.approx(30)
    assert metrics["completions/mean_length_wrong"] == pytest.approx(20)
    assert metrics["accuracy_well_formed"] == pytest.approx(3 / 4)
    assert cell_accuracy(facts) == [("sums", 2, pytest.approx(1 / 3)), ("sums", 2, 1.0)]


def test_a_first_look_at_answers() -> None:
    """Ten graded answers: four long and right, five guesses of which one is right, and one without form."""
    sums = group(*[(1.0, 1.0, 1.0, 9)] * 4, *[(1.0, float(not n), 1.0, 9) for n in range(5)], (0.0, 0.0, 0.0, 9),
                 (None, 0.0, 0.0, 9))  # fmt: skip
    problem = sums.problem
    worked = "".join(get_family("sums").solve(problem, random.Random(0), "long", "en").thinking)
    for number, rollout in enumerate(sums.rollouts):
        thinking = worked if number < 4 else "Guess 3"
        rollout.text = f"<think>\n{thinking}\n</think>\n<answer>3</answer>" if number != 9 else "3"
    found = answers_of(sums, answer_tags=True)["answers"]
    assert [one["kind"] for one in found] == ["long"] * 4 + ["short"] * 5 + ["malformed"]
    assert [one["correct"] for one in found] == [True] * 5 + [False] * 5
    said = first_look(found)
    assert said.startswith(
        "a first look (`aha probe` looks closer): 40% of 10 answers are long (100% right), 50% short"
    )
    assert "(20% right; a guess 10%): thinking may grow" in said
    assert first_look(found[:9]) == ""
    sums.rollouts[0].finish_reason = FinishReason.LENGTH
    assert answers_of(sums, answer_tags=True)["answers"][0]["kind"] == "malformed"


def test_other_problems_have_no_first_look() -> None:
    made = group((1.0, 1.0, 1.0, 9))
    made.problem = replace(made.problem, family="gsm8k")
    assert answers_of(made, answer_tags=True) == {"answers": []}


def test_what_thinkings_say_about_themselves() -> None:
    """Of two groups; well-formed are four of five, right are two."""
    first, second = group((2.0, 1.0, 1.0, 9), (1.0, 0.0, 1.0, 9), (0.0, 0.0, 0.0, 9)), group((2.0, 1.0, 1.0, 9))
    second.rollouts += group((1.0, 0.0, 1.0, 9), (None, 0.0, 0.0, 9)).rollouts
    names = ("right_attempts", "right_rejected", "wrong_attempts", "wrong_accepted", "gives_up")
    counts = [(3, 1, 0, 0, 0), (0, 0, 2, 1, 1), (), (1, 0, 0, 0, 0), (0, 0, 2, 2, 0), (9, 9, 9, 9, 1)]
    rollouts = [*first.rollouts, *second.rollouts]
    for number, (rollout, own) in enumerate(zip(rollouts, counts, strict=True)):
        rollout.reflection, rollout.thinking_tokens = dict(zip(names, own, strict=False)), 10 * number
    metrics = step_metrics([group_facts(first), group_facts(second)])
    assert metrics["completions/mean_thinking_tokens"] == (0 + 10 + 30 + 40) / 4
    assert metrics["giving_up"] == 1 / 4
    assert metrics["repairs"] == 1 / 2, "the wrong answer that rejected an attempt is no repair"
    assert metrics["verdicts/count"] == 8
    assert metrics["verdicts/rejects_right"] == 1 / 4 and metrics["verdicts/accepts_wrong"] == 3 / 4
    without = step_metrics([group_facts(group((2.0, 1.0, 1.0, 9)))])
    assert not any(name.startswith("verdicts") for name in without) and without["repairs"] == 0.0


def test_tokens_sampled_are_those_of_all_samples_each_with_its_prompt() -> None:
    facts = group_facts(group((2.0, 1.0, 1.0, 10), (None, 0.0, 0.0, 5)))
    assert facts["tokens"] == 3 + 10 + 3 + 5


def test_one_reward_has_no_deviation() -> None:
    metrics = step_metrics([group_facts(group((2.0, 1.0, 1.0, 10)))])
    assert math.isnan(metrics["reward_std"]) and math.isnan(metrics["rewards/accuracy/std"])


def test_figures_of_several_updates() -> None:
    first = {"loss": 1.0, "tokens_trained": 10.0, "expert_load": [[1, 2], [3, 0]], "sampling/max": 0.5}
    later = {"loss": 2.0, "tokens_trained": 30.0, "expert_load": [[4, 5], [1, 8]]}
    step = over_updates([first, later])
    assert step == {"loss": 1.5, "tokens_trained": 40.0, "expert_load": [[5, 7], [4, 8]], "sampling/max": 0.5}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([(0.0, 0.0, 0.0, 3)] * 4, "no completion has the required form"),
        ([(1.0, 0.0, 1.0, 3)] * 4, "almost nothing is right"),
        ([(2.0, 1.0, 1.0, 3)] * 4, "everything is solved"),
        ([(None, 0.0, 0.0, 3)] * 4, "no completion could be graded"),
    ],
)
def test_silence_has_a_plain_reason(rows: list[tuple[float | None, float, float, int]], words: str) -> None:
    assert words in no_signal_verdict([group_facts(group(*rows))])


def test_the_length_schedule_jumps() -> None:
    config = GRPOConfig(
        **nested(
            {
                "sampling.lengths": (
                    LengthStage(from_step=0, max_completion_tokens=64),
                    LengthStage(from_step=10, max_completion_tokens=128),
                )
            }
        )
    )
    assert [config.sampling.max_completion_tokens(step, 3) for step in (0, 9, 10, 99)] == [64, 64, 128, 128]
    assert config.longest == 128
    with pytest.raises(ValueError, match="first stage must start at step 0"):
        GRPOConfig(**nested({"sampling.lengths": (LengthStage(from_step=5, max_completion_tokens=64),)}))
    unsorted = [LengthStage(from_step=step, max_completion_tokens=64) for step in (0, 20, 10)]
    with pytest.raises(ValueError, match="expected each after the one before it"):
        GRPOConfig(**nested({"sampling.lengths": tuple(unsorted)}))


def test_the_length_limit_grows_with_the_level() -> None:
    lengths = [{"from_step": 0, "max_completion_tokens": 96}, {"from_step": 10, "max_completion_tokens": 40}]
    settings = {"sampling.lengths": lengths, "sampling.tokens_per_level": 24, "prompts.levels": (2, 6)}
    config = GRPOConfig.model_validate(nested(settings))
    limit = config.sampling.max_completion_tokens
    assert [limit(0, 2), limit(9, 6), limit(10, 2), limit(10, 6)] == [144, 240, 88, 184]
    assert config.longest == 96 + 24 * 6
    general = GeneralConfig(helpful="h", harmless="s")
    most = max(level for family in GENERAL.values() for level in family.levels)
    with_general = config.changed(general=general, prompts=config.prompts.changed(levels=(1,)))
    assert most > 1 and with_general.longest == 96 + 24 * most, "general prompts have levels as well"


@pytest.mark.parametrize(
    ("shares", "steps"),
    [([0.4, 0.8, 0.9, 0.7, 0.95], [2]), ([0.95, 0.8, 0.95], []), ([None, 0.5, None, 1.0], [3]), ([0.1, 0.2], [])],
)
def test_the_step_at_which_answers_become_well_formed(shares: list[float | None], steps: list[int]) -> None:
    state: bool | None = None
    found = []
    for step, share in enumerate(shares):
        state, changed = becomes_well_formed(state, share)
        found += [step] if changed else []
    assert found == steps
