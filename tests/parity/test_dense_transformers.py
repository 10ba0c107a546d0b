"""Qwen2, Qwen3 and Llama: the same files give the same numbers here and in transformers, in both directions."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel, Qwen2Config, Qwen3Config

from aha.inference.decoding.dense import DenseDecoder
from aha.inference.decoding.dense_packed import PackedDenseDecoder
from aha.inference.engine import Engine
from aha.inference.runner import Runner
from aha.models.checkpoint.hf import load_config, load_pretrained, save_pretrained
from aha.models.checkpoint.names import pieces
from aha.models.config.dense import DenseConfig
from aha.models.dense import Dense
from aha.models.layouts import PromptGroup, Ragged, Rectangle, SharedPrefix
from aha.types import Request, SamplingParams

torch.set_num_threads(1)

YARN = {"type": "yarn", "factor": 8, "original_max_position_embeddings": 64}
LLAMA3 = {
    "type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4, "original_max_position_embeddings": 64,
}  # fmt: skip
VARIANTS: dict[str, dict[str, object]] = {
    "qwen3": {"hidden_size": 52, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10},
    "qwen3-tied-yarn": {
        "hidden_size": 33, "num_attention_heads": 5, "num_key_value_heads": 1, "head_dim": 12, "rope_scaling": YARN,
        "tie_word_embeddings": True, "rope_theta": 1e6,
    },
    "qwen3-yarn-factor": {
        "hidden_size": 52, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 10,
        "rope_scaling": YARN | {"attention_factor": 0.7},
    },
    "qwen2": {"hidden_size": 60, "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 10},
    "qwen2-tied-yarn": {
        "hidden_size": 56, "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 14, "rope_scaling": YARN,
        "tie_word_embeddings": True,
    },
    "llama": {"hidden_size": 48, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 18},
    "llama-tied-llama3": {
        "hidden_size": 42, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 26, "rope_scaling": LLAMA3,
        "tie_word_embeddings": True, "rope_theta": 500.0,
    },
}  # fmt: skip
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str) -> Dense:
    """A tiny random model whose norms and biases matter."""
    sizes = {
        "model_type": variant.split("-")[0],
        "vocab_size": 96,
        "intermediate_size": 37,
        "num_hidden_layers": 3,
        "max_position_embeddings": 512,
        "rms_norm_eps": 1e-5,
        "initializer_range": 0.15,
        "bos_token_id": 0,
        "eos_token_id": (1, 2),
    }
    torch.manual_seed(7)
    model = Dense(DenseConfig.checked(sizes | VARIANTS[variant])).init_weights().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("norm.weight"):
                parameter.uniform_(0.5, 1.5)
            elif name.endswith("bias"):
                parameter.normal_(0.0, 0.5)
    return model


def theirs_from(folder: Path) -> PreTrainedModel:
    """Loads with transformers; no key may be missing or left over."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, output_loading_info=True, attn_implementation="eager", dtype=torch.float32
    )
    assert not any(report.values()), report
    return model.eval()


def logprobs(logits: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1)


@EVERY_VARIANT
def test_our_checkpoint_gives_their_logits(variant: str, tmp_path: Path) -> None:
    ours = build(variant)
    save_pretrained(ours, tmp_path)
    theirs = theirs_from(tmp_path)
    assert type(theirs).__name__ == json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    ids = torch.randint(0, 96, (2, 203))
    with torch.no_grad():
        expected = theirs(ids, use_cache=False).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 203)).hidden_ND).view_as(expected)
    assert expected.std() > 0.1
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@EVERY_VARIANT
def test_gradients_are_theirs(variant: str, tmp_path: Path) -> None:
    ours = build(variant)
    save_pretrained(ours, tmp_path)
    theirs = theirs_from(tmp_path)
    ids, targets = torch.randint(0, 96, (3, 40)), torch.randint(0, 96, (120,))
    torch.nn.functional.cross_entropy(theirs(ids).logits.flatten(0, 1), targets).backward()
    logits = ours.logits(ours(ids.flatten(), Rectangle(3, 40)).hidden_ND)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    own = {name: parameter.grad for name, parameter in ours.named_parameters()}
    compared = 0
    for piece in pieces(ours.config):
        expected, found = theirs.get_parameter(piece.hf_name).grad, piece.of(own[piece.own_name])
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4, msg=lambda m, p=piece: f"{p.hf_name}: {m}")
        compared += found.numel()
    assert compared == sum(parameter.numel() for parameter in theirs.parameters())


