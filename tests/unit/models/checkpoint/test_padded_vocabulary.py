"""Rows of the vocabulary that no token of the tokenizer has: never sampled, never trained, kept as they are."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from aha.errors import CheckpointError
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.config.presets import qwen2_tiny
from aha.models.dense import Dense
from aha.models.layouts import Ragged
from aha.training.logprobs import chunked_logprobs
from aha.training.optimizer import Optimizer, OptimizerConfig
from aha.types import Request, SamplingParams

torch.set_num_threads(1)

TOKENS, ROWS = 83, 128
TOKENIZER = json.dumps(
    {
        "model": {"type": "BPE", "vocab": {str(i): i for i in range(80)}},
        "added_tokens": [{"id": i} for i in (80, 81, 82)],
    }
)
BOTH_HEADS = pytest.mark.parametrize("tied", [False, True])


def padded(folder: Path, tied: bool) -> Dense:
    """A checkpoint like Qwen's, loaded; its padding would win every draw if it took part."""
    torch.manual_seed(0)
    model = Dense(qwen2_tiny(ROWS, hidden_size=24, intermediate_size=40, head_dim=6, tie_word_embeddings=tied))
    model.init_weights()
    with torch.no_grad():
        model.lm_head.weight[TOKENS:] = 3.0 * model.lm_head.weight[5]
    save_pretrained(model, folder, torch.bfloat16, tokenizer_files={"tokenizer.json": TOKENIZER})
    loaded = load_pretrained(folder)
    assert isinstance(loaded, Dense)
    return loaded


@BOTH_HEADS
def test_padding_is_never_sampled_and_no_part_of_the_softmax(tied: bool, tmp_path: Path) -> None:
    model = padded(tmp_path, tied)
    assert model.num_tokens == TOKENS
    with torch.no_grad():
        model.norm.weight.fill_(40.0)  # so that the large rows of the padding would dominate
    request = Request((5, 5, 5), SamplingParams(n=64, seed=1, max_completion_tokens=12, temperature=1.0), "r")
    (samples,) = Engine(model, max_rows=64, max_context=16).generate([request])
    assert all(token < TOKENS for sample in samples for token in sample.token_ids)
    for sample in samples[:8]:
        ids = torch.tensor([*request.prompt_token_ids, *sample.token_ids])
        hidden_ND = model(ids, Ragged([len(ids)])).hidden_ND
        trained, _ = chunked_logprobs(hidden_ND[2:-1], model.head_weight, ids[3:])
        assert trained.tolist() == pytest.approx(sample.logprobs, abs=1e-5)
        whole = torch.log_softmax(hidden_ND[2:-1] @ model.lm_head.weight[:TOKENS].t(), -1)
        torch.testing.assert_close(trained, whole.gather(1, ids[3:, None])[:, 0], atol=1e-5, rtol=0)


@BOTH_HEADS
def test_padding_is_never_trained_and_kept_byte_for_byte(tied: bool, tmp_path: Path) -> None:
    model = padded(tmp_path / "a", tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = Optimizer(model, OptimizerConfig(adam_lr=0.01, weight_decay=0.5, warmup_steps=0), total_steps=3)
    for _ in range(3):
        optimizer.zero_grad()
        ids = torch.randint(0, TOKENS, (20,))
        logprobs, _ = chunked_logprobs(model(ids, Ragged([20])).hidden_ND[:-1], model.head_weight, ids[1:])
        (-logprobs.mean()).backward()
        assert optimizer.step()[2]
    for weight in (model.embed_tokens.weight, model.lm_head.weight):
        assert not torch.equal(weight[:TOKENS], before["lm_head.weight"][:TOKENS])
    save_pretrained(model, tmp_path / "b", torch.bfloat16, tokenizer_files={"tokenizer.json": TOKENIZER})
    old, new = (load_file(tmp_path / name / "model.safetensors") for name in "ab")
    for name in ("model.embed_tokens.weight", *([] if tied else ["lm_head.weight"])):
        assert old[name].shape == new[name].shape == (ROWS, 24)
        assert torch.equal(old[name][TOKENS:].view(torch.int16), new[name][TOKENS:].view(torch.int16))


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    padded(tmp_path, tied=True)
    more = {"model": {"vocab": {}}, "added_tokens": [{"id": ROWS}]}
    (tmp_path / "tokenizer.json").write_text(json.dumps(more))
    with pytest.raises(CheckpointError, match=r"has 129 tokens, but .* vocab_size = 128"):
        load_pretrained(tmp_path)
