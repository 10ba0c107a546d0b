"""The configuration of a DeepSeek-V3 model.

Every field is spelled as in Hugging Face's `config.json`. No torch here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from aha.errors import ConfigError
from aha.models.config.base import (
    INERT_KEYS,
    ModelConfig,
    RopeScaling,
    read_rope,
    refuse_unsupported,
    warn_of_unknown,
)

MODEL_TYPES = ("deepseek_v3", "deepseek_v2")


class DeepseekV3Config(ModelConfig):
    """Sizes and rules of a DeepSeek-V3 model. Defaults are the released 671B model's, so presets state what differs."""

    vocab_size: int = Field(default=129280, gt=0)
    hidden_size: int = Field(default=7168, gt=0, description="D")
    intermediate_size: int = Field(default=18432, gt=0, description="hidden width of the dense feed-forward layers")
    moe_intermediate_size: int = Field(default=2048, gt=0, description="F: hidden width of one expert")
    num_hidden_layers: int = Field(default=61, gt=0, description="L, without the multi-token prediction modules")
    num_attention_heads: int = Field(default=128, gt=0, description="H")
    q_lora_rank: int | None = Field(default=1536, gt=0, description="query latent width; None: queries straight from D")
    kv_lora_rank: int = Field(default=512, gt=0, description="C: width of the cached latent")
    qk_nope_head_dim: int = Field(default=128, gt=0)
    qk_rope_head_dim: int = Field(default=64, gt=0, multiple_of=2, description="R: width of the shared rotary key")
    v_head_dim: int = Field(default=128, gt=0)
    n_routed_experts: int = Field(default=256, gt=0, description="E")
    n_shared_experts: int = Field(default=1, ge=0, description="experts every token goes through, as one wide expert")
    num_experts_per_tok: int = Field(default=8, gt=0, description="A")
    n_group: int = Field(default=8, gt=0, description="groups (nodes) the experts are split into")
    topk_group: int = Field(default=4, gt=0, description="groups one token may use (paper M)")
    routed_scaling_factor: float = Field(default=2.5, gt=0, description="on the gates, after normalisation")
    norm_topk_prob: bool = Field(default=True, description="gates of the chosen experts sum to 1 before scaling")
    scoring_func: Literal["sigmoid", "softmax"] = "sigmoid"
    topk_method: Literal["noaux_tc", "greedy", "group_limited_greedy"] = Field(
        default="noaux_tc", description="noaux_tc: V3 with selection biases; the others: V2, without"
    )
    first_k_dense_replace: int = Field(default=3, ge=0, description="leading layers with a dense feed-forward")
    num_nextn_predict_layers: int = Field(default=1, ge=0, description="multi-token prediction depth (paper D)")
    max_position_embeddings: int = Field(default=163840, gt=0, description="longest sequence, tokens")
    rope_theta: float = Field(default=10000.0, gt=0)
    rope_scaling: RopeScaling | None = RopeScaling(
        factor=40, original_max_position_embeddings=4096, mscale=1.0, mscale_all_dim=1.0
    )
    rms_norm_eps: float = Field(default=1e-6, gt=0)
    initializer_range: float = Field(default=0.006, gt=0, description="standard deviation of new weights (V3 4.2)")
    bos_token_id: int = Field(default=0, ge=0)
    eos_token_id: int = Field(default=1, ge=0)
    aux_loss_alpha: float = Field(
        default=1e-4, ge=0, description="weight of the sequence-wise balance loss (V3 4.2; the hub's file says 1e-3)"
    )
    seq_aux: bool = Field(default=True, description="balance per sequence, V3 Eqs. 17-20; False: over the whole batch")

    @property
    def qk_head_dim(self) -> int:
        """K: width of one query and key head, the part without and the part with rotary positions."""
        return self.qk_nope_head_dim + self.qk_rope_head_dim

    @property
    def num_moe_layers(self) -> int:
        """Mixture-of-experts layers among the `num_hidden_layers`."""
        return max(0, self.num_hidden_layers - self.first_k_dense_replace)

    @property
    def num_experts(self) -> int:
        """E: routed experts of each mixture-of-experts layer."""
        return self.n_routed_experts

    @property
    def rope_dim(self) -> int:
        """R: width of the rotary part of a head."""
        return self.qk_rope_head_dim

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        experts, groups, limit = self.n_routed_experts, self.n_group, self.topk_group
        if experts % groups:
            raise ValueError(f"n_group must divide n_routed_experts = {experts}, got n_group = {groups}")
        if groups > 1 and experts // groups < 2 and self.topk_method == "noaux_tc":
            raise ValueError(f"n_group must leave at least 2 experts per group of {experts}, got n_group = {groups}")
        if limit > groups:
            raise ValueError(f"topk_group must be at most n_group = {groups}, got topk_group = {limit}")
        reachable = experts // groups * limit
        if self.num_experts_per_tok > reachable:
            raise ValueError(
                f"num_experts_per_tok must be at most the {reachable} experts of topk_group = {limit} groups, "
                f"got num_experts_per_tok = {self.num_experts_per_tok}"
            )
        return self

    @model_validator(mode="after")
    def _check_scaling(self) -> Self:
        if self.rope_scaling is not None and self.rope_scaling.attention_factor is not None:
            raise ValueError(
                "rope_scaling: attention_factor must be absent in a DeepSeek model, where it follows from mscale and "
                "mscale_all_dim: with it vLLM leaves out the factor on the softmax"
            )
        return self

    @model_validator(mode="after")
    def _check_length(self) -> Self:
        if self.rope_scaling is not None:
            longest = round(self.rope_scaling.factor * self.rope_scaling.original_max_position_embeddings)
            if self.max_position_embeddings > longest:
                raise ValueError(
                    f"max_position_embeddings must be at most rope_scaling.factor * original_max_position_embeddings "
                    f"= {longest}, got max_position_embeddings = {self.max_position_embeddings}"
                )
        return self

    def to_hf_dict(self) -> dict[str, Any]:
        """Returns a `config.json` that transformers, vLLM and SGLang load.

        transformers omits `topk_method` and `scoring_func`, without which vLLM builds another router; we always
        write them. With DeepSeek-V2's gate the file says deepseek_v2. A softmax gate with biases, a combination for
        ablations, is read back here and by vLLM, but transformers computes sigmoids whatever the file says.
        """
        fields = self.model_dump(mode="json", exclude={"rope_scaling"})
        scaling = None if self.rope_scaling is None else self.rope_scaling.model_dump(mode="json", exclude_none=True)
        version = 3 if self.topk_method == "noaux_tc" else 2
        return fields | {
            "architectures": [f"DeepseekV{version}ForCausalLM"],
            "model_type": f"deepseek_v{version}",
            "rope_scaling": scaling,
            "num_key_value_heads": self.num_attention_heads,
            "moe_layer_freq": 1,
            "hidden_act": "silu",
            "attention_bias": False,
            "attention_dropout": 0.0,
            "tie_word_embeddings": False,
            "rope_interleave": True,
            "use_cache": True,
            "ep_size": 1,
            "pretraining_tp": 1,
        }

    @classmethod
    def from_hf_dict(cls, raw: Mapping[str, Any]) -> Self:
        """Reads the contents of a `config.json`, old (`rope_scaling`, `rope_theta`) or new (`rope_parameters`).

        Raises:
            ConfigError: where the file asks for something this model does not compute, or a field is out of bounds.
        """
        if raw.get("model_type") not in MODEL_TYPES:
            raise ConfigError(f"model_type must be one of {', '.join(MODEL_TYPES)}, got {raw.get('model_type')!r}")
        refuse_unsupported(raw, _REQUIRED_VALUES)
        _refuse_unequal_heads(raw)
        known = {k: v for k, v in raw.items() if k in cls.model_fields and k not in ("rope_scaling", "rope_theta")}
        if isinstance(raw.get("eos_token_id"), list):
            known["eos_token_id"] = raw["eos_token_id"][0]
        theta, scaling = read_rope(raw)
        warn_of_unknown(raw, _INERT_KEYS | _REQUIRED_VALUES.keys(), cls.model_fields)
        return cls.checked(known | _v2_defaults(raw) | {"rope_theta": theta, "rope_scaling": scaling})


