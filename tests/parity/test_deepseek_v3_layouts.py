"""One sequence gives one result, however it is laid out: alone, packed, or behind a prompt shared with others."""

import pytest
import torch
from torch import Tensor

from aha.models.attention.cpu import attend_fused
from aha.models.attention.padded import attend_padded
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Layout, PromptGroup, Ragged, Rectangle, SharedPrefix
from aha.models.mla import rotated

torch.set_num_threads(1)

GROUPS = [PromptGroup(5, [3, 7, 7, 1]), PromptGroup(1, [2]), PromptGroup(12, [40, 4])]


def build(**changes: object) -> DeepseekV3:
    torch.manual_seed(11)
    return DeepseekV3(tiny(96, hidden_size=64, num_hidden_layers=3, initializer_range=0.08, **changes)).init_weights()


def repeated(groups: list[PromptGroup]) -> tuple[Ragged, Tensor, Tensor]:
    """The same sequences with the prompt before each completion.

    Returns the layout, the index in the shared layout of each of its tokens, and where the completions' tokens are.
    """
    lengths, source, completion, start = [], [], [], 0
    for group in groups:
        prompt = range(start, start + group.prompt_length)
        start += group.prompt_length
        for length in group.completion_lengths:
            completion += range(len(source) + len(prompt), len(source) + len(prompt) + length)
            source += [*prompt, *range(start, start + length)]
            lengths.append(len(prompt) + length)
            start += length
    return Ragged(lengths), torch.tensor(source), torch.tensor(completion)


@pytest.mark.parametrize("changes", [{}, {"v_head_dim": 20, "qk_nope_head_dim": 12}])
def test_shared_prompts_give_the_outputs_and_gradients_of_repeated_ones(changes: dict[str, object]) -> None:
    shared, (plain, source_N, completion_N) = SharedPrefix(GROUPS), repeated(GROUPS)
    ids = torch.randint(0, 96, (shared.num_tokens,))
    weights = torch.randn(completion_N.numel(), 64)
    gradients, outputs = [], []
    for layout, tokens, index in ((shared, ids, shared.completion_N), (plain, ids[source_N], completion_N)):
        model = build(aux_loss_alpha=0.0, **changes)
        hidden_ND = model(tokens, layout).hidden_ND
        predicted = hidden_ND[index]
        outputs.append(predicted)
        (predicted * weights).sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    torch.testing.assert_close(outputs[0], outputs[1], atol=1e-5, rtol=1e-5)
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        scale = max(1.0, float(gradients[1][name].abs().max()))
        torch.testing.assert_close(gradient / scale, gradients[1][name] / scale, atol=1e-5, rtol=1e-5, msg=name)


def test_shared_prefix_says_which_output_predicts_which_token() -> None:
    shared, (_, source_N, completion_N) = SharedPrefix(GROUPS), repeated(GROUPS)
    assert torch.equal(shared.completion_N, source_N[completion_N])
    assert torch.equal(shared.predicts_N, source_N[completion_N - 1])
    assert shared.completion_lengths == [3, 7, 7, 1, 2, 40, 4]


@torch.inference_mode()
def test_packed_sequences_are_the_sequences_alone() -> None:
    model, lengths = build().eval(), [3, 3, 20, 1, 64]
    ids = torch.randint(0, 96, (sum(lengths),))
    packed = model(ids, Ragged(lengths)).hidden_ND.split(lengths)
    for sequence, found in zip(ids.split(lengths), packed, strict=True):
        alone = model(sequence, Ragged([len(sequence)])).hidden_ND
        torch.testing.assert_close(found, alone, atol=1e-5, rtol=1e-5)


LAYOUTS = [Rectangle(3, 6), Ragged([4, 1, 9, 9]), SharedPrefix(GROUPS), Rectangle(2, 200), Ragged([130, 300, 5, 193])]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{type(layout).__name__}-{layout.longest}")
@pytest.mark.parametrize(("kv_heads", "qk_dim", "v_dim"), [(4, 8, 8), (4, 8, 12), (2, 10, 6)])
def test_fused_attention_is_padded_attention(layout: Layout, kv_heads: int, qk_dim: int, v_dim: int) -> None:
    """In double precision, outputs and all gradients, also for grouped-query heads."""
    torch.manual_seed(0)
    shapes = [(4, qk_dim), (kv_heads, qk_dim), (kv_heads, v_dim)]
    inputs = [torch.randn(layout.num_tokens, *s, dtype=torch.float64, requires_grad=True) for s in shapes]
    gradient = torch.randn(layout.num_tokens, 4, v_dim, dtype=torch.float64)
    fused = attend_fused(*inputs, layout, 0.3)
    padded = attend_padded(*inputs, layout, 0.3)
    torch.testing.assert_close(fused, padded)
    for a, b in zip(
        torch.autograd.grad(fused, inputs, gradient), torch.autograd.grad(padded, inputs, gradient), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_fused_cpu_attention_is_the_plain_one() -> None:
    """The rotate-and-attend pass against differentiable operations, with the gradients of all weights."""
    results = []
    for plain in (False, True):
        model = build(qk_nope_head_dim=15, v_head_dim=24)
        attention, layout = model.layers[0].self_attn, SharedPrefix(GROUPS)
        torch.manual_seed(1)
        x = torch.randn(layout.num_tokens, 64, requires_grad=True)
        cis = model.rope.at(layout.positions_N, layout.longest)
        if plain:
            query, latent, rope = attention.down(x)
            kv = attention.kv_b_proj(attention.kv_a_layernorm(latent)).unflatten(-1, (4, -1))
            k_nope, v = kv.split([attention.nope_dim, attention.v_dim], dim=-1)
            q_nope, q_rope = attention.up_query(query).split([attention.nope_dim, attention.rope_dim], dim=-1)
            q = torch.cat([q_nope, rotated(q_rope, cis.unsqueeze(1))], dim=-1)
            k = torch.cat([k_nope, rotated(rope, cis).unsqueeze(1).expand(-1, 4, -1)], dim=-1)
            out = attention.o_proj(attend_padded(q, k, v, layout, attention.scale).flatten(1))
        else:
            out, _ = attention(x, layout, cis)
        (out * out.detach().cos()).sum().backward()
        results.append([out.detach(), x.grad, *(p.grad for p in attention.parameters())])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
