"""The configuration of a dense decoder: Qwen2, Qwen3 or Llama.

Every field is spelled as in Hugging Face's `config.json`. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from aha.errors import ConfigError
from aha.models.config.base import (
    INERT_KEYS,
    Llama3Scaling,
    ModelConfig,
    RopeScaling,
    read_rope,
    refuse_unsupported,
    warn_of_unknown,
)

DENSE_MODEL_TYPES = ("qwen3", "qwen2", "llama")
ARCHITECTURES = {"qwen3": "Qwen3ForCausalLM", "qwen2": "Qwen2ForCausalLM", "llama": "LlamaForCausalLM"}
QWEN3_HEAD_DIM = 128
"""Of a Qwen3 file that names none; the other families divide hidden_size by the number of heads."""


class DenseConfig(ModelConfig):
    """Sizes and rules of a dense decoder.

    The family decides what has no field of its own: Qwen2 has biases on queries, keys and values, Qwen3 an RMSNorm on
    each head of queries and keys before their rotation, and Llama neither.
    """

    model_type: Literal["qwen3", "qwen2", "llama"] = Field(description="the family")
    num_key_value_heads: int = Field(gt=0, description="J: each serves H / J query heads")
    head_dim: int = Field(gt=0, multiple_of=2, description="K: width of one head")
    rope_scaling: Annotated[RopeScaling | Llama3Scaling, Field(discriminator="type")] | None = None
    tie_word_embeddings: bool = Field(default=False, description="the head is the embedding")

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.model_type == "qwen2"

    @property
    def qk_norm(self) -> bool:
        """Whether each head of queries and keys is normalised before its rotation."""
        return self.model_type == "qwen3"

    @property
    def rope_dim(self) -> int:
        """All of a head has rotary positions."""
        return self.head_dim

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        heads, kv_heads = self.num_attention_heads, self.num_key_value_heads
        if heads % kv_heads:
            raise ValueError(f"num_key_value_heads must divide num_attention_heads = {heads}, got {kv_heads}")
        if self.model_type != "qwen3" and self.hidden_size % heads:
            raise ValueError(
                f"hidden_size must be a multiple of num_attention_heads = {heads} in a {self.model_type} model, "
                f"got {self.hidden_size}"
            )
        if self.model_type == "qwen2" and self.head_dim * heads != self.hidden_size:
            raise ValueError(
                f"head_dim must be hidden_size / num_attention_heads = {self.hidden_size // heads} in a qwen2 model, "
                f"got {self.head_dim}"
            )
        return self

    @model_validator(mode="after")
    def _check_scaling(self) -> Self:
        scaling = self.rope_scaling
        if isinstance(scaling, RopeScaling) and (scaling.mscale, scaling.mscale_all_dim) != (None, None):
            raise ValueError("rope_scaling: mscale and mscale_all_dim are for DeepSeek models; remove them")
        return self

    def to_hf_dict(self) -> dict[str, Any]:
        """Returns a `config.json` that transformers and vLLM load."""
        fields = self.model_dump(mode="json", exclude={"rope_scaling"})
        scaling = None
        if self.rope_scaling is not None:
            scaling = self.rope_scaling.model_dump(mode="json", exclude_none=True)
            scaling["rope_type"] = scaling.pop("type")
        common = {
            "architectures": [ARCHITECTURES[self.model_type]],
            "rope_scaling": scaling,
            "hidden_act": "silu",
            "attention_dropout": 0.0,
            "use_cache": True,
        }
        if self.model_type == "llama":
            return fields | common | {"attention_bias": False, "mlp_bias": False}
        window = {"use_sliding_window": False, "sliding_window": None, "max_window_layers": self.num_hidden_layers}
        return fields | common | window | ({"attention_bias": False} if self.model_type == "qwen3" else {})

    @classmethod
    def from_hf_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Reads the contents of a `config.json`, old (`rope_scaling`, `rope_theta`) or new (`rope_parameters`).

        Raises:
            ConfigError: where the file asks for something this model does not compute, or a field is out of bounds.
        """
        if raw.get("model_type") not in DENSE_MODEL_TYPES:
            expected = ", ".join(DENSE_MODEL_TYPES)
            raise ConfigError(f"model_type must be one of {expected}, got {raw.get('model_type')!r}")
        refuse_unsupported(raw, _REQUIRED_VALUES)
        if raw["model_type"] != "qwen2":  # whose files may have the key, without effect: its biases are always there
            refuse_unsupported(raw, {"attention_bias": (False, None)})
        _refuse_windows(raw)
        warn_of_unknown(raw, _INERT_KEYS | _REQUIRED_VALUES.keys(), cls.model_fields)
        theta, scaling = read_rope(raw)
        if scaling is not None and "max_position_embeddings" in raw:
            scaling.setdefault("original_max_position_embeddings", raw["max_position_embeddings"])
        known = {k: v for k, v in raw.items() if k in cls.model_fields and v is not None}
        if isinstance(raw.get("eos_token_id"), list):
            known["eos_token_id"] = tuple(raw["eos_token_id"])
        return cls.checked(_default_heads(raw) | known | {"rope_theta": theta, "rope_scaling": scaling})


_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "mlp_bias": (False, None),
    "attention_dropout": (0, None),
    "quantization_config": (None,),
}
"""Keys of config.json that would change the computation, with the values this implementation computes."""

_INERT_KEYS = INERT_KEYS | {
    "attention_bias",
    "layer_types",
    "max_window_layers",
    "sliding_window",
    "use_sliding_window",
}
"""Keys of config.json that are read elsewhere or have no effect on the computation."""


def _refuse_windows(raw: Mapping[str, Any]) -> None:
    """Sliding windows have sizes in many files in which they are off; only where they are on is the model another."""
    windowed = sorted(set(raw.get("layer_types") or ()) - {"full_attention"})
    if raw.get("use_sliding_window") or windowed:
        found = f"layer_types with {windowed[0]!r}" if windowed else "use_sliding_window = true"
        raise ConfigError(
            f"config.json: {found}: only full attention is computed here. For sequences within the window the result "
            "is the same: set use_sliding_window to false and remove layer_types"
        )


def _default_heads(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What transformers computes where a file leaves out the number of key and value heads, or their width."""
    hidden, heads = raw.get("hidden_size"), raw.get("num_attention_heads")
    if not (isinstance(hidden, int) and isinstance(heads, int) and heads > 0):
        return {}
    width = QWEN3_HEAD_DIM if raw["model_type"] == "qwen3" else hidden // heads
    return {"num_key_value_heads": heads, "head_dim": width}
