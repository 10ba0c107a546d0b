"""Pretraining alone: a base model, and its tokenizer, on text of one's own."""

from __future__ import annotations

from pydantic import Field

from aha.data.text import TextConfig
from aha.errors import ConfigError
from aha.recipes.recipe import RecipeConfig, StageSpec
from aha.stages.pretrain import PretrainConfig


class PretrainRecipeConfig(RecipeConfig):
    """One stage. Its model goes on with `aha run sft` or `grpo --model RUN/pretrain/model`."""

    data: str = Field("", description="a file or folder of text (--data), where pretrain.text does not say more")
    pretrain: PretrainConfig = Field(
        default_factory=lambda: PretrainConfig(vocab_size=4096), description="model, text, steps, rates"
    )

    def stages(self) -> tuple[StageSpec, ...]:
        """The graph.

        Raises:
            ConfigError: no text is named, or it is not there.
        """
        text = self.pretrain.text or (TextConfig(files=(self.data,)) if self.data else None)
        if text is None:
            raise ConfigError("no text: name a file or a folder with --data, or files with pretrain.text.files")
        return (StageSpec("pretrain", "pretrain", self.pretrain.changed(text=text)),)


def pretrain() -> PretrainRecipeConfig:
    """Grow a base model from random weights on text of your own: --data FILE or FOLDER."""
    return PretrainRecipeConfig(recipe="pretrain")