_REQUIRED_VALUES: dict[str, tuple[Any, ...]] = {
    "hidden_act": ("silu",),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "attention_dropout": (0, None),
    "tie_word_embeddings": (False, None),
    "moe_layer_freq": (1,),
    "rope_interleave": (True, None),
    "quantization_config": (None,),
}
"""Keys of config.json that would change the computation, with the values this implementation computes."""

_INERT_KEYS = INERT_KEYS | {
    "ep_size",
    "num_key_value_heads",
    "num_local_experts",
    "num_mtp_layers",
    "output_router_logits",
    "qk_head_dim",
}
"""Keys of config.json that are read elsewhere or have no effect on the computation."""


def _refuse_unequal_heads(raw: Mapping[str, Any]) -> None:
    heads, kv_heads = raw.get("num_attention_heads"), raw.get("num_key_value_heads")
    if kv_heads is not None and kv_heads != heads:
        raise ConfigError(f"config.json: num_key_value_heads must equal num_attention_heads = {heads}, got {kv_heads}")


def _v2_defaults(raw: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSeek-V2 files leave out what V3 added; V3 files from transformers leave out topk_method and scoring_func."""
    if raw["model_type"] == "deepseek_v3":
        return {}
    missing = {"scoring_func": "softmax", "topk_method": "greedy", "num_nextn_predict_layers": 0}
    missing |= {"n_group": 1, "topk_group": 1}
    return {key: value for key, value in missing.items() if raw.get(key) is None}
