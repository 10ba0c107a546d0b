"""Log-probabilities in tiles: values, entropies and gradients of the plain computation."""

import pytest
import torch

from aha.training import logprobs
from aha.training.logprobs import chunked_logprobs

torch.set_num_threads(1)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tokens", [1, 16, 77])
def test_values_and_gradients(tokens: int, temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "CPU_TILE_BYTES", 1)
    torch.manual_seed(0)
    hidden = torch.randn(tokens, 8, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(30, 8, dtype=torch.float64, requires_grad=True)
    targets, upstream = torch.randint(0, 30, (tokens,)), torch.randn(tokens, dtype=torch.float64)
    found, entropy = chunked_logprobs(hidden, weight, targets, temperature=temperature)
    plain = (hidden @ weight.t() / temperature).log_softmax(-1)
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


def gradient_error(tiles: int, monkeypatch: pytest.MonkeyPatch) -> float:
    """Relative error of the head's gradient in bfloat16, computed in so many tiles."""
    tokens, vocabulary = 2048, 64
    monkeypatch.setattr(logprobs, "CPU_TILE_BYTES", 4 * vocabulary * (tokens // tiles))
    torch.manual_seed(0)
    hidden, weight = torch.randn(tokens, 32).bfloat16(), (0.3 * torch.randn(vocabulary, 32)).bfloat16()
    targets, upstream = torch.randint(0, vocabulary, (tokens,)), torch.rand(tokens)
    gradients = []
    for dtype in (torch.bfloat16, torch.float64):
        leaf = weight.to(dtype).requires_grad_(True)
        found, _ = chunked_logprobs(hidden.to(dtype), leaf, targets)
        gradients.append(torch.autograd.grad(found, leaf, upstream.to(found.dtype))[0].double())
    narrow, exact = gradients
    return float((narrow - exact).norm() / exact.norm())


def test_the_heads_gradient_in_bfloat16_does_not_get_worse_with_the_number_of_tiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert gradient_error(128, monkeypatch) < 1.2 * gradient_error(1, monkeypatch)


def test_a_policy_in_bfloat16_is_the_one_that_samples_at_any_temperature() -> None:
    """The sampler divides float32 logits; dividing bfloat16 hidden states instead is off by several percent."""
    torch.manual_seed(0)
    hidden, weight = torch.randn(50, 32).bfloat16(), torch.randn(40, 32).bfloat16()
    targets = torch.randint(0, 40, (50,))
    found, _ = chunked_logprobs(hidden, weight, targets, temperature=0.7)
    logits = (hidden @ weight.t()).float() / 0.7
    torch.testing.assert_close(found, logits.log_softmax(-1).gather(1, targets[:, None])[:, 0], atol=1e-5, rtol=1e-5)
