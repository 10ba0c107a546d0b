"""Pretraining a model on the laptop world's corpus (V3 section 4, at another scale).

Next-token loss, the prediction modules' loss (V3 Eqs. 24-25), the sequence-wise balance loss (Eq. 17), and the bias
update after each step. Rows are pure functions of (seed, row number), so any number of processes trains on the same
global batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from aha.configuration import Config
from aha.data.stream import packed_documents
from aha.data.text import DOCUMENTS, TextConfig, TokenizedText, is_held_out
from aha.files import derive_seed
from aha.models.config.base import ModelConfig
from aha.models.config.presets import PRESETS, preset
from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import Layout, MaskedRows, Rectangle
from aha.models.model_from_config import build
from aha.tasks.corpus import CorpusConfig, document
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer
from aha.training.logprobs import chunked_logprobs
from aha.training.loop import TrainingLoop
from aha.training.optimizer import OptimizerConfig
from aha.training.progress import Task
from aha.training.sharding import dummy_pass, dummy_passes, reshard
from aha.training.stage import StageContext, StageResult
from aha.training.trained_model import save_trained
from aha.training.update import PassReport, Update

Rows = Callable[[int, int], list[list[int]]]
"""The documents' token ids in row number n, of a length in tokens."""
VALIDATION_ROW = 10**12
"""Row number from which the rows of the held-out loss are taken: no training step ever reaches it."""


class ModelChoice(Config):
    """A named size with changes to single fields."""

    preset: str = Field("tiny", description=f"named size: {', '.join(PRESETS)}")
    changes: dict[str, Any] = Field(
        default_factory=dict, description="fields of config.json that differ from the preset"
    )

    def resolve(self, vocab_size: int) -> ModelConfig:
        """The model's configuration for a tokenizer."""
        return preset(self.preset, vocab_size=vocab_size, **self.changes)


class PretrainConfig(Config):
    """Everything that pretraining depends on, apart from the seed."""

    model: ModelChoice = Field(default_factory=ModelChoice, description="size of the model")
    corpus: CorpusConfig = Field(default_factory=CorpusConfig, description="what the laptop world's corpus is made of")
    text: TextConfig | None = Field(None, description="text of one's own instead of the laptop world's corpus")
    vocab_size: int = Field(640, ge=300, description="token ids of the tokenizer, trained on the corpus")
    tokenizer_documents: int = Field(10_000, gt=0, description="documents that the tokenizer is trained on")
    steps: int = Field(640, gt=0, description="optimizer steps")
    rows_per_step: int = Field(64, gt=0, description="rows in the global batch")
    row_tokens: int = Field(256, gt=8, description="tokens in a row")
    mask_documents: bool = Field(False, description="documents packed in a row do not see each other (V3 4.1: they do)")
    micro_rows: int = Field(0, ge=0, description="rows per forward pass, over which gradients add up; 0: all at once")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="rates and schedule")
    mtp_weight: float = Field(0.3, ge=0, description="lambda of V3 Eq. 25 (0.3 for the first 10T tokens)")
    mtp_share: float = Field(
        0.25, gt=0, le=1, description="share of the rows on which the prediction modules are trained"
    )
    bias_update_rate: float = Field(0.001, ge=0, description="gamma of the balance rule (V3 4.2)")
    validation_rows: int = Field(32, ge=0, description="rows of fresh documents for the held-out loss")
    validate_every: int = Field(100, gt=0, description="steps between held-out losses")
    log_every: int = Field(10, gt=0, description="steps between rows in metrics.jsonl")

    def data_identity(self) -> str:
        """Of one's own text."""
        return "" if self.text is None else self.text.data_identity()

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        self.model.resolve(self.vocab_size)
        return self


class Pretrain:
    """The stage: from random weights to a base model with its tokenizer."""

    kind: ClassVar[str] = "pretrain"

    def run(self, context: StageContext) -> StageResult:
        """Trains, or goes on training, and writes the model folder."""
        config = context.config
        assert isinstance(config, PretrainConfig)
        tokenizer = train_tokenizer(config, context.seed)
        rows = make_rows(config, tokenizer, context)
        trainer = Pretrainer(config, build_model(config, tokenizer, context), rows, context)
        trainer.train()
        loss = trainer.validate()
        save_trained(trainer.model, context.model_folder, tokenizer.files(), context.distributed)
        return StageResult({"held_out_loss": loss}, tokens_trained=trainer.num_tokens)


