"""The decode step with fixed shapes, as CUDA graphs run it: the plain step's logits, whatever rounds the batch up."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from aha.inference.decoding.dense import DenseDecoder
from aha.inference.decoding.graphed import CudaCapture, GraphedDecoder, Replay
from aha.inference.decoding.latent import AbsorbedDecoder
from aha.inference.runner import Runner
from aha.models.config.presets import preset
from aha.models.language_model import LanguageModel
from aha.models.model_from_config import build

NAMES = ("tiny", "qwen3-tiny", "llama-tiny")


def made(name: str) -> LanguageModel:
    model = build(preset(name, vocab_size=96, initializer_range=0.08))
    return model.init_weights(torch.Generator().manual_seed(3)).eval()


def plain(model: LanguageModel) -> AbsorbedDecoder | DenseDecoder:
    kind = AbsorbedDecoder if model.config.num_moe_layers else DenseDecoder
    return kind(model)  # type: ignore[arg-type]


class Recorder:
    """Captures by running again: the buffers are a graph's, the launches are not."""

    def __init__(self) -> None:
        self.captures = 0

    def __call__(self, compute: Callable[[], Tensor]) -> Replay:
        self.captures += 1
        compute()
        return compute


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 3, 5, 20])
@torch.inference_mode()
def test_fixed_shapes_give_the_same_logits(name: str, batch: int) -> None:
    """Batches below and above the number of experts; 20 rows of 24 round up to all 24."""
    model = made(name)
    recorder = Recorder()
    decoders = (plain(model), GraphedDecoder(plain(model), recorder))
    prompts = [[(7 * row + i) % 96 for i in range(1 + row % 5)] for row in range(batch)]
    caches = [Runner(model).new_cache(24, 300) for _ in decoders]
    for cache in caches:
        Runner(model).prefill(prompts, cache, list(range(batch)))
    for step in range(132):
        tokens = torch.tensor([(11 * row + 5 * step) % 96 for row in range(batch)])
        expected, found = (decoder.step(tokens, cache) for decoder, cache in zip(decoders, caches, strict=True))
        torch.testing.assert_close(found, expected, atol=2e-5, rtol=0)
    assert recorder.captures == 2, "one graph for up to 128 tokens, one for up to 256"
    assert caches[0].lengths.tolist() == caches[1].lengths.tolist()
    plain_entries, graphed_entries = (cache.by_row[-1][:batch, :132] for cache in caches)
    torch.testing.assert_close(graphed_entries, plain_entries, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_free_rows_stay_free_and_new_weights_are_seen() -> None:
    model = made("tiny")
    decoder = GraphedDecoder(plain(model), Recorder())
    cache = Runner(model).new_cache(8, 64)
    Runner(model).prefill([[1, 2], [3], [4, 5, 6]], cache, [0, 1, 2])
    decoder.step(torch.tensor([1, 2, 3]), cache)
    assert cache.lengths.tolist() == [3, 2, 4, 0, 0, 0, 0, 0]
    other = Runner(model).new_cache(8, 64)
    model.lm_head.weight.mul_(2.0)
    Runner(model).prefill([[1, 2], [3], [4, 5, 6]], other, [0, 1, 2])
    expected = plain(model).step(torch.tensor([1, 2, 3]), other)
    cache.truncate(0, 2)
    cache.truncate(1, 1)
    cache.truncate(2, 3)
    torch.testing.assert_close(decoder.step(torch.tensor([1, 2, 3]), cache), expected, atol=2e-5, rtol=0)


@torch.inference_mode()
def test_another_cache_in_the_same_memory_gets_graphs_of_its_own() -> None:
    """An allocator gives the memory of a freed cache to the next one, here with rows of another length."""
    model, recorder, prompts = made("tiny"), Recorder(), [[1, 2], [3], [4, 5, 6]]
    runner, decoder = Runner(model), GraphedDecoder(plain(model), recorder)
    first = runner.new_cache(4, 64)
    runner.prefill(prompts, first, [0, 1, 2])
    decoder.step(torch.tensor([1, 2, 3]), first)
    second, other = runner.new_cache(4, 48), runner.new_cache(4, 48)
    second.entries = first.entries.flatten()[: second.entries.numel()].view(second.entries.shape)
    second.by_row = list(second.entries.unbind())
    second.by_slot = [layer.view(-1, second.width) for layer in second.by_row]
    assert second.entries.data_ptr() == first.entries.data_ptr()
    for cache in (second, other):
        runner.prefill(prompts, cache, [0, 1, 2])
    expected = plain(model).step(torch.tensor([1, 2, 3]), other)
    torch.testing.assert_close(decoder.step(torch.tensor([1, 2, 3]), second), expected, atol=2e-5, rtol=0)
    assert recorder.captures == 2
    decoder.step(torch.tensor([1, 2, 3]), second)
    assert recorder.captures == 2 and len(first.graphs) == len(second.graphs) == 1
    GraphedDecoder(plain(model), recorder).step(torch.tensor([1, 2, 3]), second)
    assert recorder.captures == 3 and len(second.graphs) == 1, "those of another decoder are dropped"


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
@torch.inference_mode()
def test_graphs_on_a_gpu_give_the_plain_steps_logits(name: str) -> None:
    model = made(name).to("cuda")
    decoders = (plain(model), GraphedDecoder(plain(model), CudaCapture()))
    caches = [Runner(model).new_cache(16, 200) for _ in decoders]
    for cache in caches:
        Runner(model).prefill([[1, 2, 3], [4], [5, 6]], cache, [0, 1, 2])
    for step in range(20):
        tokens = torch.tensor([step, step + 1, step + 2], device="cuda")
        expected, found = (decoder.step(tokens, cache) for decoder, cache in zip(decoders, caches, strict=True))
        torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-3)
