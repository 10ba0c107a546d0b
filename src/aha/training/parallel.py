"""How a model that is trained fits into memory, and over how many processes. No torch here: recipes declare it."""

from __future__ import annotations

from aha.configuration import Config, Field


class ParallelConfig(Config):
    """Beside data parallelism, which is always on: every process trains on its share of each batch."""

    fsdp: bool = Field(
        False,
        description="shard weights, gradients and optimizer state over the processes (FSDP2) instead of keeping all of "
        "them in each",
    )
    expert_parallel: int = Field(
        1, ge=1, description="processes that the routed experts of each layer are split over; 1: all experts in each"
    )

    activation_checkpointing: bool = Field(
        False, description="keep one layer's input instead of all its activations, and compute each layer twice"
    )

    @property
    def spreads(self) -> bool:
        """Whether anything of a model is spread, so that all processes must run as many passes."""
        return self.fsdp or self.expert_parallel > 1