def train_tokenizer(config: PretrainConfig, seed: int) -> Tokenizer:
    """Trains the tokenizer: on the first documents of one's own text, or on a stream of the corpus apart."""
    documents: Iterable[str]
    if config.text is not None:
        share = config.text.held_out
        trained = (text for text in config.text.documents() if not is_held_out(text, share))
        documents = itertools.islice(trained, config.tokenizer_documents)
    else:
        documents = (
            "".join(p.text for p in document(config.corpus, seed, -1 - index))
            for index in range(config.tokenizer_documents)
        )
    return Tokenizer.train(documents, config.vocab_size, CHAT_TEMPLATE)


def make_rows(config: PretrainConfig, tokenizer: Tokenizer, context: StageContext) -> Rows:
    """The rows to train on, a function of (seed, row number); one's own text is tokenized here, once."""
    seed = derive_seed(context.seed, Pretrain.kind, "corpus")  # one stream for all models of a run
    if config.text is None:
        write = lambda index: "".join(p.text for p in document(config.corpus, seed, index))
        return lambda number, length: packed_documents(write, tokenizer, number, length)
    if context.distributed.is_first and not (context.folder / DOCUMENTS).exists():
        with context.progress.task(f"{context.name}: reading text", 0) as task:
            TokenizedText.write(context.folder, _encoded(config.text, tokenizer, task), tokenizer.vocab_size)
    context.distributed.barrier()
    text = TokenizedText(context.folder, tokenizer.vocab_size)
    words = f"{text.num_tokens(False):,} tokens to train on, {text.num_tokens(True):,} held out"
    context.progress.notify(f"{context.name}: {words}")

    def row(number: int, length: int) -> list[list[int]]:
        held_out = number >= VALIDATION_ROW
        return text.row(number - VALIDATION_ROW if held_out else number, length, seed, held_out)

    return row


def _encoded(config: TextConfig, tokenizer: Tokenizer, task: Task) -> Iterator[tuple[list[int], bool]]:
    """Documents with their begin and end tokens, and whether they are held out. Control tokens in them are text."""
    begin = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
    for done, text in enumerate(config.documents(), start=1):
        yield [*begin, *tokenizer.encode(text), tokenizer.eos_id], is_held_out(text, config.held_out)
        task.update(done)


def build_model(config: PretrainConfig, tokenizer: Tokenizer, context: StageContext) -> LanguageModel:
    """A model with random weights, the same in every process."""
    model = build(config.model.resolve(tokenizer.vocab_size))
    model.init_weights(torch.Generator().manual_seed(context.derive_seed("weights")))
    return model.to(**context.placement)


