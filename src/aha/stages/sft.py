"""Supervised fine-tuning on conversations (R1 2.3.1, 2.3.3; distillation 2.4; V3 section 5.1).

Examples are packed one after another without attention between them, and only the assistant's last turn is trained on.
The papers' settings: 2 to 3 epochs, a cosine from the initial rate to a tenth of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field, model_validator
from torch import Tensor

from aha.configuration import Config, StageName
from aha.data.conversations import ConversationFile, Example, Examples, epoch_order, micro_batches
from aha.errors import ConfigError
from aha.models.config.base import ModelConfig
from aha.models.language_model import HiddenStates, LanguageModel
from aha.models.layouts import Ragged
from aha.models.lora_linear import LoRAConfig
from aha.text.templates import with_chat_ends
from aha.text.tokenizer import Tokenizer
from aha.training.logprobs import chunked_logprobs
from aha.training.loop import TrainingLoop
from aha.training.optimizer import OptimizerConfig
from aha.training.plan import LATER, in_words, training_bytes, weights_bytes
from aha.training.prediction import Predicted, evenly_spread, prediction_loss
from aha.training.sharding import dummy_pass, dummy_passes, reshard
from aha.training.stage import StageContext, StageResult
from aha.training.trained_model import load_for_training, save_trained
from aha.training.update import PassReport, Update

EXAMPLES = "examples.jsonl"
"""The file, in a data stage's folder, that holds its conversations."""
MEASURED = 64
"""Examples by whose lengths the tokens of all are estimated."""


class SourceStage(Config):
    """Conversations that another stage made."""

    stage: StageName = Field(description="the stage whose conversations are read")
    limit: int = Field(0, ge=0, description="at most so many of them, from the front; 0 takes all")


class SFTConfig(Config):
    """Supervised fine-tuning."""

    sources: tuple[SourceStage, ...] = Field((), min_length=1, description="what is trained on")
    epochs: int = Field(2, gt=0, description="passes over the examples (R1: 2 to 3)")
    examples_per_step: int = Field(64, gt=0, description="conversations in the global batch (R1: 128; students: 64)")
    optimizer: OptimizerConfig = Field(
        default_factory=lambda: OptimizerConfig(
            adam_lr=1.5e-3, muon_lr=0.008, warmup_steps=5, schedule="cosine", decay_from=0.0, final_lr=0.1
        ),
        description="rates and schedule (R1: cosine from 5e-5 to 5e-6 at 671B)",
    )
    bias_update_rate: float = Field(0.001, ge=0, description="gamma of the routers' balance rule")
    mtp_share: float = Field(
        0.125,
        ge=0,
        le=1,
        description="share of the conversations from which the prediction modules learn beside the model; 0: they stay "
        "as they are",
    )
    validation_examples: int = Field(
        64,
        ge=0,
        description="conversations left out of training, for the held-out loss; others about the same question stay in",
    )
    micro_tokens: int = Field(16_384, gt=0, description="tokens per forward pass; gradients add up over several")
    lora: LoRAConfig | None = Field(None, description="train adapters alone; none: all weights")
    log_every: int = Field(5, gt=0, description="steps between rows in metrics.jsonl")

    @model_validator(mode="after")
    def _different(self) -> SFTConfig:
        names = [source.stage for source in self.sources]
        if len(set(names)) < len(names):
            raise ValueError(f"sources: a stage is named twice in {names}")
        return self


class SFT:
    """The stage: a parent's model, trained on other parents' conversations."""

    kind: ClassVar[str] = "sft"

    def run(self, context: StageContext) -> StageResult:
        """Trains, or goes on training, and writes the model folder."""
        config = context.config
        assert isinstance(config, SFTConfig)
        parent = context.parent_model_folder()
        model = load_for_training(context, parent, config.lora)
        tokenizer = Tokenizer.load(parent)
        model.generation_config = with_chat_ends(model.generation_config, tokenizer)
        examples = fitting(context, Examples(tokenizer, conversations(context, config)), model.config)
        need_enough(context, config, len(examples))
        trainer = SFTTrainer(config, model, examples, context)
        trainer.train()
        loss = trainer.validate()
        save_trained(model, context.model_folder, tokenizer.files(), context.distributed)
        summary = {"examples": len(trainer.trained), "held_out_loss": loss}
        return StageResult(summary, tokens_trained=trainer.num_tokens)


