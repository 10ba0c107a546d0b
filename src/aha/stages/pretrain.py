"""Pretraining a model on the laptop world's corpus (V3 section 4, at another scale).

Next-token loss, the prediction modules' loss (V3 Eqs. 24-25), the sequence-wise balance loss (Eq. 17), and the bias
update after each step. Rows are pure functions of (seed, row number), so any number of processes trains on the same
global batch.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from aha.configuration import Config
from aha.data.stream import TokenizedDocument, packed_documents
from aha.data.text import DOCUMENTS, TextConfig, TokenizedText, is_held_out
from aha.files import derive_seed
from aha.models.config.base import ModelConfig
from aha.models.config.presets import PRESETS, preset
from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import Layout, MaskedRows, PositionGap, Rectangle
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

Rows = Callable[[int, int], list[TokenizedDocument]]
"""The documents in row number n, of a length in tokens."""
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
    first_corpus: CorpusConfig | None = Field(
        None, description="what the corpus is made of in the first steps; None: of the same as later"
    )
    first_share: float = Field(0.3, ge=0, le=1, description="share of the steps that read first_corpus")
    text: TextConfig | None = Field(None, description="text of one's own instead of the laptop world's corpus")
    vocab_size: int = Field(640, ge=300, description="token ids of the tokenizer, trained on the corpus")
    tokenizer_documents: int = Field(10_000, gt=0, description="documents that the tokenizer is trained on")
    steps: int = Field(640, gt=0, description="optimizer steps")
    rows_per_step: int = Field(64, gt=0, description="rows in the global batch")
    row_tokens: int = Field(256, gt=8, description="tokens in a row")
    mask_documents: bool = Field(False, description="documents packed in a row do not see each other (V3 4.1: they do)")
    position_gaps: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of documents whose positions jump once, at a random token: what is far "
        "back is then known from documents that are short; needs mask_documents",
    )
    longest_gap: int = Field(128, gt=0, description="positions that such a jump leaves out, at most")
    unpredictable_weight: float = Field(
        1.0,
        ge=0,
        le=1,
        description="weight in the loss of tokens of the corpus that nothing before them foretells: "
        "operands of a question, guesses",
    )
    micro_rows: int = Field(0, ge=0, description="rows per forward pass, over which gradients add up; 0: all at once")
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig, description="rates and schedule")
    mtp_weight: float = Field(0.3, ge=0, description="lambda of V3 Eq. 25 (0.3 for the first 10T tokens)")
    mtp_share: float = Field(
        0.25,
        gt=0,
        le=1,
        description="share of the rows on which the prediction modules are trained; of few rows choose one that gives "
        "each process as many: the others wait for the one that has more",
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
        model = self.model.resolve(self.vocab_size)
        if self.position_gaps and not self.mask_documents:
            raise ValueError(
                "position_gaps needs documents with positions of their own: set mask_documents to true, or "
                "position_gaps to 0"
            )
        if self.position_gaps and self.row_tokens + self.longest_gap > model.max_position_embeddings:
            raise ValueError(
                f"row_tokens + longest_gap must be at most the model's max_position_embeddings = "
                f"{model.max_position_embeddings}, got {self.row_tokens} + {self.longest_gap}: lower one of them, or "
                "raise model.changes.max_position_embeddings"
            )
        return self

    def first_rows(self) -> int:
        """Rows of the steps that read `first_corpus`."""
        return 0 if self.first_corpus is None else round(self.first_share * self.steps) * self.rows_per_step


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
        written = (document(config.corpus, seed, -1 - index) for index in range(config.tokenizer_documents))
        documents = ("".join(piece.text for piece in pieces) for pieces in written)
    return Tokenizer.train(documents, config.vocab_size, CHAT_TEMPLATE)


def make_rows(config: PretrainConfig, tokenizer: Tokenizer, context: StageContext) -> Rows:
    """The rows to train on, a function of (seed, row number); one's own text is tokenized here, once."""
    seed = derive_seed(context.seed, Pretrain.kind, "corpus")  # one stream for all models of a run
    if config.text is None:
        later, first = (
            partial(document, corpus, seed) for corpus in (config.corpus, config.first_corpus or config.corpus)
        )
        first_rows = config.first_rows()
        return lambda number, length: packed_documents(
            first if number < first_rows else later, tokenizer, number, length
        )
    if context.distributed.is_first and not (context.folder / DOCUMENTS).exists():
        with context.progress.task(f"{context.name}: reading text", 0) as task:
            TokenizedText.write(context.folder, _encoded(config.text, tokenizer, task), tokenizer.vocab_size)
    context.distributed.barrier()
    text = TokenizedText(context.folder, tokenizer.vocab_size)
    words = f"{text.num_tokens(False):,} tokens to train on, {text.num_tokens(True):,} held out"
    context.progress.notify(f"{context.name}: {words}")

    def row(number: int, length: int) -> list[TokenizedDocument]:
        held_out = number >= VALIDATION_ROW
        found = text.row(number - VALIDATION_ROW if held_out else number, length, seed, held_out)
        return [TokenizedDocument(ids, [True] * len(ids)) for ids in found]

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


