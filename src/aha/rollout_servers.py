"""Servers that sample instead of the built-in engine: where they are, and how they get new weights. Settings only."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from aha.configuration import Config


class RolloutServersConfig(Config):
    """vLLM or SGLang servers, all with the same model. Their control routes have no key: bind them to a private net."""

    kind: Literal["vllm", "sglang"] = Field("vllm", description="whose routes they speak")
    urls: tuple[str, ...] = Field(min_length=1, description="of the servers, as http://host:port")
    served_model: str = Field("model", min_length=1, description="the model's name there (--served-model-name)")
    refit: Literal["disk", "transfer"] = Field(
        "disk", description="new weights as a folder that both sides see, or through vLLM's weight-transfer routes"
    )
    folder: str = Field("", description="for refit=disk: the shared folder, in which each version gets its own")
    master_address: str = Field("127.0.0.1", description="for refit=transfer: where the servers reach the trainer")
    master_port: int = Field(29_600, gt=0, le=65_535, description="for refit=transfer: and at which port")
    chunk_mib: int = Field(512, gt=0, description="for refit=transfer: weights announced at a time")
    backend: Literal["nccl", "gloo"] = Field("nccl", description="for refit=transfer: how tensors travel")
    concurrency: int = Field(64, gt=0, description="requests on their way at once")
    seconds: float = Field(600.0, gt=0, description="limit for one answer")
    retries: int = Field(3, ge=0, description="further tries after a 5xx, a lost connection, the time limit")
    probe_gap: float = Field(
        0.25,
        gt=0,
        description="mean difference, in nats, to the trainer's log-probabilities from which weights are stale",
    )

    @model_validator(mode="after")
    def _possible(self) -> RolloutServersConfig:
        if self.refit == "disk" and not self.folder:
            raise ValueError("folder: name a folder that trainer and servers share (or set refit: transfer)")
        if self.refit == "transfer" and self.kind != "vllm":
            raise ValueError("refit = 'transfer': these routes are vLLM's; with sglang take refit: disk")
        if any(not url.startswith(("http://", "https://")) for url in self.urls):
            raise ValueError(f"urls {self.urls}: each must start with http:// or https://")
        return self
