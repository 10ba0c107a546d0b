"""Models spread over two processes: losses, exports and checkpoints are those of one process."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from safetensors import safe_open
from safetensors.torch import load_file
from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

from aha.errors import CheckpointError, ConfigError
from aha.models.config.presets import preset
from aha.models.model_from_config import build
from aha.models.reward_model import load_reward_model
from aha.runs import RunFolder
from aha.training import checkpoint
from aha.training.distributed import Distributed
from aha.training.parallel import ParallelConfig
from aha.training.sharding import shard

pytestmark = pytest.mark.slow  # the jobs of all tests together take most of a minute

WORKER = Path(__file__).with_name("spread_worker.py")
FSDP, EXPERTS, BOTH = {"fsdp": True}, {"expert_parallel": 2}, {"fsdp": True, "expert_parallel": 2}
SPREADS = {"data": {}, "fsdp": FSDP, "experts": EXPERTS, "both": BOTH}

PADDING = 17
"""Rows of a vocabulary that are no tokens."""
KINDS: dict[str, dict[str, Any]] = {
    "pretrain": {"kind": "pretrain", "until": 12},
    "sft": {"kind": "sft", "muon_lr": 0.01, "activation_checkpointing": True},
    "sft-lora": {"kind": "sft", "lora": True},
    "sft-tied": {"kind": "sft", "model": "qwen3-tiny"},
    "sft-padded": {"kind": "sft", "padding": PADDING},
    "sft-single": {"kind": "sft", "examples_per_step": 1},
    "pretrain-single": {"kind": "pretrain", "until": 12, "config": {"rows_per_step": 1, "micro_rows": 0}},
    "pretrain-masked": {
        "kind": "pretrain",
        "until": 12,
        "config": {
            "mask_documents": True,
            "position_gaps": 0.5,
            "unpredictable_weight": 0.1,
            "first_corpus": {"practice": 1.0, "questions": 0.0},
        },
    },
    "sft-bfloat16": {"kind": "sft", "dtype": "bfloat16"},
    "reward": {"kind": "reward"},
    "reward-bfloat16": {"kind": "reward", "dtype": "bfloat16"},
    "grpo": {"kind": "grpo"},
    "grpo-kept": {"kind": "grpo", "keep_routing": True},
    "grpo-lora": {"kind": "grpo", "lora": True},
}
CASES = [
    (kind, how)
    for kind in KINDS
    for how in SPREADS
    if how in ("data", "fsdp")
    or kind in ("pretrain", "sft", "reward", "grpo", "grpo-kept")
    or (kind, how) == ("sft-lora", "both")
]
WITHOUT_EXPORT = ("grpo", "grpo-kept", "grpo-lora", "reward", "reward-bfloat16")
FOUR = ("fsdp", "experts", "both")
"""How four processes spread a model: the experts over two groups of two."""
HALF = 6
FIRST: dict[str, Any] = {"kind": "pretrain", "until": HALF, "save": True}


def run(folder: Path, processes: int, jobs: list[dict[str, Any]]) -> None:
    """Runs the jobs in a group of processes that torchrun starts."""
    path = folder / f"jobs-{processes}-{jobs[0]['name']}.json"
    path.write_text(json.dumps(jobs))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [*torchrun, str(WORKER), str(folder), str(path)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def result(folder: Path, name: str, rank: int = 0) -> dict[str, Any]:
    return json.loads((folder / f"{name}.{rank}.json").read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Every job in one process, then in two, some in four, then the resumed halves in one."""
    folder = tmp_path_factory.mktemp("spread")
    RunFolder.prepare(folder).write_config("recipe: none\n")
    alone = [{**job, "name": f"{kind}-alone"} for kind, job in KINDS.items()]
    run(folder, 1, [{**FIRST, "name": "half-alone"}, *alone])
    together = [{**KINDS[kind], "name": f"{kind}-{how}", "parallel": SPREADS[how]} for kind, how in CASES]
    halves = [{**FIRST, "name": f"half-{how}", "parallel": SPREADS[how]} for how in ("fsdp", "both")]
    rest = {**KINDS["pretrain"], "name": "one-then-two", "resume": "half-alone", "parallel": FSDP}
    other = {**KINDS["pretrain"], "name": "sharded-then-split", "resume": "half-fsdp", "parallel": EXPERTS}
    run(folder, 2, [*together, *halves, rest, other])
    by_four = [{**KINDS["pretrain"], "name": f"pretrain-four-{how}", "parallel": SPREADS[how]} for how in FOUR]
    run(folder, 4, [*by_four, {**FIRST, "name": "half-four", "parallel": BOTH}])
    then_one = [
        {**KINDS["pretrain"], "name": f"{how}-then-one", "resume": f"half-{how}"} for how in ("fsdp", "both", "four")
    ]
    run(folder, 1, then_one)
    yield folder


