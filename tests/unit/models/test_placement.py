"""One compute policy: what "auto" means, and what is refused."""

import pytest
import torch

from aha.compute import ComputeConfig
from aha.errors import ConfigError
from aha.models.placement import placement


@pytest.mark.parametrize(
    ("gpu", "settings", "device", "dtype"),
    [
        (False, {}, "cpu", torch.float32),
        (False, {"dtype": "bfloat16"}, "cpu", torch.bfloat16),
        (True, {}, "cuda", torch.bfloat16),
        (True, {"dtype": "float32"}, "cuda", torch.float32),
        (True, {"device": "cpu"}, "cpu", torch.float32),
    ],
)
def test_auto_is_bfloat16_on_cuda_and_float32_on_cpus(
    gpu: bool, settings: dict[str, str], device: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    found = placement(ComputeConfig.model_validate(settings))
    assert (found["device"].type, found["dtype"]) == (device, dtype)


def test_a_process_that_has_chosen_its_device_keeps_it() -> None:
    assert placement(ComputeConfig(), torch.device("cuda", 3)) == {
        "device": torch.device("cuda", 3),
        "dtype": torch.bfloat16,
    }


def test_cuda_without_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"no GPU here; set compute\.device=cpu"):
        placement(ComputeConfig(device="cuda"))
