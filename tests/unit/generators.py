"""What stands in for the engine in tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aha.types import Request


class GeneratesOnly:
    """The rest of `protocols.Generator` for a test's generator that has `generate` alone."""

    weights_version = 0

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        raise NotImplementedError

    def cancel(self, request_id: str) -> None:
        raise NotImplementedError

    def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        raise NotImplementedError

    def load_weights(self, weights: Mapping[str, Any], version: int) -> None:
        raise NotImplementedError