@pytest.mark.parametrize(("kind", "how"), [*CASES, *(("pretrain", f"four-{how}") for how in FOUR)])
def test_losses_are_those_of_one_process(folder: Path, kind: str, how: str) -> None:
    expected, found = result(folder, f"{kind}-alone")["rows"], result(folder, f"{kind}-{how}")["rows"]
    names = [
        name
        for name in ("loss", "mtp_loss", "balance_loss", "kl", "held_out_loss", "mean", "std")
        if name in expected[0]
    ]
    assert len(found) == len(expected) >= 10
    # Where two experts are as good as equal, another order of summation may choose the other one: 1e-4 allows for a
    # token that did. A gradient that is summed wrongly shows in the norms, and moves the losses a hundred times as far.
    within = 5e-3 if "bfloat16" in kind else 1e-4
    for name in names:
        assert [row[name] for row in found] == pytest.approx([row[name] for row in expected], abs=within), name
    if "reward" not in kind:
        norms = [row["grad_norm"] for row in expected]
        assert [row["grad_norm"] for row in found] == pytest.approx(norms, rel=0.05 if "bfloat16" in kind else 1e-3)
    assert expected[0]["loss"] != expected[-1]["loss"]


@pytest.mark.parametrize("how", SPREADS)
def test_a_reward_model_is_that_of_one_process(folder: Path, how: str) -> None:
    (one, _), (two, _) = (load_reward_model(folder / f"reward-{name}-rm") for name in ("alone", how))
    theirs = two.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(theirs[name], tensor, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "how"), [case for case in CASES if case[0] not in WITHOUT_EXPORT])
def test_exports_are_those_of_one_process(folder: Path, kind: str, how: str) -> None:
    one, two = (folder / f"{kind}-{name}-model" for name in ("alone", how))
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}
    assert (one / "config.json").read_bytes() == (two / "config.json").read_bytes()
    pairs = [(one / "model.safetensors", two / "model.safetensors")]
    if "lora" in kind:
        pairs += [tuple(path.with_name(path.name + "-adapter") / "adapter_model.safetensors" for path in (one, two))]
    for first, second in pairs:
        expected, found = load_file(first), load_file(second)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert found[name].dtype == tensor.dtype
            # Adam's first steps are as large for a gradient that is all rounding as for any other.
            torch.testing.assert_close(found[name], tensor, atol=2e-2 if "bfloat16" in kind else 1e-3, rtol=1e-2)


