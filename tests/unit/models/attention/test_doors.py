"""The backends of other devices, as far as a CPU can tell: with a stand-in for the kernel, and by shape."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from aha.models.attention import varlen
from aha.models.attention.padded import attend_padded
from aha.models.config.presets import preset
from aha.models.layouts import Layout, PromptGroup, Ragged, Rectangle, SharedPrefix
from aha.models.model_from_config import build

GROUPS = [PromptGroup(5, [3, 7, 7, 1]), PromptGroup(1, [2]), PromptGroup(12, [40, 4])]
LAYOUTS = [Rectangle(3, 6), Ragged([4, 1, 9, 9]), SharedPrefix(GROUPS)]


def kernel(
    q: Tensor, k: Tensor, v: Tensor, ends: Tensor, key_ends: Tensor, longest: int, longest_keys: int, **how: object
) -> Tensor:
    """What `varlen_attn` documents, sequence by sequence: the causal mask ends where queries and keys end."""
    assert q.shape[-1] == k.shape[-1] == v.shape[-1] and q.shape[-1] % 8 == 0
    assert how["window_size"] == (-1, 0) and how["enable_gqa"] == (q.shape[1] != k.shape[1])
    assert (longest, longest_keys) == (int(ends.diff().max()), int(key_ends.diff().max()))
    assert ends.dtype == key_ends.dtype == torch.int32
    outs = []
    for i in range(len(ends) - 1):
        one = q[ends[i] : ends[i + 1]]
        keys, values = (x[key_ends[i] : key_ends[i + 1]].repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
        scores = torch.einsum("qhk,thk->hqt", one, keys) * how["scale"]
        seen = torch.ones(len(one), len(keys), dtype=torch.bool).tril(len(keys) - len(one))
        outs.append(torch.einsum("hqt,thv->qhv", scores.masked_fill(~seen, float("-inf")).softmax(-1), values))
    return torch.cat(outs)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: type(layout).__name__)
@pytest.mark.parametrize(("kv_heads", "qk_dim", "v_dim"), [(4, 8, 8), (4, 12, 8), (2, 10, 6)])
def test_sequences_end_to_end_are_padded_ones(
    layout: Layout, kv_heads: int, qk_dim: int, v_dim: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Outputs and gradients, with prompts shared and heads of unlike widths."""
    monkeypatch.setattr(varlen, "varlen_attn", kernel)
    torch.manual_seed(0)
    shapes = [(4, qk_dim), (kv_heads, qk_dim), (kv_heads, v_dim)]
    inputs = [torch.randn(layout.num_tokens, *s, dtype=torch.float64, requires_grad=True) for s in shapes]
    gradient = torch.randn(layout.num_tokens, 4, v_dim, dtype=torch.float64)
    found, expected = varlen.attend_varlen(*inputs, layout, 0.3), attend_padded(*inputs, layout, 0.3)
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(out, inputs, gradient) for out in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(
    ("dtype", "widths", "served"),
    [
        (torch.bfloat16, (192, 128), True),
        (torch.float16, (64, 64), True),
        (torch.float32, (192, 128), False),
        (torch.bfloat16, (288, 128), False),
    ],
)
def test_the_flash_kernels_take_what_they_serve(
    dtype: torch.dtype, widths: tuple[int, int], served: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_cuda = [SimpleNamespace(is_cuda=True, device=0, dtype=dtype, shape=(16, 4, width)) for width in widths]
    for capability, new_enough in (((9, 0), True), ((8, 0), True), ((7, 5), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _, found=capability: found)
        assert varlen.serves(*on_cuda) == (served and new_enough)
    assert not varlen.serves(*(torch.empty(16, 4, width, dtype=dtype) for width in widths))


def test_the_flash_kernels_take_mlas_heads_by_shape() -> None:
    """The real operator's shapes, forward and backward: its registered stand-in for tensors without memory."""
    layout = Layout([5, 3, 7, 1], [-1, 0, 0, -1], "meta")
    q, k, v = (torch.empty(16, 4, width, device="meta", requires_grad=True) for width in (192, 192, 128))
    out = varlen.attend_varlen(q, k, v, layout, 0.1)
    assert out.shape == (16, 4, 128)
    out.sum().backward()
    assert [x.grad.shape for x in (q, k, v)] == [x.shape for x in (q, k, v)]


@pytest.mark.parametrize(
    ("name", "dtype"), [("tiny", torch.bfloat16), ("qwen3-tiny", torch.bfloat16), ("qwen3-tiny", torch.float32)]
)
@pytest.mark.parametrize("flash", [False, True])
def test_a_models_step_asks_the_device_for_no_size(
    name: str, dtype: torch.dtype, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the meta device, where tensors have no contents to ask for and the ways of the CPU are not taken."""
    monkeypatch.setattr("aha.models.attention.serves", lambda *_: flash)
    with torch.device("meta"):
        model = build(preset(name, vocab_size=96)).to(dtype)
    layout = Layout([5, 3, 7, 1], [-1, 0, 0, -1], "meta")
    hidden = model(torch.zeros(16, dtype=torch.long, device="meta"), layout)
    assert (hidden.hidden_ND.shape, hidden.hidden_ND.dtype) == ((16, model.config.hidden_size), dtype)
    hidden.hidden_ND.sum().backward()
    assert model.embed_tokens.weight.grad.shape == model.embed_tokens.weight.shape


def test_index_tensors_are_made_once() -> None:
    layout = SharedPrefix(GROUPS)
    assert layout.grid is layout.grid
    assert layout.sequence_ends is layout.sequence_ends
