"""Multi-token prediction (V3 Eqs. 21-23): what depends on what, and what is shared."""

import torch

from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged, Rectangle

torch.set_num_threads(1)


def build(depth: int = 2) -> DeepseekV3:
    torch.manual_seed(1)
    return DeepseekV3(tiny(40, hidden_size=32, num_hidden_layers=2, num_nextn_predict_layers=depth)).init_weights()


def test_depth_k_reads_tokens_up_to_k_ahead_and_no_further() -> None:
    model, layout = build().eval(), Rectangle(1, 8)
    ids = torch.randint(0, 40, (8,))
    before = model.mtp_hidden(model(ids, layout), ids, layout)
    changed = ids.clone()
    changed[5] = (ids[5] + 1) % 40
    after = model.mtp_hidden(model(changed, layout), changed, layout)
    for depth, (a, b) in enumerate(zip(before, after, strict=True), start=1):
        same = ((a.hidden_ND - b.hidden_ND).abs().amax(-1) < 1e-5).tolist()
        assert same == [i < 5 - depth for i in range(8)]


def test_the_last_places_do_not_disturb_the_others() -> None:
    """Positions without a token k ahead get some embedding; none of those before them may notice."""
    model, ids = build().eval(), torch.randint(0, 40, (9,))
    whole = model.mtp_hidden(model(ids, Ragged([9])), ids, Ragged([9]))
    part = model.mtp_hidden(model(ids[:6], Ragged([6])), ids[:6], Ragged([6]))
    for depth, (a, b) in enumerate(zip(whole, part, strict=True), start=1):
        torch.testing.assert_close(a.hidden_ND[: 6 - depth], b.hidden_ND[: 6 - depth], atol=1e-5, rtol=1e-5)


def test_embedding_comes_first_in_the_joined_input() -> None:
    model, layout = build(1).eval(), Ragged([4])
    ids = torch.randint(0, 40, (4,))
    hidden, module = model(ids, layout), model.mtp[0]
    with torch.no_grad():
        module.eh_proj.weight[:, 32:] = 0
    first = model.mtp_hidden(hidden, ids, layout)[0].hidden_ND
    hidden.hidden_ND = hidden.hidden_ND * 2 + 1
    torch.testing.assert_close(model.mtp_hidden(hidden, ids, layout)[0].hidden_ND, first)


def test_gradients_reach_the_main_model_embedding_and_head() -> None:
    model, layout = build(), Rectangle(2, 6)
    ids = torch.randint(0, 40, (12,))
    hidden = model.mtp_hidden(model(ids, layout), ids, layout)
    model.logits(hidden[-1].hidden_ND).logsumexp(-1).sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in model.parameters())


def test_counts_come_in_the_order_of_routers() -> None:
    model, layout = build(), Rectangle(2, 6)
    ids = torch.randint(0, 40, (12,))
    main = model(ids, layout)
    extra = model.mtp_hidden(main, ids, layout)
    counts = torch.cat([main.router_counts, *(e.router_counts for e in extra)])
    assert counts.shape == (len(list(model.routers())), 16)
    assert counts.sum(-1).tolist() == [24] * 3
