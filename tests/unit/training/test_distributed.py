"""Two processes, started by our launcher, agreeing on sums, objects and flags."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest
import torch

from aha.errors import ConfigError
from aha.training.distributed import Distributed
from aha.training.launch import default_processes, is_worker, launch

WORKER = """
import json, os, sys
from pathlib import Path
import torch
from aha.training.distributed import Distributed

group = Distributed.join("cpu")
rank = group.rank
names = "OMP_NUM_THREADS", "MALLOC_TRIM_THRESHOLD_", "PYTHONHASHSEED"
found = {"settings": [os.environ[name] for name in names]}
for _ in range(2):
    a, b, c = torch.full((2, 3), rank + 1.0), torch.arange(3) + rank, torch.ones(4, 2).T * (rank + 1)
    parameter = torch.nn.Parameter(torch.full((1,), float(rank + 5)))
    group.all_reduce_sum([a, b, c, parameter])
found["sums"] = [a.tolist(), b.tolist(), c.tolist(), parameter.tolist()]
parameter = torch.nn.Parameter(torch.full((2, 2), float(rank)).T)
group.broadcast([parameter], source=1)
found["broadcast"] = parameter.tolist()
found["objects"] = group.all_gather_object({"rank": rank, "text": "想" * (rank * 1000), "none": None})
found["chosen"] = group.broadcast_object({"from": rank}, source=1)
found["any"] = [group.any(False), group.any(rank == 1), group.any(True)]
found["max"] = group.max([rank, -rank])
group.barrier()
Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(found))
group.close()
"""


def test_two_processes_agree(tmp_path: Path) -> None:
    assert launch([sys.executable, "-c", WORKER, str(tmp_path)], 2) == 0
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    assert first["sums"] == [[[3.0] * 3] * 2, [1, 3, 5], [[3.0] * 4] * 2, [11.0]]
    assert first["broadcast"] == [[1.0, 1.0], [1.0, 1.0]]
    assert first["objects"] == [{"rank": 0, "text": "", "none": None}, {"rank": 1, "text": "想" * 1000, "none": None}]
    assert first["chosen"] == {"from": 1}
    assert first["any"] == [False, True, True]
    assert first["max"] == [1, 0]
    assert first["settings"][2] == "0"
    assert all(first["settings"])


def test_one_process_needs_no_group() -> None:
    group = Distributed()
    tensor = torch.ones(2)
    group.all_reduce_sum([tensor])
    group.broadcast([tensor])
    assert tensor.tolist() == [1.0, 1.0]
    assert group.all_gather_object((1, "a")) == [[1, "a"]]
    assert group.broadcast_object({"a": 1}) == {"a": 1}
    assert group.any(True)
    assert not group.any(False)
    group.barrier()
    group.close()


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert not is_worker()
    group = Distributed.join("cpu")
    assert (group.rank, group.world_size, str(group.device)) == (0, 1, "cpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="device = 'cuda': process 0 has no GPU"):
            Distributed.join("cuda")


def test_one_process_per_core_up_to_the_limit() -> None:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert default_processes(1000, "cpu") == cores
    assert default_processes(1, "cpu") == 1


def test_the_code_of_the_worker_that_fails_is_the_code_of_the_group(capfd: pytest.CaptureFixture[str]) -> None:
    code = "import os, sys, time; sys.exit(3) if os.environ['RANK'] == '1' else time.sleep(60)"
    assert launch([sys.executable, "-c", code], 2) == 3
    code = (
        "import os, signal, time; os.kill(os.getpid(), signal.SIGKILL) if os.environ['RANK'] == '1' else time.sleep(60)"
    )
    assert launch([sys.executable, "-c", code], 2) == 1
    assert "aha: error: worker 1 was killed by SIGKILL (the system kills" in capfd.readouterr().err


def test_shares_are_taken_in_turn_and_come_back_in_order() -> None:
    ranks = [Distributed(rank, 3) for rank in range(3)]
    shares = [list(rank.share(8)) for rank in ranks]
    assert shares == [[0, 3, 6], [1, 4, 7], [2, 5]]

    class Gathered(Distributed):
        def all_gather_object(self, value: object) -> list[object]:
            return [[10 * i for i in share] for share in shares]

    assert Gathered(1, 3).gather_shares([10, 40, 70]) == [10 * i for i in range(8)]
    assert Distributed().spread([1, 2, 3], lambda items: [-item for item in items]) == [-1, -2, -3]
    assert Distributed().spread([], list) == []