def fitting(context: StageContext, examples: Examples, config: ModelConfig) -> Examples:
    """The examples that are no longer than the model's context. All are looked at once, before anything is trained.

    Raises:
        ConfigError: one cannot be tokenized, or none is short enough.
    """
    own = context.distributed.share(len(examples))
    lengths: list[int] = []
    with context.progress.task(f"{context.name}: reading", len(own), 0) as task:
        for done, number in enumerate(own, start=1):
            lengths.append(examples[number].num_tokens)
            task.update(done)
    longest = config.max_position_embeddings
    fit = [number for number, length in enumerate(context.distributed.gather_shares(lengths)) if length <= longest]
    if not fit:
        raise ConfigError(f"{context.name}: all {len(examples)} conversations are longer than {longest} tokens")
    if len(fit) < len(examples):
        left_out = len(examples) - len(fit)
        context.progress.notify(f"{context.name}: {left_out} conversations of more than {longest} tokens are left out")
    return examples.only(fit)


def conversations(context: StageContext, config: SFTConfig) -> list[ConversationFile]:
    """The sources' conversations, which stay on disk.

    Raises:
        ConfigError: there are fewer than are needed for one step and the held-out loss.
    """
    found = [ConversationFile(context.parent_folder(one.stage) / EXAMPLES, one.limit) for one in config.sources]
    need_enough(context, config, sum(map(len, found)))
    return found


def need_enough(context: StageContext, config: SFTConfig, count: int) -> None:
    """Refuses to begin with so few conversations that all of them would be held out.

    Raises:
        ConfigError: with what to do.
    """
    if count <= config.validation_examples:
        raise ConfigError(
            f"{context.name}: {count} conversations from {', '.join(s.stage for s in config.sources)}, and "
            f"validation_examples = {config.validation_examples} of them are kept for the held-out loss: nothing to "
            "train on. Give more of them (or sample more prompts, loosen the filters), or lower validation_examples"
        )


