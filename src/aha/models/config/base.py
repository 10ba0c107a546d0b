"""What the configurations of all model families share: common fields, one-line errors, reading a `config.json`.

Every field is spelled as in Hugging Face's `config.json`. No torch here.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from aha.configuration import Config
from aha.errors import ConfigError, nearest

DEFAULT_ROPE_THETA = 10000.0
"""Where a file names none: what transformers computes."""

IGNORED_ROPE_KEYS = frozenset({"attn_factor", "extrapolation_factor", "finetuned"})
"""Of YaRN's first implementation. transformers computes the same whatever they say; its key is `attention_factor`."""


class RopeScaling(Config):
    """YaRN context extension (V3 section 4.3)."""

    type: Literal["yarn"] = "yarn"
    factor: float = Field(ge=1, description="context length over original_max_position_embeddings (paper s = 40)")
    original_max_position_embeddings: int = Field(gt=0, description="context length of pretraining, tokens")
    beta_fast: float = Field(default=32.0, gt=0, description="rotations above which a frequency is kept (paper beta)")
    beta_slow: float = Field(
        default=1.0, gt=0, description="rotations below which a frequency is divided (paper alpha)"
    )
    attention_factor: float | None = Field(
        default=None, gt=0, description="factor on cos and sin of dense models; None: it follows from factor"
    )
    mscale: float | None = Field(default=None, ge=0, description="numerator of the factor on cos and sin")
    mscale_all_dim: float | None = Field(
        default=None, ge=0, description="its denominator; its square is on the softmax"
    )


class Llama3Scaling(Config):
    """Context extension of Llama 3.1 and later: fast frequencies are kept, slow ones divided, those between blended."""

    type: Literal["llama3"] = "llama3"
    factor: float = Field(ge=1, description="divisor of the frequencies that turn rarely")
    low_freq_factor: float = Field(gt=0, description="rotations in the original context below which one is divided")
    high_freq_factor: float = Field(gt=0, description="rotations in the original context above which one is kept")
    original_max_position_embeddings: int = Field(gt=0, description="context length of pretraining, tokens")

    @model_validator(mode="after")
    def _check_factors(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor must be below high_freq_factor = {self.high_freq_factor}, got {self.low_freq_factor}"
            )
        return self


class ModelConfig(Config, ABC):
    """Sizes and rules that every family has. Families give the defaults and add their own fields."""

    vocab_size: int = Field(gt=0)
    hidden_size: int = Field(gt=0, description="D")
    intermediate_size: int = Field(gt=0, description="hidden width of the dense feed-forward layers")
    num_hidden_layers: int = Field(gt=0, description="L")
    num_attention_heads: int = Field(gt=0, description="H")
    max_position_embeddings: int = Field(gt=0, description="longest sequence, tokens")
    rope_theta: float = Field(default=DEFAULT_ROPE_THETA, gt=0)
    rope_scaling: RopeScaling | Llama3Scaling | None = None
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    initializer_range: float = Field(default=0.02, gt=0, description="standard deviation of new weights")
    bos_token_id: int | None = Field(default=None, ge=0)
    eos_token_id: int | tuple[int, ...] | None = None

    @property
    @abstractmethod
    def rope_dim(self) -> int:
        """R: width of a head's part with rotary positions."""

    @property
    def num_moe_layers(self) -> int:
        """Mixture-of-experts layers among the `num_hidden_layers`."""
        return 0

    @property
    def num_experts(self) -> int:
        """E: routed experts of each mixture-of-experts layer."""
        return 0

    @abstractmethod
    def to_hf_dict(self) -> dict[str, Any]:
        """Returns a `config.json` that transformers and vLLM load."""

    @model_validator(mode="after")
    def _check_token_ids(self) -> Self:
        for name in ("bos_token_id", "eos_token_id"):
            value = getattr(self, name)
            for token in value if isinstance(value, tuple) else () if value is None else (value,):
                if not 0 <= token < self.vocab_size:
                    raise ValueError(f"{name} must be below vocab_size = {self.vocab_size}, got {token}")
        return self

    @classmethod
    def checked(cls, fields: Mapping[str, Any]) -> Self:
        """Builds the configuration and reports every bad field in one line.

        Raises:
            ConfigError: names each field, its bound and the value given.
        """
        try:
            return cls(**fields)
        except ValidationError as error:
            raise ConfigError("model config: " + "; ".join(map(cls._one_line, error.errors()))) from None

    @classmethod
    def _one_line(cls, detail: Any) -> str:
        field = ".".join(str(part) for part in detail["loc"])
        if detail["type"] == "extra_forbidden":
            return f"unknown field {field!r}{nearest(field, cls.model_fields)}"
        if detail["type"] == "missing":
            return f"{field} is missing"
        message = detail["msg"].removeprefix("Value error, ")
        return f"{field}: {message}, got {detail['input']!r}" if field else message