def test_rows_that_pad_a_vocabulary_stay_as_they_are(folder: Path) -> None:
    """Not even weight decay touches them, wherever a process's rows begin."""
    one, two = (load_file(folder / f"sft-padded-{how}-model" / "model.safetensors") for how in ("alone", "fsdp"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert torch.equal(one[name][-PADDING:], two[name][-PADDING:])


@pytest.mark.parametrize(("how", "share"), [("fsdp", 0.55), ("both", 0.55), ("experts", 0.95), ("data", 1.0)])
def test_each_process_holds_its_part(folder: Path, how: str, share: float) -> None:
    whole = result(folder, "pretrain-alone")["held"]
    held = [result(folder, f"pretrain-{how}", rank)["held"] for rank in (0, 1)]
    assert max(held) <= share * whole
    assert sum(held) >= whole


@pytest.mark.parametrize(
    "name", ["one-then-two", "fsdp-then-one", "both-then-one", "four-then-one", "sharded-then-split"]
)
def test_another_number_of_processes_goes_on_from_a_checkpoint(folder: Path, name: str) -> None:
    expected, found = result(folder, "pretrain-alone")["rows"][HALF:], result(folder, name)
    assert found["start"] == HALF
    for figure in ("loss", "mtp_loss", "held_out_loss"):
        assert [row[figure] for row in found["rows"]] == pytest.approx([row[figure] for row in expected], abs=1e-5)


def parts_of(folder: Path, how: str = "fsdp") -> Path:
    (path,) = (folder / f"half-{how}" / "checkpoints").glob("step-*")
    return path


@pytest.mark.parametrize("how", ["fsdp", "both"])
def test_checkpoints_are_safetensors_and_json_alone(folder: Path, how: str) -> None:
    path = parts_of(folder, how)
    files = {
        checkpoint.MANIFEST,
        checkpoint.STATE,
        *(f"shard-0000{r}-model-00001-of-00001.safetensors" for r in (0, 1)),
    }
    assert {file.name for file in path.iterdir()} == files
    sizes = [file.stat().st_size for file in path.glob("*.safetensors")]
    assert max(sizes) < 0.6 * sum(sizes)


@pytest.mark.filterwarnings("ignore:torch.distributed is disabled")
def test_dcps_own_reader_reads_them(folder: Path) -> None:
    path = parts_of(folder)
    ours = checkpoint.load(path).tensors
    theirs = {name: torch.full_like(tensor, -1) for name, tensor in ours.items()}
    dcp.load(theirs, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=True)
    for name, tensor in ours.items():
        assert torch.equal(theirs[name], tensor), name


def test_a_pickle_beside_them_is_not_read(folder: Path, tmp_path: Path) -> None:
    """DCP's own metadata file is a pickle, which runs code in whoever reads it."""
    copy = copied(folder, tmp_path)

    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "sprung",))

    (copy / ".metadata").write_bytes(pickle.dumps(Trap()))
    assert checkpoint.load(copy).tensors.keys() == checkpoint.load(parts_of(folder)).tensors.keys()
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("damage", ["flip", "cut", "delete", "swap"])
def test_a_damaged_part_is_found(folder: Path, tmp_path: Path, rank: int, damage: str) -> None:
    copy = copied(folder, tmp_path)
    files = sorted(copy.glob("*.safetensors"))
    content = bytearray(files[rank].read_bytes())
    if damage == "flip":
        content[-5] ^= 1
        files[rank].write_bytes(content)
    elif damage == "cut":
        files[rank].write_bytes(content[:-8])
    elif damage == "delete":
        files[rank].unlink()
    else:
        files[rank].write_bytes(files[1 - rank].read_bytes())
    with pytest.raises(CheckpointError, match=f"damaged: .*shard-0000{rank}"):
        checkpoint.load(copy)
    said: list[str] = []
    assert checkpoint.load_latest(copy.parent, "identity", said.append) is None
    assert "set aside" in said[0]


def copied(folder: Path, target: Path) -> Path:
    source = parts_of(folder)
    copy = target / source.name
    copy.mkdir()
    for file in source.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    return copy


def test_parts_say_which_rows_they_have(folder: Path) -> None:
    path, rows = parts_of(folder), 0
    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, framework="pt") as content:
            info = json.loads(content.metadata()["DCP_SHARDING_INFO"])
            assert info["model.lm_head.weight"]["saved_offsets"] == [rows, 0]
            rows += content.get_slice("model.lm_head.weight").get_shape()[0]
    assert rows == checkpoint.load(path).tensors["model.lm_head.weight"].shape[0]


@pytest.mark.parametrize(("count", "word"), [(2, "the number of processes, which is 1"), (3, "processes")])
def test_experts_that_do_not_divide_are_refused(count: int, word: str) -> None:
    model = build(preset("tiny", vocab_size=96, num_hidden_layers=2))
    with pytest.raises(ConfigError, match=word):
        shard(model, ParallelConfig(expert_parallel=count), Distributed())
