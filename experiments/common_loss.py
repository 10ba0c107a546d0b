"""Held-out loss of a run's pretrained models on documents that are the same for all of them.

    python experiments/common_loss.py runs/r1-zero-arms-seed0 [...]

512 rows of the recipe's own corpus, from a seed of its own: a stage's own 32 held-out rows tell models of one seed
apart, but their mean moves by 0.05 nats with the draw.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import torch

from aha.data.stream import packed_documents
from aha.models.checkpoint.hf import load_pretrained
from aha.models.layouts import Rectangle
from aha.recipes.r1_zero import r1_zero_tiny
from aha.tasks.corpus import document
from aha.text.tokenizer import Tokenizer
from aha.training.logprobs import chunked_logprobs

SEED, ROWS, AT_ONCE, FIRST_ROW = 987654321, 512, 32, 10**9


def main() -> None:
    """Prints a line per model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    for run in parser.parse_args().runs:
        for folder in sorted(run.glob("pretrain*/model")):
            print(f"{run.name} {folder.parent.name}: {loss(folder):.4f} nats per token", flush=True)


@torch.inference_mode()
def loss(folder: Path) -> float:
    """Mean next-token loss of a model."""
    model, tokenizer, config = load_pretrained(folder), Tokenizer.load(folder), r1_zero_tiny().pretrain
    make = partial(document, config.corpus, SEED)
    total = 0.0
    for first in range(FIRST_ROW, FIRST_ROW + ROWS, AT_ONCE):
        packed = (
            packed_documents(make, tokenizer, row, config.row_tokens + 1) for row in range(first, first + AT_ONCE)
        )
        ids = torch.tensor([[token for one in documents for token in one.ids] for documents in packed])
        hidden = model(ids[:, :-1].flatten(), Rectangle(AT_ONCE, config.row_tokens, ids.device))
        logprobs, _ = chunked_logprobs(hidden.hidden_ND, model.head_weight, ids[:, 1:].flatten(), entropy=False)
        total -= float(logprobs.double().mean())
    return total * AT_ONCE / ROWS


if __name__ == "__main__":
    main()