THEIR_SIZES = {
    "vocab_size": 70, "hidden_size": 48, "intermediate_size": 61, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.1,
}  # fmt: skip
THEIR_YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, "rope_theta": 5000.0}
THEIR_LLAMA3 = {name: value for name, value in LLAMA3.items() if name != "type"} | {"rope_type": "llama3"}
THEIRS = {
    "qwen3": Qwen3Config(**THEIR_SIZES, head_dim=22),
    "qwen3-yarn": Qwen3Config(**THEIR_SIZES, head_dim=22, tie_word_embeddings=True, rope_parameters=THEIR_YARN),
    "qwen3-yarn-factor": Qwen3Config(
        **THEIR_SIZES, head_dim=22, rope_parameters=THEIR_YARN | {"attention_factor": 1.9}
    ),
    "qwen2": Qwen2Config(**THEIR_SIZES, tie_word_embeddings=True, eos_token_id=[3, 4]),
    "qwen2-yarn": Qwen2Config(**THEIR_SIZES, rope_parameters=THEIR_YARN),
    "llama": LlamaConfig(**THEIR_SIZES, head_dim=10, tie_word_embeddings=True),
    "llama3": LlamaConfig(**THEIR_SIZES, rope_parameters=THEIR_LLAMA3 | {"rope_theta": 500000.0}),
}


@pytest.mark.parametrize("config", THEIRS.values(), ids=THEIRS.keys())
def test_their_checkpoint_gives_our_logits(config: Qwen2Config, tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter.uniform_(0.5, 1.5)
    theirs.save_pretrained(tmp_path)
    ours = load_pretrained(tmp_path).eval()
    assert isinstance(ours, Dense)
    ids = torch.randint(0, 70, (2, 150))
    with torch.no_grad():
        expected = theirs(ids).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 150)).hidden_ND).view_as(expected)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:config.json. rope key")
@pytest.mark.parametrize(
    "keys",
    [
        {"attn_factor": 0.8782488562869419},  # DeepSeek-R1-0528-Qwen3-8B
        {"attn_factor": 0.5, "attention_factor": 1.4},
        {"extrapolation_factor": 3.0, "finetuned": True},
        {"attention_factor": None, "beta_fast": None, "beta_slow": 2, "truncate": True},
        {"attention_factor": 2},
    ],
)
def test_yarns_keys_mean_what_they_mean_to_transformers(keys: dict[str, object], tmp_path: Path) -> None:
    torch.manual_seed(3)
    scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64, **keys}
    AutoModelForCausalLM.from_config(Qwen3Config(**THEIR_SIZES, head_dim=22)).save_pretrained(tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text())
    theta = raw.pop("rope_parameters")["rope_theta"]
    (tmp_path / "config.json").write_text(json.dumps(raw | {"rope_scaling": scaling, "rope_theta": theta}))
    theirs, ours = theirs_from(tmp_path), load_pretrained(tmp_path).eval()
    ids = torch.randint(0, 70, (2, 150))
    with torch.no_grad():
        expected = theirs(ids).logits
        logits = ours.logits(ours(ids.flatten(), Rectangle(2, 150)).hidden_ND).view_as(expected)
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)


@EVERY_VARIANT
@pytest.mark.parametrize("shard_bytes", [10**9, 20_000])
def test_saving_in_turns_keeps_every_tensor(variant: str, shard_bytes: int, tmp_path: Path) -> None:
    ours = build(variant)
    save_pretrained(ours, tmp_path / "ours", max_shard_bytes=shard_bytes)
    theirs_from(tmp_path / "ours").save_pretrained(tmp_path / "theirs")
    again = load_pretrained(tmp_path / "theirs")
    save_pretrained(again, tmp_path / "again", max_shard_bytes=shard_bytes)
    first, second, third = (tensors(tmp_path / name) for name in ("ours", "theirs", "again"))
    assert first.keys() == second.keys() == third.keys()
    assert ("lm_head.weight" in first) != ours.config.tie_word_embeddings
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name])
        assert torch.equal(tensor, third[name])
    assert load_config(tmp_path / "ours") == load_config(tmp_path / "theirs") == ours.config


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


