"""Parameter counts: the papers' numbers, and the numbers of tensors that really exist (on the meta device)."""

import subprocess
import sys

import pytest
import torch

from aha.models.config import DeepseekV3Config
from aha.models.count import describe
from aha.models.deepseek_v3 import DeepseekV3
from aha.models.presets import preset, tiny, v2_lite, v3

CONFIGS = {
    "tiny": tiny(),
    "two-modules": tiny(num_nextn_predict_layers=2, q_lora_rank=None, n_shared_experts=0, first_k_dense_replace=0),
    "all-dense": tiny(first_k_dense_replace=8),
    "v2-gate": v2_lite(topk_method="greedy", scoring_func="softmax"),
    "v2-lite": v2_lite(),
    "v3": v3(),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_counts_are_those_of_the_tensors(config: DeepseekV3Config) -> None:
    with torch.device("meta"):
        state = DeepseekV3(config).state_dict()
    counted = describe(config)
    of_modules = sum(tensor.numel() for name, tensor in state.items() if name.startswith("mtp."))
    assert counted.mtp_parameters == of_modules
    assert counted.total_parameters == sum(tensor.numel() for tensor in state.values()) - of_modules


def test_v3_numbers() -> None:
    counted = describe(v3())
    assert counted.total_parameters == 671_026_419_200
    assert round(counted.active_parameters / 1e9, 2) == 37.55
    assert round(counted.mtp_parameters / 1e9, 2) == 11.61
    assert counted.cache_bytes_per_token == 70_272
    assert counted.expanded_cache_bytes_per_token == 4_997_120
    assert counted.parameters_per_expert == 44_040_192
    assert counted.attention_parameters_per_layer == 187_107_328
    assert round(counted.mha_cache_bytes_per_token / counted.cache_bytes_per_token, 1) == 56.9


def test_v2_lite_is_16b() -> None:
    assert round(describe(preset("v2-lite")).total_parameters / 1e9, 1) == 15.7


def test_counting_needs_no_torch() -> None:
    code = "import sys, aha.models.count, aha.models.presets; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
