"""Training a reward model (R1 supplement 3.1): pairwise for helpfulness, point-wise for harmlessness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from aha.configuration import Config, StageOf
from aha.data.conversations import epoch_order, micro_batches
from aha.errors import ConfigError
from aha.models.reward_model import RewardModel, save_reward_model
from aha.rewards.preference import judged_token_ids
from aha.stages.preferences import LABELLED, PAIRS
from aha.text.tokenizer import Tokenizer
from aha.training.loop import TrainingLoop
from aha.training.optimizer import OptimizerConfig
from aha.training.sharding import reshard
from aha.training.stage import StageContext, StageResult
from aha.training.trained_model import load_for_training
from aha.training.update import PassReport, Update

FEWEST = 20
"""Training examples from which there is something to learn."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One example: the chosen and the rejected sequence, or a single labelled one."""

    sequences: tuple[list[int], ...]
    safe: bool = True
    """The label of a single one."""

    @property
    def num_tokens(self) -> int:
        """Of all sequences."""
        return sum(map(len, self.sequences))


class RewardModelConfig(Config):
    """How a reward model is trained."""

    preference: Literal["helpful", "harmless"] = Field(description="what it judges, and so by which loss")
    data: Annotated[str, StageOf("preferences")] = Field(description="the stage that made the pairs and labels")
    epochs: int = Field(1, gt=0, description="passes over the data (R1: 1)")
    examples_per_step: int = Field(32, gt=0, description="pairs or labelled responses in the global batch (R1: 256)")
    optimizer: OptimizerConfig = Field(
        default_factory=lambda: OptimizerConfig(
            adam_lr=1e-3, muon_lr=0.0, weight_decay=0.0, warmup_steps=5, schedule="cosine", decay_from=0.0, final_lr=0.1
        ),
        description="rates and schedule (R1: 6e-6)",
    )
    calibration_share: float = Field(
        0.15, gt=0, lt=1, description="share of the training problems left out, for the mean and deviation of scores"
    )
    micro_tokens: int = Field(16_384, gt=0, description="tokens per forward pass; gradients add up over several")
    log_every: int = Field(5, gt=0, description="steps between rows in metrics.jsonl")