class SFTTrainer(TrainingLoop):
    """Cross-entropy of the assistant's last turns; every process takes its share of each step's examples."""

    def __init__(
        self, config: SFTConfig, model: LanguageModel, examples: Sequence[Example], context: StageContext
    ) -> None:
        self.config, self.model, self.examples = config, model, examples
        held_out = sorted(epoch_order(len(examples), 1, context.derive_seed("held-out"))[: config.validation_examples])
        self.held_out = [examples[i] for i in held_out]
        self.trained = sorted(set(range(len(examples))) - set(held_out))
        """Which of the examples are trained on."""
        self.order = epoch_order(len(self.trained), config.epochs, context.derive_seed("order"))
        steps = -(-len(self.order) // config.examples_per_step)
        trains_mtp = bool(model.mtp) and config.mtp_share > 0 and config.lora is None
        update = Update(
            model,
            config.optimizer,
            steps,
            context.distributed,
            context.parallel,
            sums=("loss", "balance_loss", *(["mtp_loss"] if trains_mtp else [])),
            bias_update_rate=config.bias_update_rate if config.lora is None else 0.0,
            prediction_modules="beside" if trains_mtp else "frozen",
        )
        super().__init__(context, update, steps, config.log_every)

    def plan(self) -> str:
        """What is going to be done and what it takes, in words."""
        looked_at = [len(self.examples[i].token_ids) for i in self.trained[:MEASURED]]
        tokens = sum(looked_at) / len(looked_at) * len(self.order)
        return (
            f"{self.steps} steps of {self.config.examples_per_step} conversations, {len(self.trained):,} of them "
            f"{self.config.epochs} times, about {tokens / 1e6:.1f}M tokens; memory: "
            f"{in_words(weights_bytes(self.model))} for weights, {in_words(training_bytes(self.model))} for gradients "
            f"and optimizer; {LATER}"
        )

    def between_steps(self, done: int) -> None:
        """The plan at the start; the held-out loss before and after."""
        if done == 0:
            self.context.progress.notify(f"{self.context.name}: {self.plan()}")
        if done in (0, self.steps):
            self.context.metrics.write({"step": done, "held_out_loss": self.validate()})

    def step(self, step: int) -> dict[str, Any]:
        """One optimizer step on the global batch; returns its metrics."""
        config, distributed = self.config, self.context.distributed
        first = step * config.examples_per_step
        batch = self.order[first : first + config.examples_per_step]
        places = range(distributed.rank, len(batch), distributed.world_size)
        own = [self.examples[self.trained[batch[place]]] for place in places]
        spread = evenly_spread(len(batch), config.mtp_share) if self.update.trains_mtp else ()
        learned = [example for place, example in zip(places, own, strict=True) if place in spread]
        own.sort(key=_length)
        sizes = torch.tensor([*(sum(map(_trained_tokens, some)) for some in (own, learned)), sum(map(_length, own))])
        distributed.all_reduce_sum([sizes])
        total, learned_tokens, tokens = sizes.tolist()
        predicted = Predicted(frozenset(map(id, learned)), learned_tokens)
        self.num_tokens += tokens
        if config.lora is not None and config.lora.dropout:
            torch.manual_seed(self.context.derive_seed("dropout", step, distributed.rank))
        parts = list(micro_batches(own, config.micro_tokens))
        stepped = self.update.step(parts, lambda part: self._backward(part, total, predicted))
        return stepped.sums | stepped.metrics | {"epoch": (first + len(batch)) / len(self.trained)}

    def _backward(self, part: list[Example], total: int, predicted: Predicted) -> PassReport:
        """Adds the gradient of some examples of a batch with `total` trained tokens.

        Args:
            part: of the batch.
            total: trained tokens of the whole.
            predicted: what of the batch the prediction modules learn from.
        """
        ids_N, mask_N, layout = self._batch(part)
        hidden = self.model(ids_N, layout)
        loss, zero = self._summed_loss(hidden, ids_N, mask_N) / total, ids_N.new_zeros((), dtype=torch.float32)
        share = sum(map(_trained_tokens, part)) / total
        balance = zero if hidden.balance_loss is None else hidden.balance_loss * share
        mtp_loss = zero
        chosen = predicted.among(part)
        if self.update.trains_mtp and (chosen or self.context.parallel.spreads):
            mtp_loss = prediction_loss(self.model, hidden, ids_N, layout, mask_N, chosen) / max(1, predicted.tokens)
        (loss + balance + mtp_loss).backward()
        sums = {"loss": loss.detach(), "balance_loss": balance.detach(), "mtp_loss": mtp_loss.detach()}
        return PassReport(sums, hidden.router_counts)

    def _batch(self, part: list[Example]) -> tuple[Tensor, Tensor, Ragged]:
        """Token ids, which of them are trained, and where whose are."""
        device = self.context.distributed.device
        ids_N = torch.tensor([token for example in part for token in example.token_ids], device=device)
        mask_N = torch.tensor([flag for example in part for flag in example.loss_mask], device=device).bool()
        return ids_N, mask_N, Ragged([len(example.token_ids) for example in part], device)

    def _summed_loss(self, hidden: HiddenStates, ids_N: Tensor, mask_N: Tensor) -> Tensor:
        """Cross-entropy of the trained tokens, added up."""
        targets_M = mask_N.nonzero().squeeze(-1)
        logprobs_M, _ = chunked_logprobs(
            hidden.hidden_ND.index_select(0, targets_M - 1),
            self.model.head_weight,
            ids_N.index_select(0, targets_M),
            entropy=False,
        )
        return -logprobs_M.sum()

    @torch.no_grad()
    def validate(self) -> float | None:
        """Mean cross-entropy on the conversations left out of training; None where there are none."""
        distributed = self.context.distributed
        own = self.held_out[distributed.rank :: distributed.world_size]
        sums = torch.zeros(2, dtype=torch.float64)
        parts = list(micro_batches(own, self.config.micro_tokens))
        idle = dummy_passes(len(parts), self.context.parallel, distributed)
        for part in parts:
            ids_N, mask_N, layout = self._batch(part)
            summed = self._summed_loss(self.model(ids_N, layout), ids_N, mask_N)
            sums += torch.tensor([float(summed), float(sum(map(_trained_tokens, part)))])
        for _ in range(idle):
            dummy_pass(self.model)
        reshard(self.model)
        distributed.all_reduce_sum([sums])
        return float(sums[0] / sums[1]) if sums[1] else None


def _length(example: Example) -> int:
    return len(example.token_ids)


def _trained_tokens(example: Example) -> int:
    return sum(example.loss_mask)
