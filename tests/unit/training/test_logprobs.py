"""Log-probabilities in tiles: values, entropies and gradients of the plain computation."""

import pytest
import torch

from aha.training import logprobs
from aha.training.logprobs import chunked_logprobs

torch.set_num_threads(1)


@pytest.mark.parametrize("tokens", [1, 16, 77])
def test_values_and_gradients(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "TILE_BYTES", 1)
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    targets, upstream = torch.randint(0, 30, (tokens,)), torch.randn(tokens, dtype=torch.float64)
    found, entropy = chunked_logprobs(hidden, weight, targets)
    plain = (hidden @ weight.t()).log_softmax(-1)
    expected = plain.gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(entropy, -(plain.exp() * plain).sum(-1))
    assert not entropy.requires_grad
    a = torch.autograd.grad(found, [hidden, weight], upstream)
    b = torch.autograd.grad(expected, [hidden, weight], upstream)
    torch.testing.assert_close(a, b)


def test_entropy_is_optional() -> None:
    _, entropy = chunked_logprobs(torch.randn(3, 4), torch.randn(5, 4), torch.tensor([0, 1, 2]), entropy=False)
    assert entropy.numel() == 0
