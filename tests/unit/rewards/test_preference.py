"""Preference rewards: bounded, each prompt judged by the reward model of its set, on what that may see."""

import math
import random
from collections.abc import Sequence

import pytest

from aha.rewards.preference import CalibratedScorer, PreferenceReward, judged_token_ids, preference_of
from aha.tasks.families import get_general
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import THINK, Tokenizer


class Fixed:
    """A scorer that remembers what it was asked and gives one score."""

    def __init__(self, score: float) -> None:
        self.value, self.seen = score, list[list[int]]()

    def score(self, sequences: Sequence[Sequence[int]]) -> list[float]:
        self.seen += [list(sequence) for sequence in sequences]
        return [self.value] * len(sequences)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["How do I bake bread? To bake bread: mix, shape, heat."] * 5, 300, CHAT_TEMPLATE)


def test_each_set_has_its_judge(tokenizer: Tokenizer) -> None:
    rng = random.Random(0)
    requests = get_general("requests")
    harmless, harmful = (requests.sample(rng, level, "en") for level in requests.levels)
    fact = get_general("facts").sample(rng, 1, "en")
    assert [preference_of(p) for p in (harmless, harmful, fact)] == ["helpful", "harmless", "helpful"]
    kind, safe = Fixed(3.0), Fixed(-1.0)
    reward = PreferenceReward(
        tokenizer, {"helpful": CalibratedScorer(kind, 1.0, 2.0), "harmless": CalibratedScorer(safe, -1.0, 1.0)}
    )
    results = reward.rewards([(harmless, "r", "a"), (harmful, "r", "b"), (fact, "r", "c"), (fact, "r", "")])
    assert results == pytest.approx([1 / (1 + math.exp(-1.0)), 0.5, 1 / (1 + math.exp(-1.0)), 0.0])
    assert (len(kind.seen), len(safe.seen)) == (2, 1), "an empty response is not even asked about"


def test_helpfulness_is_judged_on_the_summary_alone(tokenizer: Tokenizer) -> None:
    think = tokenizer.control_id(THINK)
    assert think not in judged_token_ids(tokenizer, "helpful", "q", "secret plan", "answer")
    assert think in judged_token_ids(tokenizer, "harmless", "q", "secret plan", "answer")


@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_number_gives_no_verdict(tokenizer: Tokenizer, score: float) -> None:
    fact = get_general("facts").sample(random.Random(0), 1, "en")
    reward = PreferenceReward(tokenizer, {"helpful": CalibratedScorer(Fixed(score), 0.0, 1.0)})
    assert reward.rewards([(fact, "r", "c")]) == [None]


@pytest.mark.parametrize("score", [-1e9, -800.0, 0.0, 800.0, 1e9])
def test_rewards_are_bounded(score: float) -> None:
    (value,) = CalibratedScorer(Fixed(score), 0.0, 1.0).rewards([[1]])
    assert value is not None
    assert 0.0 <= value <= 1.0
