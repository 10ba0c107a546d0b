"""The models of a server by name. A name is looked up and never anything else: it is not a path."""

from __future__ import annotations

from collections.abc import Sequence

from aha.errors import ConfigError
from aha.serve.config import ServeConfig
from aha.serve.errors import ApiError
from aha.serve.judging import Vote, judge
from aha.serve.responses import ModelList
from aha.serve.served import ServedModel


class Catalog:
    """What a server has.

    Args:
        models: with different names.
        config: limits.
        vote: how votes are counted.
    """

    def __init__(self, models: Sequence[ServedModel], config: ServeConfig, vote: Vote = judge) -> None:
        self._models = {model.name: model for model in models}
        if len(self._models) < len(models):
            raise ConfigError("two models have one name")
        self.config = config
        self.vote = vote

    @property
    def models(self) -> list[ServedModel]:
        """In the order in which they were given."""
        return list(self._models.values())

    def find(self, name: str) -> ServedModel:
        """The model of exactly this name.

        Raises:
            ApiError: 404.
        """
        model = self._models.get(name)
        if model is None:
            known = ", ".join(self._models) or "none"
            raise ApiError(404, f"there is no such model; this server has {known}", "model", "model_not_found")
        return model

    def list(self) -> ModelList:
        """The answer of /v1/models."""
        return ModelList(data=[model.card for model in self._models.values()])

    def stop(self) -> None:
        """Ends all work, without waiting for it."""
        for model in self._models.values():
            model.worker.stop()

    def close(self) -> None:
        """Ends all work and waits for it."""
        for model in self._models.values():
            model.worker.close()
