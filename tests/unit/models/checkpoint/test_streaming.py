"""Checkpoints larger than what is left of memory: loading and saving hold little beside the model itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from aha.models.checkpoint.names import pieces
from aha.models.config.dense import DenseConfig
from aha.models.config.presets import llama_tiny

SIZES = {"hidden_size": 1024, "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 64}
SIZES |= {"intermediate_size": 4096, "num_hidden_layers": 4}

SCRIPT = """
import sys, torch
from pathlib import Path
from aha.models.model_from_config import build
from aha.models.checkpoint.hf import load_pretrained, save_pretrained
from aha.models.config.presets import llama_tiny

torch.set_num_threads(1)
source, dtype, target = Path(sys.argv[1]), getattr(torch, sys.argv[2]), Path(sys.argv[3])
save_pretrained(build(llama_tiny(64)).init_weights(), target)  # what is code and library, not model, comes into memory
load_pretrained(target)
status = lambda key: 1024 * int(Path("/proc/self/status").read_text().partition(key + ":")[2].split()[0])
start = status("VmRSS")
peak = lambda: status("VmHWM") - start  # ru_maxrss would count what the test's own process has held
model = load_pretrained(source, dtype=dtype)
loaded = peak()
save_pretrained(model, target, max_shard_bytes=50_000_000)
print(sum(p.numel() * p.element_size() for p in model.parameters()), loaded, peak())
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random bfloat16 checkpoint of 150 MB in one file, so that nothing is let go because a file ends."""
    folder = tmp_path_factory.mktemp("large")
    config = llama_tiny(4000, **SIZES)
    assert isinstance(config, DenseConfig)
    width, mlp, kv = 1024, 4096, 256
    shapes = {"embed": (4000, width), "lm_head": (4000, width), "k_proj": (kv, width), "v_proj": (kv, width)}
    shapes |= {"gate": (mlp, width), "up_proj": (mlp, width), "down": (width, mlp), "norm": (width,)}
    tensors = {}
    for piece in pieces(config):
        shape = next((shape for key, shape in shapes.items() if key in piece.hf_name), (width, width))
        tensors[piece.hf_name] = torch.randn(shape).bfloat16()
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config.to_hf_dict()))
    return folder


def peaks(*arguments: object) -> tuple[int, int, int]:
    """Bytes of the model, and the most memory that loading, then saving too, took beside what the process had."""
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, loaded, saved = map(int, done.stdout.split())
    return size, loaded, saved


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_loading_and_saving_take_less_than_1_3_times_the_model(dtype: str, folder: Path, tmp_path: Path) -> None:
    size, loaded, saved = peaks(folder, dtype, tmp_path / "again")
    assert size > 100e6
    assert loaded < 1.3 * size
    assert saved < 1.3 * size
    assert len(list((tmp_path / "again").glob("model-*.safetensors"))) > 2
