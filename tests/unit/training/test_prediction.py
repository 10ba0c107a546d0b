"""Prediction modules beside a model: on which tokens they learn, and that nothing else feels it."""

from __future__ import annotations

import pytest
import torch

from aha.models.config.presets import preset
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import PromptGroup, Ragged, SharedPrefix
from aha.training.prediction import Predicted, evenly_spread, prediction_loss, whole_sequences

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 48, "moe_intermediate_size": 24}
PROMPT, COMPLETIONS = [5, 6, 7, 8], [[9, 10, 11], [12, 13, 14, 15, 16]]


@pytest.fixture(scope="module")
def model() -> DeepseekV3:
    config = preset("tiny", vocab_size=64, num_nextn_predict_layers=2, n_routed_experts=4, **SMALL)
    return DeepseekV3(config).init_weights(torch.Generator().manual_seed(0))


def foretold(model: DeepseekV3, completion: list[int]) -> torch.Tensor:
    """The loss of one completion by hand: module k at position i against token i + k + 1."""
    ids = torch.tensor(PROMPT + completion)
    layout = Ragged([len(ids)])
    total = torch.zeros(())
    for depth, output in enumerate(model.mtp_hidden(model(ids, layout), ids, layout), start=1):
        logprobs = model.logits(output.hidden_ND).log_softmax(-1)
        for target in range(len(PROMPT), len(ids)):
            total = total - logprobs[target - depth - 1, ids[target]]
    return total / 2


@pytest.mark.parametrize("chosen", [[0], [1], [0, 1]])
def test_the_loss_is_that_of_the_chosen_completions(model: DeepseekV3, chosen: list[int]) -> None:
    ids = torch.tensor(PROMPT + COMPLETIONS[0] + COMPLETIONS[1])
    layout = SharedPrefix([PromptGroup(4, [3, 5])])
    trained = torch.zeros(len(ids), dtype=torch.bool)
    trained[layout.completion_N] = True
    loss = prediction_loss(model, model(ids, layout), ids, layout, trained, chosen)
    expected = sum(foretold(model, COMPLETIONS[number]) for number in chosen)
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chosen", [[1], []])
def test_only_the_modules_get_gradients(model: DeepseekV3, chosen: list[int]) -> None:
    """All of them, where nothing is chosen too: zeros, beside other processes."""
    model.zero_grad()
    ids, layout = torch.tensor(PROMPT * 3), Ragged([4, 4, 4])
    prediction_loss(model, model(ids, layout), ids, layout, torch.ones(12, dtype=torch.bool), chosen).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == name.startswith("mtp."), name
    moved = sum(float(parameter.grad.abs().sum()) for parameter in model.parameters() if parameter.grad is not None)
    assert (moved > 0) == bool(chosen)


def test_sequences_have_their_prompts() -> None:
    layout = SharedPrefix([PromptGroup(2, [1, 2]), PromptGroup(1, [1])])
    assert [one.tolist() for one in whole_sequences(layout)] == [[0, 1, 2], [0, 1, 3, 4], [5, 6]]
    assert [one.tolist() for one in whole_sequences(Ragged([2, 1]))] == [[0, 1], [2]]


def test_a_share_is_spread_evenly() -> None:
    assert [*evenly_spread(16, 0.25)] == [2, 6, 10, 14]
    assert [*evenly_spread(2, 0.25)] == [1] and [*evenly_spread(1, 0.01)] == [0] and not evenly_spread(0, 0.5)
    assert [*evenly_spread(3, 1.0)] == [0, 1, 2]


def test_parts_of_a_batch_know_their_chosen_ones() -> None:
    one, two, three = [1], [1], [3]
    assert Predicted(frozenset(map(id, (two, three))), 2).among([three, one, two]) == [0, 2]
