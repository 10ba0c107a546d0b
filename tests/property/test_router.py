"""The router's laws, on any scores and biases."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.presets import tiny
from aha.models.moe import Router

torch.set_num_threads(1)


@st.composite
def routers(draw: st.DrawFn) -> tuple[Router, torch.Tensor]:
    """A router with any groups and biases, and logits for it."""
    groups = draw(st.sampled_from([1, 2, 4]))
    per_group = draw(st.integers(2, 6))
    limit = draw(st.integers(1, groups))
    config: DeepseekV3Config = tiny(
        n_routed_experts=groups * per_group,
        n_group=groups,
        topk_group=limit,
        num_experts_per_tok=draw(st.integers(1, per_group * limit)),
        norm_topk_prob=draw(st.booleans()),
        routed_scaling_factor=draw(st.sampled_from([1.0, 2.5])),
        scoring_func=draw(st.sampled_from(["sigmoid", "softmax"])),
    )
    router = Router(config)
    experts = config.n_routed_experts
    bias = st.lists(st.floats(-3, 3, width=32), min_size=experts, max_size=experts)
    router.e_score_correction_bias.copy_(torch.tensor(draw(bias)))
    row = st.lists(st.floats(-20, 20, width=32), min_size=experts, max_size=experts)
    return router, torch.tensor(draw(st.lists(row, min_size=1, max_size=5)))


@settings(max_examples=150, deadline=None)
@given(routers())
def test_laws(case: tuple[Router, torch.Tensor]) -> None:
    router, logits = case
    config, routing = router.config, router.route(logits)
    chosen, per_group = config.num_experts_per_tok, config.n_routed_experts // config.n_group
    biased = routing.scores + router.e_score_correction_bias
    for scores, choice, indices, gates in zip(routing.scores, biased, routing.indices, routing.gates, strict=True):
        experts = indices.tolist()
        assert len(set(experts)) == chosen, "experts are distinct: no token counts one twice"
        groups = {expert // per_group for expert in experts}
        assert len(groups) <= config.topk_group, "a token stays within its groups"
        best = {
            g: float(choice[g * per_group : (g + 1) * per_group].topk(2).values.sum()) for g in range(config.n_group)
        }
        allowed = sorted(best.values(), reverse=True)[config.topk_group - 1]
        assert all(best[g] >= allowed for g in groups), "the groups are the best by their two best biased scores"
        inside = [e for e in range(config.n_routed_experts) if best[e // per_group] > allowed]
        left_out = [float(choice[e]) for e in inside if e not in experts]
        assert max(left_out, default=-torch.inf) <= float(choice[indices].min()), "and the experts the best within them"
        expected = scores[indices]
        if config.norm_topk_prob:
            expected = expected / (expected.sum() + 1e-20)
        torch.testing.assert_close(gates, expected * config.routed_scaling_factor)


@settings(max_examples=50, deadline=None)
@given(routers(), st.floats(-2, 2, width=32))
def test_a_common_bias_changes_nothing(case: tuple[Router, torch.Tensor], shift: float) -> None:
    router, logits = case
    router.e_score_correction_bias.zero_()
    before = router.route(logits)
    router.e_score_correction_bias.fill_(shift)
    after = router.route(logits)
    # Adding the shift may round two scores into a tie: compare the scores that were chosen.
    torch.testing.assert_close(
        before.scores.gather(1, before.indices).sort(-1).values,
        after.scores.gather(1, after.indices).sort(-1).values,
        atol=1e-5,
        rtol=1e-5,
    )


@settings(max_examples=50, deadline=None)
@given(routers())
def test_biases_get_no_gradient_and_gates_none_through_the_choice(case: tuple[Router, torch.Tensor]) -> None:
    router, logits = case
    logits.requires_grad_()
    router.route(logits).gates.sum().backward()
    assert not router.e_score_correction_bias.requires_grad
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())


def test_negative_scores_stay_within_their_groups() -> None:
    """With 0 instead of -inf as the mask, experts of barred groups would win over negative biased scores."""
    config = tiny(n_routed_experts=8, n_group=4, topk_group=2, num_experts_per_tok=4)
    router = Router(config)
    router.e_score_correction_bias.fill_(-0.9)
    logits = torch.full((1, 8), -3.0)
    logits[0, :4] = -2.0
    assert sorted(router.route(logits).indices[0].tolist()) == [0, 1, 2, 3]