def refuse_unsupported(raw: Mapping[str, Any], required: Mapping[str, Collection[Any]]) -> None:
    """Refuses keys of a `config.json` that would change the computation.

    Args:
        raw: the file's contents.
        required: by key, the values that we compute, the usual one first.

    Raises:
        ConfigError: names the key, the value that is computed and the one found.
    """
    for key, allowed in required.items():
        if key in raw and raw[key] not in allowed:
            hint = "; convert it to bf16 first" if key == "quantization_config" else ""
            raise ConfigError(f"config.json: {key} must be {next(iter(allowed))!r}, got {raw[key]!r}{hint}")


def read_rope(raw: Mapping[str, Any]) -> tuple[float, dict[str, Any] | None]:
    """Reads a `config.json`'s rotary settings, old (`rope_scaling`, `rope_theta`) or new (`rope_parameters`).

    Returns:
        rope_theta, and the fields of `RopeScaling` or `Llama3Scaling`, or None without scaling.

    Raises:
        ConfigError: where it rotates only a part of each head, or asks for YaRN with bounds that are not rounded.
    """
    merged = dict(raw.get("rope_scaling") or {}) | dict(raw.get("rope_parameters") or {})
    theta = float(merged.pop("rope_theta", None) or raw.get("rope_theta") or DEFAULT_ROPE_THETA)
    kind = merged.pop("rope_type", merged.pop("type", "default"))
    merged.pop("type", None)
    truncate = merged.pop("truncate", True)
    partial = merged.pop("partial_rotary_factor", raw.get("partial_rotary_factor"))
    if partial not in (None, 1):
        raise ConfigError(f"config.json: partial_rotary_factor must be 1.0, got {partial!r}")
    if kind == "default":
        return theta, None
    if kind == "yarn" and truncate is not True:
        raise ConfigError(
            f"config.json: rope truncate must be true or absent, got {truncate!r}: YaRN's bounds are rounded"
        )
    for key in sorted(IGNORED_ROPE_KEYS & merged.keys()):
        warnings.warn(f"config.json: rope key {key!r} has no effect, here as in transformers", stacklevel=3)
    given = {key: value for key, value in merged.items() if value is not None and key not in IGNORED_ROPE_KEYS}
    return theta, given | {"type": kind}


def warn_of_unknown(raw: Mapping[str, Any], known: Collection[str], fields: Collection[str]) -> None:
    """Warns about keys of a `config.json` that are neither known nor fields, with the nearest field."""
    for key in sorted(set(raw) - set(known) - set(fields)):
        hint = nearest(key, fields)
        warnings.warn(f"config.json key {key!r} is not known and has no effect{hint}", stacklevel=3)


# fmt: off
INERT_KEYS = frozenset(
    {
        "_name_or_path", "architectures", "chunk_size_feed_forward", "dtype", "head_dim", "id2label",
        "is_encoder_decoder", "label2id", "model_type", "output_attentions", "output_hidden_states", "pad_token_id",
        "partial_rotary_factor", "pretraining_tp", "problem_type", "return_dict", "rope_parameters", "rope_scaling",
        "rope_type", "torch_dtype", "transformers_version", "use_cache",
    }
)
# fmt: on
"""Keys of any family's config.json that are read elsewhere or have no effect on the computation."""
