"""MLA's decode step over the latent cache: bytes of cache read per second, and of cache and weights together.

    python bench/gpu/mla_decode.py [--shape v2-lite] [--layers 4] [--contexts 1024 8192 32768] [--batches 1 32]

A step at a context reads that many entries of every layer once; what it takes longer than a step at a context of 16 is
what reading them takes. Beside it the device's own rate, measured by copying a gigabyte (read and written).
"""

from __future__ import annotations

import statistics

import torch
from shapes import arguments, config_of, dtype_of, heading, random_model, seconds, spread

from aha.inference.runner import Runner
from aha.models.language_model import LanguageModel

SHORT = 16


def main() -> None:
    """Measures every point and prints the table."""
    parser = arguments(__doc__, "v2-lite")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 8192, 32_768])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    options = parser.parse_args()
    model = random_model(config_of(options.shape, options.layers or 4), options.device, dtype_of(options)).eval()
    print(heading(options) + f", {len(model.layers)} layers; copying: {copy_rate(options.device):,.0f} GB/s\n")
    print("| context | batch | ms per step | cache, GB/s | cache and weights, GB/s |\n|---|---|---|---|---|")
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    for context in options.contexts:
        for batch in options.batches:
            longer, bytes_per_token = step(model, batch, context, options)
            shorter, _ = step(model, batch, SHORT, options)
            read = batch * bytes_per_token * (context - SHORT)
            extra = max(1e-9, statistics.median(longer) - statistics.median(shorter))
            whole = (batch * bytes_per_token * context + weights) / statistics.median(longer)
            milliseconds = spread([1e3 * one for one in longer], 3)
            rates = f"{read / extra / 1e9:,.0f} | {whole / 1e9:,.0f}"
            print(f"| {context:,} | {batch} | {milliseconds} | {rates} |", flush=True)


def step(model: LanguageModel, batch: int, context: int, options: object) -> tuple[list[float], int]:
    """Seconds of a decode step, and what one token holds in the cache. The context grows by the few steps timed."""
    device, repeats = str(getattr(options, "device", "cpu")), int(getattr(options, "repeats", 1))
    runner = Runner(model)
    cache = runner.new_cache(batch, context + repeats + 8)
    prompt = list(range(3, 3 + SHORT - 1))
    runner.prefill([prompt] * batch, cache, range(batch))
    cache.start(range(batch), [context - 1] * batch)  # entries that were never written are zeros, and as slow to read
    ids = torch.full((batch,), 5, device=device)
    return seconds(lambda: runner.decode(ids, cache), device, repeats), cache.bytes_per_token


def copy_rate(device: str) -> float:
    """Gigabytes read and written per second by a copy within the device."""
    source = torch.zeros(1 << (28 if device.startswith("cuda") else 24), device=device)
    target = torch.empty_like(source)
    return 2 * source.numel() * 4 / min(seconds(lambda: target.copy_(source), device, 5)) / 1e9


if __name__ == "__main__":
    main()
