"""The mixture-of-experts layer: values and gradients against a plain loop, balance rule and losses by hand."""

import pytest
import torch
import torch.nn.functional as F

from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.experts.products import grouped_experts, sort_slots
from aha.models.layouts import Ragged, Rectangle
from aha.models.moe import (
    DeepseekMoE,
    Router,
    RouterStats,
    differing_tokens,
    max_violation,
    sequence_balance_loss,
    update_router_bias,
)

torch.set_num_threads(1)


def build(**changes: object) -> DeepseekMoE:
    torch.manual_seed(2)
    moe = DeepseekMoE(tiny(hidden_size=12, moe_intermediate_size=7, **changes)).double()
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return moe


def plain_moe(moe: DeepseekMoE, x: torch.Tensor) -> torch.Tensor:
    """V3 Eq. 12 token by token."""
    routing = moe.gate(x)
    rows = []
    for n in range(x.shape[0]):
        total = 0
        for a, e in enumerate(routing.indices[n].tolist()):
            gate, up = (moe.experts.gate_up_proj[e] @ x[n]).chunk(2)
            total = total + routing.gates[n, a].double() * (moe.experts.down_proj[e] @ (F.silu(gate) * up))
        rows.append(total if moe.shared_experts is None else total + moe.shared_experts(x[n : n + 1])[0])
    return torch.stack(rows)


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_experts_per_tok": 1}, {"num_experts_per_tok": 5, "n_shared_experts": 0}, {"n_shared_experts": 2}],
)
@pytest.mark.parametrize("tokens", [1, 3, 40])
def test_layer_is_the_sum_of_its_experts_with_gradients(changes: dict[str, object], tokens: int) -> None:
    moe = build(**changes)
    x = torch.randn(tokens, 12, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(tokens, 12, dtype=torch.float64)
    found, expected = moe(x, Ragged([tokens]), RouterStats()), plain_moe(moe, x)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(moe.tokenwise(x), expected)
    inputs = [x, *moe.parameters()]
    for a, b in zip(
        torch.autograd.grad((found * weights).sum(), inputs, allow_unused=True),
        torch.autograd.grad((expected * weights).sum(), inputs, allow_unused=True),
        strict=True,
    ):
        zero = torch.zeros(()) if a is None and b is None else torch.zeros_like(a if b is None else b)
        # The router works in float32, so its gradient has that precision.
        torch.testing.assert_close(zero if a is None else a, zero if b is None else b, atol=2e-6, rtol=1e-5)


def test_kept_experts_compute_with_the_routers_own_gates() -> None:
    """Where they are known; their gates are made of the logits, through which the router learns."""
    router = build().gate
    x = torch.randn(6, 12, dtype=torch.float64)
    own = router(x)
    kept = (own.indices + 1) % router.config.n_routed_experts
    kept[4:] = -1
    routing = router(x, kept)
    assert torch.equal(routing.chosen, own.chosen) and torch.equal(routing.indices[:4], kept[:4])
    assert torch.equal(routing.indices[4:], own.indices[4:]) and torch.equal(routing.gates[4:], own.gates[4:])
    scores = own.scores.gather(1, routing.indices)
    torch.testing.assert_close(
        routing.gates, scores / scores.sum(-1, keepdim=True) * router.config.routed_scaling_factor
    )
    (gradient,) = torch.autograd.grad(routing.gates[:4, 0].sum(), router.weight)
    moved = set(gradient.abs().sum(1).nonzero()[:, 0].tolist())
    assert moved == set(kept[:4].flatten().tolist())


def test_tokens_with_another_set_of_experts_are_counted() -> None:
    chosen = torch.tensor([[0, 1], [0, 1], [2, 3], [2, 3]])
    sampled = torch.tensor([[1, 0], [0, 2], [-1, -1], [3, 1]])
    assert int(differing_tokens(chosen, sampled)) == 2


def test_results_repeat_bit_for_bit() -> None:
    moe, x = build().float(), torch.randn(64, 12)
    first = moe.tokenwise(x)
    assert all(torch.equal(first, moe.tokenwise(x)) for _ in range(3))


def test_every_slot_is_computed() -> None:
    indices = torch.randint(0, 6, (50, 3))
    slots = sort_slots(indices, 6)
    assert slots.counts.sum() == 150
    assert indices.flatten()[slots.order].tolist() == sorted(indices.flatten().tolist())
    assert torch.equal(slots.order[slots.place.flatten()], torch.arange(150))
    assert torch.equal(slots.token, slots.order // 3)


def test_balance_loss_is_the_printed_one() -> None:
    """V3 Eqs. 17-20 with loops."""
    torch.manual_seed(0)
    lengths, experts, chosen = [5, 8], 6, 2
    scores = torch.rand(13, experts)
    expected = []
    for part in scores.split(lengths):
        f = torch.zeros(experts)
        for row in part:
            f[row.topk(chosen).indices] += experts / (chosen * len(part))
        p = (part / part.sum(-1, keepdim=True)).mean(0)
        expected.append((f * p).sum())
    found = sequence_balance_loss(scores, Ragged(lengths), chosen)
    torch.testing.assert_close(found, torch.stack(expected).mean())
    whole = sequence_balance_loss(scores, Ragged(lengths), chosen, per_sequence=False)
    torch.testing.assert_close(whole, sequence_balance_loss(scores, Ragged([13]), chosen))


def test_balance_loss_of_even_routing_is_one() -> None:
    scores = torch.eye(4).repeat(3, 1) + 1e-6
    torch.testing.assert_close(sequence_balance_loss(scores, Rectangle(1, 12), 1), torch.tensor(1.0), atol=1e-4, rtol=0)


def test_balance_loss_only_in_training() -> None:
    moe, x = build().float(), torch.randn(6, 12)
    for layer, training, losses in ((moe, True, 1), (moe, False, 0), (build(aux_loss_alpha=0.0).float(), True, 0)):
        stats = RouterStats()
        layer.train(training)(x, Ragged([6]), stats)
        assert (len(stats.counts), len(stats.losses)) == (1, losses)


def test_bias_moves_against_the_load() -> None:
    router = Router(tiny(n_routed_experts=4))
    update_router_bias([router], torch.tensor([[10, 2, 6, 6]]), 0.001)
    assert router.e_score_correction_bias.tolist() == pytest.approx([-0.001, 0.001, 0.0, 0.0])


def test_bias_rule_balances_a_lopsided_router() -> None:
    torch.manual_seed(0)
    router = Router(tiny(n_routed_experts=8))
    torch.nn.init.normal_(router.weight, std=0.05)
    with torch.no_grad():
        router.weight[0] += 0.1
    x = torch.randn(512, 128) + 0.3
    violations = []
    for _ in range(150):
        counts = torch.bincount(router(x).indices.flatten(), minlength=8)
        violations.append(float(max_violation(counts[None])[0]))
        update_router_bias([router], counts[None], 0.01)
    assert violations[0] > 1.0
    assert violations[-1] < 0.3


def test_max_violation() -> None:
    found = max_violation(torch.tensor([[4, 4, 4, 4], [8, 4, 4, 0]]))
    assert found.tolist() == [0.0, 1.0]


def test_casting_leaves_biases_in_float32() -> None:
    router = Router(tiny())
    router.e_score_correction_bias.fill_(0.001)
    router.to(torch.bfloat16)
    assert router.weight.dtype == torch.bfloat16
    assert router.e_score_correction_bias.dtype == torch.float32
    assert router.e_score_correction_bias[0] == torch.tensor(0.001)


def test_grouped_products_give_the_same() -> None:
    """The path of other devices, with gradients."""
    torch.manual_seed(3)
    moe = DeepseekMoE(tiny(hidden_size=16, moe_intermediate_size=8)).float()
    for parameter in moe.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    x = torch.randn(20, 16, requires_grad=True)
    routing = moe.gate(x)
    slots, weights = sort_slots(routing.indices, 16), torch.randn(20, 16)
    gates = routing.gates.detach().requires_grad_()
    experts, results = moe.experts, []
    for y in (
        grouped_experts(x, gates, experts.gate_up_proj, experts.down_proj, slots),
        experts(x, gates, slots),
    ):
        results.append([y, *torch.autograd.grad((y * weights).sum(), [x, gates, *experts.parameters()])])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_layers_that_are_computed_again_report_once() -> None:
    """As activation checkpointing computes them, after the pass has ended."""
    model = DeepseekV3(tiny(64, num_hidden_layers=3)).init_weights(torch.Generator().manual_seed(0)).train()
    model.activation_checkpointing = True
    kept = []
    collect = model.collect
    model.collect = lambda hidden, stats: kept.append(stats) or collect(hidden, stats)
    hidden = model(torch.arange(8), Rectangle(1, 8))
    (hidden.hidden_ND.sum() + hidden.balance_loss).backward()
    (stats,) = kept
    assert len(stats.counts) == len(stats.losses) == 2
    assert model.layers[1].mlp.gate.weight.grad is not None


def test_slots_are_counted_as_they_are() -> None:
    indices = torch.tensor([[0, 3], [3, 1], [3, 0]])
    assert sort_slots(indices, 5).counts.tolist() == [2, 1, 0, 3, 0]