class Pretrainer(TrainingLoop):
    """Next-token prediction on rows of packed documents; a process takes every `world_size`-th row of a step."""

    def __init__(self, config: PretrainConfig, model: LanguageModel, rows: Rows, context: StageContext) -> None:
        self.config, self.model, self.rows = config, model, rows
        self._trains_mtp = bool(config.mtp_weight and model.mtp)
        update = Update(
            model,
            config.optimizer,
            config.steps,
            context.distributed,
            context.parallel,
            sums=("loss", "mtp_loss", "balance_loss"),
            bias_update_rate=config.bias_update_rate,
            prediction_modules="joint" if self._trains_mtp else "frozen",
        )
        super().__init__(context, update, config.steps, config.log_every)

    def between_steps(self, done: int) -> None:
        """The held-out loss, now and then."""
        if self.config.validation_rows and done and done % self.config.validate_every == 0:
            self.context.metrics.write({"step": done - 1, "held_out_loss": self.validate()})

    def step(self, step: int) -> dict[str, Any]:
        """One optimizer step on the global batch; returns its metrics."""
        config, distributed = self.config, self.context.distributed
        first = step * config.rows_per_step
        rows = range(first + distributed.rank, first + config.rows_per_step, distributed.world_size)
        size = config.micro_rows or max(1, len(rows))
        starts = range(0, len(rows), size)
        stepped = self.update.step([(rows[start : start + size], start) for start in starts], self._backward)
        self.num_tokens += config.rows_per_step * config.row_tokens
        return stepped.sums | stepped.metrics

    def _backward(self, part: tuple[range, int]) -> PassReport:
        """Adds the gradient of some rows, from this process's n-th on; their share of the batch's mean losses."""
        rows, start = part
        share = len(rows) / self.config.rows_per_step
        ids_N, targets_N, documents = self._batch(rows)
        layout = self._layout(documents)
        hidden = self.model(ids_N, layout)
        logprobs_N, _ = chunked_logprobs(hidden.hidden_ND, self.model.head_weight, targets_N, entropy=False)
        zero = logprobs_N.new_zeros(())
        loss, mtp_loss, balance = -logprobs_N.mean() * share, zero, zero
        if hidden.balance_loss is not None:
            balance = hidden.balance_loss * share
        counts = [hidden.router_counts]
        if self._trains_mtp:
            outputs, mtp_loss, mtp_balance = self._mtp(hidden, ids_N, start, documents)
            balance = balance + mtp_balance
            counts += [output.router_counts for output in outputs]
            counts += [counts[0].new_zeros(1, counts[0].shape[1])] * (len(self.model.mtp) - len(outputs))
        (loss + self.config.mtp_weight * mtp_loss + balance).backward()
        sums = {"loss": loss.detach(), "mtp_loss": mtp_loss.detach(), "balance_loss": balance.detach()}
        return PassReport(sums, torch.cat(counts))

    def _mtp(
        self, hidden: HiddenStates, ids_N: Tensor, start: int, documents: list[list[int]]
    ) -> tuple[list[HiddenStates], Tensor, Tensor]:
        """The prediction modules on these rows' part of the first `mtp_share` of the global batch."""
        config, distributed = self.config, self.context.distributed
        wanted = max(1, round(config.mtp_share * config.rows_per_step))
        zero = ids_N.new_zeros((), dtype=torch.float32)
        own = max(0, min(len(documents), len(range(distributed.rank, wanted, distributed.world_size)) - start))
        if own == 0 and not self.context.parallel.spreads:
            return [], zero, zero
        layout = self._layout(documents[: max(own, 1)])  # one row for nothing, beside other processes
        first = replace(hidden, hidden_ND=hidden.hidden_ND[: layout.num_tokens])
        outputs = self.model.mtp_hidden(first, ids_N[: layout.num_tokens], layout)
        balance = sum((output.balance_loss for output in outputs if output.balance_loss is not None), zero)
        loss = self._mtp_loss(outputs, ids_N[: layout.num_tokens], layout, max(own, 1))
        return outputs if own else [], loss * (own / wanted), balance * (own / wanted)

    def _mtp_loss(self, outputs: list[HiddenStates], ids_N: Tensor, layout: Layout, rows: int) -> Tensor:
        """Mean over depths of the cross-entropy of token i + k + 1 (V3 Eqs. 24-25).

        Over the T - k - 1 targets of a row; where documents are masked, targets in another document count as 0.
        """
        total = ids_N.new_zeros((), dtype=torch.float32)
        for depth, output in enumerate(outputs, start=1):
            targets_N, there_N = layout.shift(ids_N, depth + 1)
            logprobs_N, _ = chunked_logprobs(output.hidden_ND, self.model.head_weight, targets_N, entropy=False)
            total = total - (logprobs_N * there_N).sum() / (rows * (self.config.row_tokens - depth - 1))
        return total / max(1, len(outputs))

    def _batch(self, rows: range) -> tuple[Tensor, Tensor, list[list[int]]]:
        """Inputs and targets of some rows, each flattened, and the lengths of each row's documents among the inputs."""
        length = self.config.row_tokens + 1
        found = [self.rows(row, length) for row in rows]
        ids = [[token for document in documents for token in document] for documents in found]
        ids_BX = torch.tensor(ids, device=self.context.distributed.device)
        return ids_BX[:, :-1].flatten(), ids_BX[:, 1:].flatten(), [_inputs(documents) for documents in found]

    def _layout(self, documents: list[list[int]]) -> Layout:
        device = self.context.distributed.device
        if self.config.mask_documents:
            return MaskedRows(documents, device)
        return Rectangle(len(documents), self.config.row_tokens, device)

    @torch.no_grad()
    def validate(self) -> float | None:
        """Next-token loss on documents that no step has seen; None where the configuration asks for no such rows."""
        config, distributed = self.config, self.context.distributed
        rows = range(VALIDATION_ROW + distributed.rank, VALIDATION_ROW + config.validation_rows, distributed.world_size)
        total = torch.zeros(2, dtype=torch.float64)
        idle = dummy_passes(min(1, len(rows)), self.context.parallel, distributed)
        if len(rows):
            ids_N, targets_N, documents = self._batch(rows)
            hidden = self.model(ids_N, self._layout(documents))
            logprobs_N, _ = chunked_logprobs(hidden.hidden_ND, self.model.head_weight, targets_N, entropy=False)
            total += torch.tensor([-float(logprobs_N.double().sum()), float(logprobs_N.numel())])
        elif idle:
            dummy_pass(self.model)
        reshard(self.model)
        distributed.all_reduce_sum([total])
        return float(total[0] / total[1]) if total[1] else None


def _inputs(documents: list[list[int]]) -> list[int]:
    """Lengths of a row's documents without its last token, which is a target only."""
    *whole, last = map(len, documents)
    return [*whole, last - 1] if last > 1 else whole