@EVERY_VARIANT
@pytest.mark.parametrize("decoder_class", [DenseDecoder, PackedDenseDecoder])
@torch.inference_mode()
def test_cached_decoding_is_the_full_pass(variant: str, decoder_class: type) -> None:
    model = build(variant)
    lengths, new = [3, 17, 1, 9], 12
    ids = [torch.randint(0, 96, (length + new,)) for length in lengths]
    full = model.logits(model(torch.cat(ids), Ragged([len(i) for i in ids])).hidden_ND).split([len(i) for i in ids])
    runner = Runner(model)
    cache = runner.new_cache(rows=6, max_length=40)
    cache.entries.fill_(1e3)  # what is beyond a row's length must not be seen
    first = runner.prefill([i[:n].tolist() for i, n in zip(ids, lengths, strict=True)], cache, [0, 1, 2, 3])
    for row, n in enumerate(lengths):
        torch.testing.assert_close(logprobs(first[row]), logprobs(full[row][n - 1]), atol=1e-5, rtol=0)
    decoder = decoder_class(model)
    for step in range(new):
        logits = decoder.step(torch.stack([i[n + step] for i, n in zip(ids, lengths, strict=True)]), cache)
        for row, n in enumerate(lengths):
            torch.testing.assert_close(logprobs(logits[row]), logprobs(full[row][n + step]), atol=1e-5, rtol=0)


@EVERY_VARIANT
def test_the_engine_has_the_trainers_log_probabilities(variant: str) -> None:
    model = build(variant)
    rng = torch.Generator().manual_seed(0)
    requests = [
        Request(
            tuple(torch.randint(3, 96, (length,), generator=rng).tolist()),
            SamplingParams(n=3, seed=length, max_completion_tokens=10, stop_token_ids=(1,)),
            f"r{length}",
        )
        for length in (1, 4, 9)
    ]
    engine = Engine(model, max_rows=4, max_context=32)
    completions = engine.generate(requests)
    pairs = [(r.prompt_token_ids, c.token_ids) for r, group in zip(requests, completions, strict=True) for c in group]
    flat = [completion for group in completions for completion in group]
    for scored, completion in zip(engine.score(pairs), flat, strict=True):
        assert scored == pytest.approx(completion.logprobs, abs=1e-5)


@EVERY_VARIANT
def test_shared_prompts_are_repeated_prompts(variant: str) -> None:
    """Outputs of the completions, and the gradients of all weights."""
    shared = SharedPrefix([PromptGroup(5, [3, 7, 7]), PromptGroup(2, [4])])
    ids = torch.randint(0, 96, (shared.num_tokens,))
    prompt, a, b, c, other, d = ids.split(shared.lengths)
    repeated = [torch.cat(pair) for pair in ((prompt, a), (prompt, b), (prompt, c), (other, d))]
    plain = Ragged([len(sequence) for sequence in repeated])
    is_completion = torch.cat(
        [torch.arange(len(s)) >= len(p) for s, p in zip(repeated, [prompt] * 3 + [other], strict=True)]
    )
    results = []
    for layout, tokens, index in (
        (shared, ids, shared.completion_N),
        (plain, torch.cat(repeated), is_completion.nonzero().squeeze(-1)),
    ):
        model = build(variant)
        hidden_ND = model(tokens, layout).hidden_ND[index]
        (hidden_ND * hidden_ND.detach().cos()).sum().backward()
        results.append([hidden_ND.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, two in zip(*results, strict=True):
        scale = max(1.0, float(two.abs().max()))
        torch.testing.assert_close(one / scale, two / scale, atol=1e-5, rtol=1e-5)
