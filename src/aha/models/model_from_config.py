"""From a configuration to a model of its family."""

from __future__ import annotations

from aha.errors import ConfigError
from aha.models.config.base import ModelConfig
from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.config.dense import DenseConfig
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.dense import Dense
from aha.models.language_model import LanguageModel


def build(config: ModelConfig) -> LanguageModel:
    """A model with memory but without initial weights: load them, or call `init_weights`."""
    if isinstance(config, DeepseekV3Config):
        return DeepseekV3(config)
    if isinstance(config, DenseConfig):
        return Dense(config)
    raise ConfigError(f"there is no model for a {type(config).__name__}")
