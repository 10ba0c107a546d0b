"""`aha run`: one command that locks the run folder, starts the processes, and in each of them runs the pipeline.

The process that the user started imports no torch: it prepares the folder, starts the workers and waits. Each worker
is `aha run` again, on the configuration just written and with torchrun's variables set (see `aha.training.launch`).
Under torchrun, where the workers exist already, the same code joins them instead.
"""

from __future__ import annotations

import os
import sys
import time
import webbrowser
from pathlib import Path
from typing import Any

from aha.configuration import dump_config
from aha.environment import available_cores
from aha.errors import AhaError, RunFolderError
from aha.recipes.recipe import RecipeConfig, identities
from aha.runs import RunFolder
from aha.training.interrupts import StopFlag, StopRequested, exit_with_parent
from aha.training.launch import PARENT_PIPE, default_processes, is_worker, launch
from aha.training.trackers import need_trackers


def execute(config: RecipeConfig, out: Path | None = None, fresh: bool = False, processes: int | None = None) -> int:
    """Runs a recipe to its end, or goes on with it.

    Args:
        config: the resolved configuration.
        out: the run folder; by default `runs/<name>-seed<seed>`.
        fresh: delete what an earlier run left in the folder.
        processes: how many; by default as many as the folder's unfinished run had, else one per core or GPU.

    Returns:
        The exit code of the whole.

    Raises:
        AhaError: the run cannot start, or (in a worker) a stage said no.
        StopRequested: in a worker: the run was asked to stop, and is saved.
    """
    path = out or Path("runs") / config.run_name
    if is_worker():
        work(config, path, fresh)
        return 0
    need_trackers(config.log_to)
    identities(config)  # a graph that is not in order is said before anything is touched
    folder = open_run(config, path, fresh)
    count = processes or _recorded_processes(folder) or default_processes(config.max_processes, config.compute.device)
    before = folder.json("environment") or {}
    folder.write_environment(count, config.compute.device)
    _announce(config, folder, count, before)
    assert folder.lock_descriptor is not None
    # The workers read the configuration just written: whatever file or recipe it came from may change meanwhile.
    command = [sys.executable, "-P", "-m", "aha", "run", str(path / "config.yaml"), "--out", str(path)]
    code = launch(command, count, inherit=(folder.lock_descriptor,))
    if code == 0:
        print(f"done: {folder.path / 'summary.json'}")
        _show_report(folder.path)
    elif code in (130, 143):
        print(f"aha: stopped; the same command continues {folder.path}", file=sys.stderr)
    return code


def _show_report(path: Path) -> None:
    """Writes the report of a finished run, and opens it where somebody is watching."""
    from aha.report.page import make_report

    page = make_report(path)
    print(f"report: {page}")
    if sys.stdout.isatty() and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.name == "nt"):
        webbrowser.open(page.resolve().as_uri())


def open_run(config: RecipeConfig, path: Path, fresh: bool) -> RunFolder:
    """Locks the run folder and writes the configuration into it.

    Raises:
        RunFolderError: the folder is in use, holds another recipe's run, or cannot be written.
    """
    folder = RunFolder.prepare(path, fresh)
    if (path / "config.yaml").is_file():
        other = folder.config().get("recipe")
        if other != config.recipe:
            raise RunFolderError(
                f"{str(path)!r} holds a run of {other!r}, not {config.recipe!r}; choose another folder with --out, "
                "or delete that run with --fresh"
            )
    folder.write_config(dump_config(config))
    return folder


def _recorded_processes(folder: RunFolder) -> int | None:
    """How many processes an earlier start used: the sums of another number differ in their last digits."""
    environment = folder.json("environment")
    count = environment.get("processes") if isinstance(environment, dict) else None
    return count if isinstance(count, int) and count > 0 else None


def _announce(config: RecipeConfig, folder: RunFolder, count: int, before: dict[str, Any]) -> None:
    """Says what starts, and how this start differs from the one before in ways that identities do not see."""
    print(f"run {folder.path}: recipe {config.recipe}, seed {config.seed}, {count} process{'es' if count > 1 else ''}")
    notes = []
    if before.get("processes", count) != count:
        notes.append(f"the run was started with {before['processes']} processes; numbers will agree to rounding only")
    source = folder.json("environment")["source_sha256"]
    if before.get("source_sha256", source) != source:
        notes.append("the code has changed since this run was last started; what is kept was made by the older code")
    if count > available_cores() and config.compute.device == "cpu":
        notes.append(f"{count} processes share {available_cores()} cores")
    for note in notes:
        print(f"aha: note: {note}", file=sys.stderr)


def work(config: RecipeConfig, path: Path, fresh: bool) -> None:
    """One worker's part of a run.

    Raises:
        AhaError: a stage said no.
        StopRequested: the run was asked to stop, and is saved.
    """
    stop = StopFlag(config.stop_seconds)
    stop.install()
    launched = PARENT_PIPE in os.environ
    if launched:
        exit_with_parent(int(os.environ[PARENT_PIPE]))
    # Torch is imported only here, in the workers, whose environment is set for it.
    from aha.recipes.pipeline import Pipeline
    from aha.training.distributed import Distributed
    from aha.training.progress import Progress

    try:
        distributed = Distributed.join(config.compute.device)
        if distributed.is_first and not launched:
            open_run(config, path, fresh).write_environment(distributed.world_size, config.compute.device)
        distributed.barrier()
        Pipeline(config, RunFolder.open(path), distributed, Progress(distributed.is_first), stop).run()
        distributed.barrier()  # nobody leaves while another still expects a message
    except AhaError:
        raise
    except Exception:
        if stop.signum:  # another rank has stopped first, and the group is gone
            raise StopRequested(stop.signum) from None
        if int(os.environ["WORLD_SIZE"]) > 1:
            time.sleep(1.0)  # where this is the echo of another rank's failure, that is reported and we are killed
        raise
