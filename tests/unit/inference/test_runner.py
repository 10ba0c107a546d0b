"""The runner notices every change of its model's weights, and runners of one model do not disturb each other."""

from collections.abc import Callable

import pytest
import torch

from aha.inference.decoding.cache import DraftCache, KeyValueCache, LatentCache
from aha.inference.decoding.dense import DenseDecoder
from aha.inference.decoding.dense_packed import PackedDenseDecoder
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.decoding.latent_packed import PackedLatentDecoder
from aha.inference.runner import Runner
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.models.lora import add_adapters
from aha.models.lora_linear import LoRAConfig, adapted_layers
from aha.models.model_from_config import build

torch.set_num_threads(1)


def made(name: str) -> LanguageModel:
    model = build(preset(name, vocab_size=64, initializer_range=0.08))
    return model.init_weights(torch.Generator().manual_seed(1)).eval()


def adapters(model: LanguageModel) -> None:
    add_adapters(model, LoRAConfig(r=2, alpha=2.0), seed=0)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for layer in adapted_layers(model):
            for matrix in layer.lora_B.values():
                matrix.normal_(0.0, 0.1, generator=generator)


def unrecorded(model: LanguageModel) -> None:
    model.norm.weight.data.mul_(-1.0)
    model.weights_replaced()


@torch.inference_mode()
def in_place(model: LanguageModel) -> None:
    model.norm.weight.mul_(-1.0)


CHANGES = [adapters, unrecorded, in_place]


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", ["tiny", "qwen3-tiny"])
def test_decoding_follows_the_weights(name: str, change: Callable[[LanguageModel], None]) -> None:
    model = made(name)
    runners = [Runner(model), Runner(model)]
    for changed in (False, True):
        if changed:
            change(model)
        with torch.no_grad():
            expected = model.logits(model(torch.tensor([1, 2, 3, 4]), Ragged([4])).hidden_ND)[2:].log_softmax(-1)
        caches = [runner.new_cache(2, 8) for runner in runners]
        for runner, cache in zip(runners, caches, strict=True):
            runner.prefill([[1, 2]], cache, [0])
        for position, token in enumerate((3, 4)):
            found = [r.decode(torch.tensor([token]), c)[0] for r, c in zip(runners, caches, strict=True)]
            for logits in found:
                torch.testing.assert_close(logits.log_softmax(-1), expected[position], atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("name", "small", "large", "cache"),
    [
        ("tiny", PackedLatentDecoder, AbsorbedDecoder, LatentCache),
        ("llama-tiny", PackedDenseDecoder, DenseDecoder, KeyValueCache),
    ],
)
def test_the_decoder_is_by_family_and_type_of_number(name: str, small: type, large: type, cache: type) -> None:
    model = made(name)
    runner = Runner(model)
    assert type(runner.decoder()) is small
    assert runner.decoder() is runner.decoder(), "it is made once for the same weights"
    assert type(runner.new_cache(1, 4)) is cache
    model.to(torch.bfloat16)
    assert type(runner.decoder()) is large


def test_a_cache_for_drafts_has_room_for_them() -> None:
    cache = Runner(made("tiny")).new_cache(2, 8, drafts=1)
    assert isinstance(cache, DraftCache)
    assert (cache.max_length, cache.modules) == (9, 1)
