"""The routed experts of one layer, forward and backward: TFLOP/s, beside plain matrix products of equal FLOPs.

    python bench/gpu/moe.py [--shape v2-lite|v3|tiny] [--tokens 4096 16384] [--device cuda]

Tokens choose their experts at random, about evenly, as a balanced router has them do. The products beside them have the
same rows in all and one weight (what cuBLAS does at its best): the distance is the price of sorting, of uneven groups
and of reading every expert's weights.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from shapes import arguments, config_of, dtype_of, heading, seconds, spread

from aha.models.config.deepseek_v3 import DeepseekV3Config
from aha.models.experts.layer import RoutedExperts
from aha.models.experts.products import sort_slots
from aha.models.swiglu import swiglu


def main() -> None:
    """Measures every number of tokens and prints the table."""
    parser = arguments(__doc__, "v2-lite")
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16_384])
    options = parser.parse_args()
    config, dtype, device = config_of(options.shape), dtype_of(options), options.device
    if not isinstance(config, DeepseekV3Config):
        parser.error(f"--shape {options.shape} has no experts")
    print(heading(options) + "\n")
    print("| tokens | experts, TFLOP/s | plain products, TFLOP/s | share |\n|---|---|---|---|")
    with torch.device(device):
        experts = RoutedExperts(config).to(dtype)
        for weight in experts.parameters():
            torch.nn.init.normal_(weight, std=0.02)
        gate_up = torch.randn(2 * config.moe_intermediate_size, config.hidden_size, dtype=dtype) * 0.02
        down = torch.randn(config.hidden_size, config.moe_intermediate_size, dtype=dtype) * 0.02
    plain = [gate_up.requires_grad_(), down.requires_grad_()]
    for tokens in options.tokens:
        slots = tokens * config.num_experts_per_tok
        x_ND = torch.randn(tokens, config.hidden_size, device=device, dtype=dtype, requires_grad=True)
        x_SD = torch.randn(slots, config.hidden_size, device=device, dtype=dtype, requires_grad=True)
        scores = torch.rand(tokens, config.n_routed_experts, device=device)
        chosen = scores.topk(config.num_experts_per_tok).indices
        gates = torch.full(chosen.shape, 1 / config.num_experts_per_tok, device=device)

        def routed(x: torch.Tensor = x_ND, gates: torch.Tensor = gates, chosen: torch.Tensor = chosen) -> None:
            experts.zero_grad()
            experts(x, gates, sort_slots(chosen, config.n_routed_experts)).sum().backward()

        def products(x: torch.Tensor = x_SD) -> None:
            for weight in plain:
                weight.grad = None
            F.linear(swiglu(F.linear(x, plain[0])), plain[1]).sum().backward()

        flops = 3 * 2 * slots * 3 * config.hidden_size * config.moe_intermediate_size
        ours, theirs = (
            [flops / one / 1e12 for one in seconds(run, device, options.repeats)] for run in (routed, products)
        )
        share = sum(ours) / sum(theirs)
        print(f"| {tokens:,} | {spread(ours)} | {spread(theirs)} | {share:.0%} |", flush=True)


if __name__ == "__main__":
    main()
