"""Generation through the latent cache is the full pass: absorbed == expanded, cached == full, rows independent."""

import pytest
import torch

from aha.inference.decoding.cache import LatentCache
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.decoding.latent_packed import PackedLatentDecoder
from aha.inference.runner import Runner
from aha.models.config.deepseek_v3 import RopeScaling
from aha.models.config.presets import tiny
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.layouts import Ragged

torch.set_num_threads(1)

YARN = RopeScaling(factor=40, original_max_position_embeddings=64, mscale=1.0, mscale_all_dim=1.0)
VARIANTS = {
    "tiny": {},
    "groups-yarn": {"n_group": 4, "topk_group": 2, "rope_scaling": YARN, "routed_scaling_factor": 2.5},
    "no-q-latent": {"q_lora_rank": None, "n_shared_experts": 0},
    "odd-sizes": {"kv_lora_rank": 15, "v_head_dim": 10, "qk_nope_head_dim": 7, "qk_rope_head_dim": 6},
    "softmax-gate": {
        "scoring_func": "softmax",
        "topk_method": "greedy",
        "norm_topk_prob": False,
        "n_shared_experts": 2,
    },
}


def build(variant: str) -> DeepseekV3:
    torch.manual_seed(5)
    config = tiny(96, hidden_size=64, num_hidden_layers=3, initializer_range=0.08, **VARIANTS[variant])
    model = DeepseekV3(config).init_weights().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
        for router in model.routers():
            if router.e_score_correction_bias is not None:
                router.e_score_correction_bias.normal_(-0.5, 0.3)
    return model


def logprobs(logits: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("decoder_class", [AbsorbedDecoder, PackedLatentDecoder])
@torch.inference_mode()
def test_cached_decoding_is_the_full_pass(variant: str, decoder_class: type) -> None:
    model = build(variant)
    runner = Runner(model)
    lengths, new = [3, 17, 1, 9], 12
    ids = [torch.randint(0, 96, (length + new,)) for length in lengths]
    full = model.logits(model(torch.cat(ids), Ragged([len(i) for i in ids])).hidden_ND).split([len(i) for i in ids])
    cache = LatentCache(model.config, rows=6, max_length=40)
    cache.entries.fill_(float("nan") if decoder_class is None else 1e3)
    first = runner.prefill([i[:n].tolist() for i, n in zip(ids, lengths, strict=True)], cache, [0, 1, 2, 3])
    expected = torch.stack([f[n - 1] for f, n in zip(full, lengths, strict=True)])
    torch.testing.assert_close(logprobs(first), logprobs(expected), atol=1e-5, rtol=0)
    decoder = decoder_class(model)
    for step in range(new):
        tokens = torch.stack([i[n + step] for i, n in zip(ids, lengths, strict=True)])
        expected = torch.stack([f[n + step] for f, n in zip(full, lengths, strict=True)])
        found = decoder.step(tokens, cache)
        torch.testing.assert_close(logprobs(found), logprobs(expected), atol=1e-5, rtol=0)
    assert cache.lengths.tolist() == [n + new for n in lengths] + [0, 0]


@torch.inference_mode()
def test_a_row_does_not_depend_on_the_batch_around_it() -> None:
    model = build("groups-yarn")
    runner = Runner(model)
    prompts = [torch.randint(0, 96, (n,)).tolist() for n in (7, 30, 2, 11, 11, 19, 4, 25)]
    together = LatentCache(model.config, 8, 48)
    logits = runner.prefill(prompts, together, range(8))
    tokens = torch.arange(8)
    batched = [logits, *(runner.decode(tokens + i, together) for i in range(5))]
    for row, prompt in enumerate(prompts):
        alone = LatentCache(model.config, 1, 48)
        results = [runner.prefill([prompt], alone, [0])]
        results += [runner.decode(tokens[row : row + 1] + i, alone) for i in range(5)]
        for a, b in zip(results, batched, strict=True):
            torch.testing.assert_close(logprobs(a)[0], logprobs(b)[row], atol=1e-5, rtol=0)


@torch.inference_mode()
def test_forked_and_moved_rows_continue_their_prompt() -> None:
    model = build("tiny")
    runner = Runner(model)
    prompt, tokens = [5, 6, 7, 8], torch.tensor([1, 2, 3])
    cache = LatentCache(model.config, 4, 16)
    runner.prefill([prompt], cache, [3])
    cache.fork(3, [0, 1])
    cache.move(3, 2)
    assert cache.lengths.tolist() == [4, 4, 4, 0]
    forked = runner.decode(tokens, cache)
    for row in range(3):
        alone = LatentCache(model.config, 1, 16)
        expected = runner.prefill([[*prompt, int(tokens[row])]], alone, [0])
        torch.testing.assert_close(logprobs(forked[row]), logprobs(expected[0]), atol=1e-5, rtol=0)


def test_decoding_follows_the_weights() -> None:
    model = build("tiny")
    runner = Runner(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05, fused=True)
    for change in ("none", "optimizer", "load", "assign", "cast", "none"):
        if change == "optimizer":
            ids = torch.randint(0, 96, (8,))
            model.logits(model(ids, Ragged([8])).hidden_ND).logsumexp(-1).sum().backward()
            optimizer.step()
        elif change == "load":
            model.load_state_dict({k: v * 1.1 for k, v in model.state_dict().items()})
        elif change == "assign":
            model.load_state_dict({k: v * 0.9 for k, v in model.state_dict().items()}, assign=True)
        elif change == "cast":
            model.to(torch.bfloat16).to(torch.float32)
        cache = LatentCache(model.config, 1, 8)
        runner.prefill([[1, 2]], cache, [0])
        found = runner.decode(torch.tensor([3]), cache)
        with torch.no_grad():
            expected = model.logits(model(torch.tensor([1, 2, 3]), Ragged([3])).hidden_ND)[-1:]
        torch.testing.assert_close(logprobs(found), logprobs(expected), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_bfloat16_model_decodes_without_packing() -> None:
    model = build("groups-yarn").to(torch.bfloat16)
    runner = Runner(model)
    cache = LatentCache(model.config, 2, 16, dtype=torch.bfloat16)
    runner.prefill([[1, 2, 3], [4]], cache, [0, 1])
    logits = runner.decode(torch.tensor([5, 6]), cache)
    assert logits.dtype == torch.bfloat16
    assert bool(logits.isfinite().all())
