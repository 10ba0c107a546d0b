"""The server's settings and limits."""

from __future__ import annotations

from pydantic import Field

from aha.compute import ComputeConfig
from aha.configuration import Config


class ServeConfig(Config):
    """What `aha serve` allows; change it with --set."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="device and numbers")
    rows: int = Field(32, ge=1, le=4096, description="samples that a model works on at once")
    context_tokens: int = Field(
        1024, ge=16, description="prompt and completion of one sample, at most; the model's own limit counts too"
    )
    speculative_tokens: int = Field(
        0, ge=0, description="tokens that a model's prediction modules draft in a step; models without them draft none"
    )
    queue_samples: int = Field(128, ge=64, description="samples of a model that may wait; beyond them: 429")
    deadline_seconds: float = Field(300.0, gt=0, description="time for a whole request, its waiting included")
    body_bytes: int = Field(1 << 20, ge=1024, description="size of a request's body, at most")
    body_seconds: float = Field(30.0, gt=0, description="time for a request's body to arrive")
    idle_seconds: float = Field(15.0, gt=0, description="a connection without a complete request is closed after this")
    stop_seconds: int = Field(5, ge=1, description="time for running requests to end when the server is stopped")
