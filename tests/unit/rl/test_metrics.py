"""What a step reports, and how silence is explained."""

import math
import random
import statistics

import pytest

from aha.rl.config import GeneralConfig, GRPOConfig, LengthStage
from aha.rl.held_out import becomes_well_formed
from aha.rl.metrics import cell_accuracy, group_facts, no_signal_verdict, over_updates, step_metrics
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