class Batch(NamedTuple):
    """Some rows, each flattened."""

    ids_N: Tensor  # noqa: N815
    """Inputs."""
    targets_N: Tensor  # noqa: N815
    """The token after each."""
    weights_N: Tensor  # noqa: N815
    """Of each target in the loss, float32."""
    documents: list[list[int]]
    """Lengths of each row's documents among the inputs."""
    gaps: list[list[PositionGap]]
    """Of these documents' positions; empty without gaps."""

    def first(self, rows: int) -> Batch:
        """The first rows alone."""
        tokens = rows * len(self.ids_N) // len(self.documents)
        ids_N, targets_N, weights_N = (x[:tokens] for x in (self.ids_N, self.targets_N, self.weights_N))
        return Batch(ids_N, targets_N, weights_N, self.documents[:rows], self.gaps[:rows])


class Pretrainer(TrainingLoop):
    """Next-token prediction on rows of packed documents; a process takes every `world_size`-th row of a step."""

    def __init__(self, config: PretrainConfig, model: LanguageModel, rows: Rows, context: StageContext) -> None:
        self.config, self.model, self.rows = config, model, rows
        self._gap_seed = context.derive_seed("position_gaps")
        self._trains_mtp = bool(config.mtp_weight and model.mtp)
        update = Update(
            model,
            config.optimizer,
            config.steps,
            context.distributed,
            context.parallel,
            sums=("loss", "mtp_loss", "balance_loss", "weight"),
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
        tokens = config.rows_per_step * config.row_tokens
        self.num_tokens += tokens
        weight = stepped.sums.pop("weight")
        # The step divides by all tokens, whatever they weigh; what is logged is a mean.
        mean = stepped.sums["loss"] * (tokens / weight) if weight else 0.0
        return stepped.sums | {"loss": mean} | stepped.metrics

    def _backward(self, part: tuple[range, int]) -> PassReport:
        """Adds the gradient of some rows, from this process's n-th on; their share of the batch's mean losses."""
        rows, start = part
        share = len(rows) / self.config.rows_per_step
        batch = self._batch(rows)
        hidden = self.model(batch.ids_N, self._layout(batch))
        logprobs_N, _ = chunked_logprobs(hidden.hidden_ND, self.model.head_weight, batch.targets_N, entropy=False)
        zero = logprobs_N.new_zeros(())
        loss, mtp_loss, balance = -(logprobs_N * batch.weights_N).mean() * share, zero, zero
        if hidden.balance_loss is not None:
            balance = hidden.balance_loss * share
        counts = [hidden.router_counts]
        if self._trains_mtp:
            outputs, mtp_loss, mtp_balance = self._mtp(hidden, batch, start)
            balance = balance + mtp_balance
            counts += [output.router_counts for output in outputs]
            counts += [counts[0].new_zeros(1, counts[0].shape[1])] * (len(self.model.mtp) - len(outputs))
        (loss + self.config.mtp_weight * mtp_loss + balance).backward()
        sums = {"loss": loss.detach(), "mtp_loss": mtp_loss.detach(), "balance_loss": balance.detach()}
        sums["weight"] = batch.weights_N.sum()
        return PassReport(sums, torch.cat(counts))

    def _mtp(self, hidden: HiddenStates, batch: Batch, start: int) -> tuple[list[HiddenStates], Tensor, Tensor]:
        """The prediction modules on these rows' part of the first `mtp_share` of the global batch."""
        config, distributed = self.config, self.context.distributed
        wanted = max(1, round(config.mtp_share * config.rows_per_step))
        zero = batch.weights_N.new_zeros(())
        own = max(0, min(len(batch.documents), len(range(distributed.rank, wanted, distributed.world_size)) - start))
        if own == 0 and not self.context.parallel.spreads:
            return [], zero, zero
        part = batch.first(max(own, 1))  # one row for nothing, beside other processes
        layout = self._layout(part)
        first = replace(hidden, hidden_ND=hidden.hidden_ND[: layout.num_tokens])
        outputs = self.model.mtp_hidden(first, part.ids_N, layout)
        balance = sum((output.balance_loss for output in outputs if output.balance_loss is not None), zero)
        loss = self._mtp_loss(outputs, part, layout)
        return outputs if own else [], loss * (own / wanted), balance * (own / wanted)

    def _mtp_loss(self, outputs: list[HiddenStates], batch: Batch, layout: Layout) -> Tensor:
        """Mean over depths of the cross-entropy of token i + k + 1 (V3 Eqs. 24-25), times that token's weight.

        Over the T - k - 1 targets of a row; where documents are masked, targets in another document count as 0.
        """
        total = batch.weights_N.new_zeros(())
        for depth, output in enumerate(outputs, start=1):
            targets_N, there_N = layout.shift(batch.ids_N, depth + 1)
            weights_N, _ = layout.shift(batch.weights_N, depth)  # those of the next token, so one place less
            logprobs_N, _ = chunked_logprobs(output.hidden_ND, self.model.head_weight, targets_N, entropy=False)
            weighted = (logprobs_N * there_N * weights_N).sum()
            total = total - weighted / (len(batch.documents) * (self.config.row_tokens - depth - 1))
        return total / max(1, len(outputs))

    def _batch(self, rows: range) -> Batch:
        config, device = self.config, self.context.distributed.device
        found = [self.rows(row, config.row_tokens + 1) for row in rows]
        ids_BX = torch.tensor([[token for one in row for token in one.ids] for row in found], device=device)
        predictable = torch.tensor([[flag for one in row for flag in one.predictable] for row in found], device=device)
        weights_BX = torch.where(predictable, 1.0, config.unpredictable_weight)
        lengths = [_inputs([len(one.ids) for one in row]) for row in found]
        gaps = [self._gaps(row, own) for row, own in zip(rows, lengths, strict=True)] if config.position_gaps else []
        return Batch(ids_BX[:, :-1].flatten(), ids_BX[:, 1:].flatten(), weights_BX[:, 1:].flatten(), lengths, gaps)

    def _gaps(self, row: int, lengths: Sequence[int]) -> list[PositionGap]:
        """Jumps of the documents' positions; rows of the held-out loss have none."""
        gaps = []
        for number, length in enumerate(lengths):
            rng = random.Random(f"{self._gap_seed}:{row}:{number}")
            jumps = row < VALIDATION_ROW and rng.random() < self.config.position_gaps and length > 1
            start, size = (rng.randrange(1, length), rng.randint(1, self.config.longest_gap)) if jumps else (0, 0)
            gaps.append(PositionGap(start, size))
        return gaps

    def _layout(self, batch: Batch) -> Layout:
        device = self.context.distributed.device
        if self.config.mask_documents:
            return MaskedRows(batch.documents, device, [gap for row in batch.gaps for gap in row])
        return Rectangle(len(batch.documents), self.config.row_tokens, device)

    @torch.no_grad()
    def validate(self) -> float | None:
        """Next-token loss on documents that no step has seen; None where the configuration asks for no such rows."""
        config, distributed = self.config, self.context.distributed
        rows = range(VALIDATION_ROW + distributed.rank, VALIDATION_ROW + config.validation_rows, distributed.world_size)
        total = torch.zeros(2, dtype=torch.float64)
        idle = dummy_passes(min(1, len(rows)), self.context.parallel, distributed)
        if len(rows):
            batch = self._batch(rows)
            hidden = self.model(batch.ids_N, self._layout(batch))
            logprobs_N, _ = chunked_logprobs(hidden.hidden_ND, self.model.head_weight, batch.targets_N, entropy=False)
            weights_N = batch.weights_N.double()
            total += torch.tensor([-float((logprobs_N.double() * weights_N).sum()), float(weights_N.sum())])
        elif idle:
            dummy_pass(self.model)
        reshard(self.model)
        distributed.all_reduce_sum([total])
        return float(total[0] / total[1]) if total[1] else None


def _inputs(lengths: Sequence[int]) -> list[int]:
    """Lengths of a row's documents without its last token, which is a target only."""
    *whole, last = lengths
    return [*whole, last - 1] if last > 1 else whole