class RewardModelTraining:
    """The stage: a parent's model gets a scalar head and learns to tell better from worse."""

    kind: ClassVar[str] = "reward_model"

    def run(self, context: StageContext) -> StageResult:
        """Trains, or goes on training, and writes the reward model."""
        config = context.config
        assert isinstance(config, RewardModelConfig)
        parent = context.parent_model_folder()
        tokenizer = Tokenizer.load(parent)
        backbone = load_for_training(context, parent)
        model = RewardModel(backbone)
        rows = read_rows(context.parent_folder(config.data) / (PAIRS if config.preference == "helpful" else LABELLED))
        trainer = RewardModelTrainer(config, model, tokenizer, rows, context)
        trainer.train()
        about = {"preference": config.preference, **trainer.measure()}
        save_reward_model(model, context.folder, about, tokenizer.files(), writes=context.distributed.is_first)
        context.distributed.barrier()
        return StageResult({"examples": len(trainer.rows), **about}, tokens_trained=trainer.num_tokens)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The lines of a data stage's file.

    Raises:
        ConfigError: there are too few to learn from, or none to be measured by.
    """
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    held_out = sum(row["held_out"] for row in rows)
    if len(rows) - held_out < FEWEST:
        raise ConfigError(
            f"{path} has {len(rows) - held_out} training examples; a reward model needs at least {FEWEST}: sample more "
            "prompts"
        )
    if not held_out:
        raise ConfigError(f"{path} has no held-out example to measure by: raise held_out_per_level")
    return rows


class RewardModelTrainer(TrainingLoop):
    """Pairs or labelled responses; every process takes its share of each step's examples."""

    def __init__(
        self,
        config: RewardModelConfig,
        model: RewardModel,
        tokenizer: Tokenizer,
        rows: list[dict[str, Any]],
        context: StageContext,
    ) -> None:
        self.config, self.model, self.tokenizer = config, model, tokenizer
        self.held_out = [row for row in rows if row["held_out"]]
        training = [row for row in rows if not row["held_out"]]
        left_out = _left_out(training, config.calibration_share, context.derive_seed("held-out"))
        self.calibration = [row for row, out in zip(training, left_out, strict=True) if out]
        self.rows = [row for row, out in zip(training, left_out, strict=True) if not out]
        self.order = epoch_order(len(self.rows), config.epochs, context.derive_seed("order"))
        steps = -(-len(self.order) // config.examples_per_step)
        update = Update(model, config.optimizer, steps, context.distributed, context.parallel)
        super().__init__(context, update, steps, config.log_every)

    def judged(self, row: dict[str, Any]) -> Judged:
        """What the model reads of a row, and what it should say of it."""
        if self.config.preference == "helpful":
            responses = [row["chosen"], row["rejected"]]
            sequences = (judged_token_ids(self.tokenizer, "helpful", row["question"], "", one) for one in responses)
            return Judged(tuple(sequences))
        ids = judged_token_ids(self.tokenizer, "harmless", row["question"], row["reasoning"], row["response"])
        return Judged((ids,), row["safe"])

    def step(self, step: int) -> dict[str, Any]:
        """One optimizer step on the global batch; returns its metrics."""
        distributed, size = self.context.distributed, self.config.examples_per_step
        batch = [self.judged(self.rows[i]) for i in self.order[step * size : (step + 1) * size]]
        own = batch[distributed.rank :: distributed.world_size]
        stepped = self.update.step(self._parts(own), lambda part: self._backward(part, len(batch)))
        self.num_tokens += sum(one.num_tokens for one in batch)
        return stepped.sums | stepped.metrics

    def _backward(self, part: list[Judged], total: int) -> PassReport:
        """Adds the gradient of some examples of a batch of `total`."""
        loss = self._loss(part) / total
        loss.backward()
        return PassReport({"loss": loss.detach()})

    def _parts(self, examples: Sequence[Judged]) -> list[list[Judged]]:
        """Examples as they go through the model together."""
        return list(micro_batches(examples, self.config.micro_tokens))

    def _scores(self, examples: Sequence[Judged]) -> Tensor:
        """Scores, one row per example and one column per sequence of it."""
        return self.model.score_sequences([ids for one in examples for ids in one.sequences]).view(len(examples), -1)

    def _loss(self, examples: Sequence[Judged]) -> Tensor:
        """Summed loss: -log sigmoid(chosen - rejected), or the cross-entropy of the label."""
        scores = self._scores(examples)
        if self.config.preference == "helpful":
            return -F.logsigmoid(scores[:, 0] - scores[:, 1]).sum()
        labels = torch.tensor([float(one.safe) for one in examples], device=scores.device)
        return F.binary_cross_entropy_with_logits(scores[:, 0], labels, reduction="sum")

    @torch.no_grad()
    def measure(self) -> dict[str, float]:
        """Accuracy on held-out prompts, against the judge and against the truth; mean and deviation of the scores.

        The latter on training problems left out, so that what is held out has no part in a reward. `always_the_same`
        is the accuracy of whoever says the same of every example; both again for harmful requests alone, which are all
        that the harmless model judges in RL. Every process measures all of them.
        """
        calibration, scores = (self._scored(rows) for rows in (self.calibration, self.held_out))
        reshard(self.model.backbone)
        deviation = float(calibration.std()) if calibration.numel() > 1 else 0.0
        figures = {"mean": float(calibration.mean()), "std": max(deviation, 1e-3), "held_out": len(self.held_out)}
        if self.config.preference == "helpful":
            better = (scores[:, 0] > scores[:, 1]).tolist()
            truly = [row["true_scores"][0] > row["true_scores"][1] for row in self.held_out]
            agree = sum(a == b for a, b in zip(better, truly, strict=True)) / len(better)
            return {**figures, "accuracy": sum(better) / len(better), "accuracy_true": agree, "always_the_same": 0.5}
        scored = zip(scores[:, 0].tolist(), self.held_out, strict=True)
        verdicts = [(score > 0, row["safe"], row["harmful"]) for score, row in scored]
        accuracy, same = _label_accuracy([(said, safe) for said, safe, _ in verdicts])
        figures |= {"accuracy": accuracy, "accuracy_true": accuracy, "always_the_same": same}
        if harmful := [(said, safe) for said, safe, is_harmful in verdicts if is_harmful]:
            accuracy, same = _label_accuracy(harmful)
            figures |= {"accuracy_harmful": accuracy, "always_the_same_harmful": same}
        return figures

    def _scored(self, rows: Sequence[dict[str, Any]]) -> Tensor:
        return torch.cat([self._scores(part) for part in self._parts([self.judged(row) for row in rows])])


def _label_accuracy(verdicts: Sequence[tuple[bool, bool]]) -> tuple[float, float]:
    """Of (verdict, label) pairs: the share that agrees, and the share of the more frequent label."""
    safe = sum(label for _, label in verdicts) / len(verdicts)
    return sum(said == label for said, label in verdicts) / len(verdicts), max(safe, 1 - safe)


def _left_out(rows: list[dict[str, Any]], share: float, seed: int) -> list[bool]:
    """Which rows are left out: whole problems, so that none is on both sides in another wording or language."""
    keys = sorted({row["key"] for row in rows})
    order = epoch_order(len(keys), 1, seed)
    chosen = {keys[i] for i in order[: max(1, round(share * len(keys)))]}
    return [row["key"] in chosen for row in rows]
