"""Pretraining throughput of a preset on this machine's cores, as a share of what its matrix products can do.

    python bench/train.py                      two one-thread processes, tiny preset, 32 x 256 tokens each
    python bench/train.py --mtp-share 1 --rounds 5

One process per core with one thread each, all at once, as `aha run` starts them. Each round times square float32
matrix products (best of 1024, 2048, 4096), then steps of the pretraining stage as `r1-zero-tiny` has it (documents made
and packed, forward, backward, gradients summed over the processes, Muon and AdamW, routing biases), then products
again. The share is 6 x active parameters x tokens/s over the product rate of the same round, where active parameters
are those in matrix products: no embedding, which is a lookup, but the prediction module and its pass through the head,
on the rows that it is trained on. Attention scores, Muon and the documents are work that this does not count. The
share is of processor seconds, so that other programs on the machine disturb it less; tokens/s are by the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from typing import Any

SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "passive",
    "GOMP_SPINCOUNT": "0",
    "MALLOC_MMAP_THRESHOLD_": str(4 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}


def main() -> None:
    """Starts the workers, leads them through the rounds and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--preset", default="tiny")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rows", type=int, default=32, help="sequences per process and step")
    parser.add_argument("--length", type=int, default=256, help="tokens per sequence")
    parser.add_argument("--mtp-share", type=float, help="rows with prediction modules (default: the recipe's)")
    parser.add_argument("--steps", type=int, default=6, help="steps per round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--changes", default="{}", help="fields of the configuration, as JSON")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(arguments)
    else:
        report(lead(arguments), arguments)


def lead(arguments: argparse.Namespace) -> list[list[dict[str, float]]]:
    """Runs all workers through the same phases at once; one list of results per round."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker"]
    size = str(arguments.processes)
    group = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    workers = [
        subprocess.Popen(
            command,
            env=os.environ | SETTINGS | group | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(arguments.processes)
    ]

    def together(phase: str) -> list[dict[str, float]]:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.write(phase + "\n")
            worker.stdin.flush()
        return [json.loads(worker.stdout.readline()) for worker in workers if worker.stdout is not None]

    together("warm")
    rounds = []
    for _ in range(arguments.rounds):
        before, trained, after = together("products"), together("train"), together("products")
        rounds.append(
            [
                step | {"product_rate": max(a["product_rate"], b["product_rate"])}
                for a, step, b in zip(before, trained, after, strict=True)
            ]
        )
    for worker in workers:
        worker.communicate("end\n")
    return rounds


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def report(rounds: list[list[dict[str, float]]], arguments: argparse.Namespace) -> None:
    """Prints one line per round, and medians with their spread."""
    print(
        f"{arguments.preset}, {arguments.processes} processes x {arguments.rows} x {arguments.length} tokens per step"
    )
    print(f"{rounds[0][0]['active'] / 1e6:.3f}M active parameters in products; load {os.getloadavg()[0]:.2f}")
    print(f"{'round':>5} {'tokens/s':>10} {'ms/step':>9} {'sgemm GF/s':>11} {'share':>7}")
    shares, rates = [], []
    for number, results in enumerate(rounds, start=1):
        rate = sum(r["tokens_per_s"] for r in results)
        product = sum(r["product_rate"] for r in results)
        share = 6 * results[0]["active"] * sum(r["tokens_per_processor_s"] for r in results) / product
        shares.append(share)
        rates.append(rate)
        milliseconds = statistics.mean(r["ms_per_step"] for r in results)
        print(f"{number:>5} {rate:>10.0f} {milliseconds:>9.1f} {product / 1e9:>11.1f} {share:>7.1%}")
    print(f"{'all':>5} {statistics.median(rates):>10.0f} {'':>9} {'':>11} {statistics.median(shares):>7.1%}", end="")
    print(f"  (share {min(shares):.1%} to {max(shares):.1%}, tokens/s {min(rates):.0f} to {max(rates):.0f})")


def work(arguments: argparse.Namespace) -> None:
    """Answers the leader's phases until it says end."""
    import torch

    torch.set_num_threads(1)
    trainer = Trainer(arguments)
    for line in sys.stdin:
        phase = line.strip()
        result: dict[str, float] = {}
        if phase == "warm":
            trainer.train(3)
        elif phase == "products":
            result = {"product_rate": product_rate()}
        elif phase == "train":
            result = trainer.train(arguments.steps)
        else:
            return
        print(json.dumps(result), flush=True)


def product_rate() -> float:
    """Best floating-point operations per second of square float32 matrix products."""
    import torch

    best = 0.0
    for size, repeats in ((1024, 8), (2048, 3), (4096, 1)):
        a = torch.randn(size, size)
        out = torch.empty(size, size)
        for _ in range(repeats):
            start = time.process_time()
            torch.mm(a, a, out=out)
            best = max(best, 2 * size**3 / (time.process_time() - start))
    return best


class Trainer:
    """The stage's own training loop, step by step, on the recipe's corpus."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        from types import SimpleNamespace

        from aha.recipes.r1_zero import r1_zero_tiny
        from aha.stages.pretrain import ModelChoice, Pretrainer, build_model, make_rows, train_tokenizer
        from aha.training.distributed import Distributed
        from aha.training.parallel import ParallelConfig

        changes = {"model": ModelChoice(preset=arguments.preset, changes=json.loads(arguments.changes))}
        sizes = {"rows_per_step": arguments.rows * arguments.processes, "row_tokens": arguments.length}
        shares = {} if arguments.mtp_share is None else {"mtp_share": arguments.mtp_share}
        config = r1_zero_tiny().pretrain.model_copy(update={**changes, **sizes, **shares})
        context = SimpleNamespace(
            seed=0, distributed=Distributed.join("cpu"), parallel=ParallelConfig(), derive_seed=lambda *parts: 0
        )
        tokenizer = train_tokenizer(config, 0)
        model = build_model(config, tokenizer, context)  # type: ignore[arg-type]
        self.stage = Pretrainer(config, model, make_rows(config, tokenizer, context), context)  # type: ignore[arg-type]
        self.active = active_in_products(model, config.mtp_share)
        self.tokens = arguments.rows * arguments.length
        self.steps = 0

    def train(self, steps: int) -> dict[str, float]:
        """Median time of training steps."""
        times = []
        for _ in range(steps):
            clock, processor = time.perf_counter(), time.process_time()
            self.stage.step(self.steps)
            self.steps += 1
            times.append((time.perf_counter() - clock, time.process_time() - processor))
        by_clock, by_processor = (statistics.median(column) for column in zip(*times, strict=True))
        return {
            "ms_per_step": 1e3 * by_clock,
            "tokens_per_s": self.tokens / by_clock,
            "tokens_per_processor_s": self.tokens / by_processor,
            "active": self.active,
        }


def active_in_products(model: Any, mtp_share: float) -> float:
    """Parameters that one token meets in matrix products, prediction modules weighed by their share of the rows."""
    config = model.config
    total = mtp_share * config.num_nextn_predict_layers * model.lm_head.weight.numel()
    for name, parameter in model.named_parameters():
        share = mtp_share if name.startswith("mtp.") else 1.0
        if ".experts." in name and "shared" not in name:
            total += share * parameter.numel() * config.num_experts_per_tok / config.n_routed_experts
        elif parameter.dim() > 1 and name != "embed_tokens.weight":
            total += share * parameter.numel()
    return total


if __name__ == "__main__":
    main()
