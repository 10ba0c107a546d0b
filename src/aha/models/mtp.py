"""Multi-token prediction: modules that predict further tokens in a causal chain (V3 section 2.2, Eqs. 21-25)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.decoder_layer import DecoderLayer
from aha.models.layers import RMSNorm
from aha.models.layouts import Layout
from aha.models.moe import RouterStats


class MultiTokenPredictor(nn.Module):
    """Module k: h'^k_i = M_k [RMSNorm(Emb(t_{i+k})); RMSNorm(h^{k-1}_i)], then one layer (V3 Eqs. 21-22).

    As the released weights and their users (transformers, vLLM) have it, and unlike the printed Eq. 21: the
    embedding comes first in the concatenation, and h^{k-1} is the hidden state after the norm before the head (h^0
    after the model's final norm, h^k after the module's own norm). torchtitan trains with the state before that
    norm; the two are not equivalent. Embedding and head are the main model's (Eq. 23), so they are not parameters
    here.
    """

    def __init__(self, config: DeepseekV3Config) -> None:
        super().__init__()
        self.enorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.hnorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.eh_proj = nn.Linear(2 * config.hidden_size, config.hidden_size, bias=False)
        self.layer = DecoderLayer(config, config.num_hidden_layers)
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def join(self, hidden_ND: Tensor, embedding_ND: Tensor) -> Tensor:
        """h'^k of V3 Eq. 21, what the layer reads."""
        return self.eh_proj(torch.cat([self.enorm(embedding_ND), self.hnorm(hidden_ND)], dim=-1))

    def forward(
        self, hidden_ND: Tensor, embedding_ND: Tensor, layout: Layout, rotations_NR: Tensor, stats: RouterStats
    ) -> Tensor:
        """Hidden states h^k of every token, after the module's norm.

        Positions whose token i + k lies beyond their sequence get the embedding of some other token: causality
        keeps them from every position that has one, and the loss leaves them out.
        """
        return self.norm(self.layer(self.join(hidden_ND, embedding_ND), layout, rotations_NR, stats))
