"""Running the stages of a recipe: what is done is kept, what changed is redone, what was interrupted goes on.

Every process runs the same pipeline. Rank 0 alone looks at and changes the run folder; the others follow its decisions.
A stage's folder holds `stage.json` (what it is, written first), and `done.json` (the hashes of its files, written
last). Neither holds times or the commit: those are in `cost.json`, so that the rest is the same bytes in every run of
the same configuration.
"""

from __future__ import annotations

import itertools
import resource
import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from aha.errors import RunFolderError
from aha.files import atomic, clear_unfinished, file_sha256, read_json, sync_file, sync_folder, write_json
from aha.recipes.recipe import RecipeConfig, StageSpec, identities
from aha.recipes.registry import make_stage
from aha.runs import RunFolder
from aha.training.checkpointer import Checkpointer
from aha.training.distributed import Distributed
from aha.training.interrupts import StopFlag
from aha.training.progress import Progress, duration
from aha.training.stage import StageContext, StageResult
from aha.training.trackers import Tracker, open_tracker

STAGE, DONE, COST, CHECKPOINTS = "stage.json", "done.json", "cost.json", "checkpoints"
_NOT_HASHED = {STAGE, DONE, COST, "timings.jsonl"}


class Pipeline:
    """The stages of one run, in one of its processes."""

    def __init__(
        self, config: RecipeConfig, run: RunFolder, distributed: Distributed, progress: Progress, stop: StopFlag
    ) -> None:
        """Prepares a run; nothing is touched yet.

        Raises:
            ConfigError: the recipe's graph is not in order.
        """
        self.config = config
        self.run_folder = run
        self.specs = config.stages()
        self.identities = identities(config)
        self._distributed = distributed
        self._progress = progress
        self._stop = stop
        self._trackers: list[Tracker] = []

    def run(self) -> None:
        """Brings every stage to its end.

        Raises:
            StopRequested: the run was asked to stop; the same call goes on from there.
            AhaError: a stage said no.
        """
        if self._distributed.is_first:
            clear_unfinished(self.run_folder.path)
            settings = self.config.model_dump(mode="json")
            self._trackers = [open_tracker(name, self.run_folder.path, settings) for name in self.config.log_to]
        try:
            self._run_stages()
        finally:
            for tracker in self._trackers:
                tracker.close()
        if self._distributed.is_first:
            self._write_overview()
        self._distributed.barrier()

    def _run_stages(self) -> None:
        for spec in self.specs:
            done = self._distributed.broadcast_object(self._prepare(spec) if self._distributed.is_first else None)
            if done:
                self._progress.notify(f"{spec.name}: done before, kept")
            else:
                self._run_stage(spec)

    def _run_stage(self, spec: StageSpec) -> None:
        folder, identity = self.run_folder.stage_folder(spec.name), self.identities[spec.name]
        logs = self.run_folder.logs(spec.name, enabled=self._distributed.is_first)
        checkpointer = Checkpointer(
            folder,
            identity,
            self._distributed,
            logs,
            self._stop,
            self.config.checkpoint_seconds,
            self.config.keep_checkpoints,
            lambda message: self._progress.notify(f"{spec.name}: {message}"),
        )
        step = checkpointer.find()
        if self._distributed.is_first:
            if step is None:
                _clear_outputs(folder)
            _clear_temporary(folder)
            self.run_folder.assemble_logs([*self._done_names(), spec.name])
            self._write_lineage()
        logs.open()
        logs.metrics.observers += [partial(tracker.log, spec.name) for tracker in self._trackers]
        started = "starts" if step is None else f"continues after step {step}"
        self._progress.notify(f"{spec.name}: {started}")
        context = StageContext(
            self.run_folder,
            spec.name,
            folder,
            spec.config,
            self.config.seed,
            self._distributed,
            checkpointer,
            logs,
            self._progress,
            spec.parents,
            self.config.parallel,
            self.config.compute,
        )
        try:
            result = make_stage(spec.kind).run(context)
        finally:
            logs.close()
        memory = sum(self._distributed.all_gather_object(peak_memory_bytes()))
        if self._distributed.is_first:
            self._finish(spec, result, checkpointer.seconds, memory)
        self._distributed.barrier()
        self._progress.notify(f"{spec.name}: done in {duration(checkpointer.seconds)}")

    # What follows runs on rank 0 alone.

    def _prepare(self, spec: StageSpec) -> bool:
        """Makes the stage's folder fit to run in. Returns whether the stage is done already."""
        folder, identity = self.run_folder.stage_folder(spec.name), self.identities[spec.name]
        recorded = _read_or_none(folder / STAGE)
        if recorded is not None and recorded.get("identity") != identity:
            self._move_aside(folder, f"changed ({_difference(recorded, self._description(spec))})")
        elif recorded is None and folder.exists():
            self._move_aside(folder, f"{STAGE} is missing or damaged")
        elif (folder / DONE).exists():
            fault = verify_done(folder, identity)
            if fault is None:
                shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
                return True
            self._move_aside(folder, fault)
        if not folder.exists():
            with atomic(folder) as temporary:
                temporary.mkdir()
                write_json(temporary / STAGE, self._description(spec))
        return False

    def _description(self, spec: StageSpec) -> dict[str, Any]:
        return {
            "name": spec.name,
            "kind": spec.kind,
            "identity": self.identities[spec.name],
            "parents": {parent: self.identities[parent] for parent in spec.parents},
            "seed": self.config.seed,
            "data": spec.config.data_identity(),
            "config": spec.config.model_dump(mode="json"),
        }

    def _move_aside(self, folder: Path, reason: str) -> None:
        taken = (folder.with_name(f"{folder.name}.old{number or ''}") for number in itertools.count())
        aside = next(path for path in taken if not path.exists())
        self._progress.notify(
            f"{folder.name}: {reason}; what was there is now in {aside.name!r}, and the stage is redone"
        )
        folder.rename(aside)
        sync_folder(folder.parent)

    def _finish(self, spec: StageSpec, result: StageResult, seconds: float, memory: int) -> None:
        folder = self.run_folder.stage_folder(spec.name)
        files = {}
        for path in sorted(_outputs(folder)):
            sync_file(path)
            files[path.relative_to(folder).as_posix()] = {"sha256": file_sha256(path), "size": path.stat().st_size}
        for path in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
            sync_folder(path)
        cost = {"seconds": round(seconds, 1), "peak_memory_bytes": memory, "commit": self._commit()}
        write_json(folder / COST, cost)
        done = {
            "identity": self.identities[spec.name],
            "tokens_trained": result.tokens_trained,
            "summary": dict(result.summary),
            "about": {stage: dict(facts) for stage, facts in result.about.items()},
            "files": files,
        }
        write_json(folder / DONE, done)
        shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
        self._write_overview()

    def _done_names(self) -> list[str]:
        return [spec.name for spec in self.specs if self._is_done(spec)]

    def _is_done(self, spec: StageSpec) -> bool:
        recorded = _read_or_none(self.run_folder.stage_folder(spec.name) / DONE)
        return recorded is not None and recorded.get("identity") == self.identities[spec.name]

    def _write_overview(self) -> None:
        """Rebuilds the run's logs, `lineage.json` and `summary.json` from the folders of the stages that are done."""
        names = self._done_names()
        self.run_folder.assemble_logs(names)
        self._write_lineage()
        write_json(self.run_folder.path / "summary.json", self._summary(names))

    def _write_lineage(self) -> None:
        """Says which stages there are, which fed which, and which are done: from the start of a run on."""
        write_json(self.run_folder.path / "lineage.json", self._lineage())

    def _lineage(self) -> dict[str, Any]:
        stages = [
            {
                "name": spec.name,
                "kind": spec.kind,
                "parents": list(spec.parents),
                "identity": self.identities[spec.name],
                "done": self._is_done(spec),
            }
            for spec in self.specs
        ]
        return {"recipe": self.config.recipe, "seed": self.config.seed, "stages": stages}

    def _commit(self) -> str | None:
        """The commit of the code that runs: a later start of the same run may be another's."""
        environment = self.run_folder.json("environment") or {}
        commit = (environment.get("git") or {}).get("commit")
        return commit if isinstance(commit, str) else None

    def _summary(self, names: list[str]) -> dict[str, Any]:
        stages, seconds, memory = [], 0.0, 0
        about: dict[str, dict[str, Any]] = {}
        thinking: dict[str, Any] = {}
        for spec in self.specs:
            if spec.name not in names:
                continue
            folder = self.run_folder.stage_folder(spec.name)
            done, cost = read_json(folder / DONE), read_json(folder / COST)
            seconds, memory = seconds + cost["seconds"], max(memory, cost["peak_memory_bytes"])
            for stage, facts in done["about"].items():
                about.setdefault(stage, {}).update(facts)
            if spec.name == "thinking":
                thinking = done["summary"].pop("thinking", {})
            stages.append(
                {
                    "name": spec.name,
                    "parent": spec.parents[0] if spec.parents else None,
                    "minutes": round(cost["seconds"] / 60, 2),
                    "commit": cost.get("commit"),
                    "tokens_trained": done["tokens_trained"],
                    **done["summary"],
                }
            )
        return {
            "recipe": self.config.recipe,
            "commit": self._commit(),
            "seed": self.config.seed,
            "wall_seconds": round(seconds, 1),
            "peak_memory_bytes": memory,
            "stages": [{**stage, **about.get(stage["name"], {})} for stage in stages],
            **({"thinking": thinking} if thinking else {}),
        }


def verify_done(folder: Path, identity: str) -> str | None:
    """Checks a finished stage against its `done.json`. Returns what is wrong, or None."""
    done = _read_or_none(folder / DONE)
    if done is None or done.get("identity") != identity:
        return f"{DONE} is damaged"
    for name, expected in done["files"].items():
        path = folder / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != expected["size"] or file_sha256(path) != expected["sha256"]:
            return f"{name} is damaged (it is not the file that the stage wrote)"
    return None


def peak_memory_bytes() -> int:
    """The most memory that this process has held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _outputs(folder: Path) -> Iterator[Path]:
    """The files of a finished stage that are a function of its configuration."""
    for path in folder.rglob("*"):
        inside = path.relative_to(folder)
        if path.is_file() and inside.parts[0] != CHECKPOINTS and inside.as_posix() not in _NOT_HASHED:
            yield path


def _clear_outputs(folder: Path) -> None:
    """Removes what a stage wrote before it was interrupted without a checkpoint to go on from."""
    for entry in folder.iterdir():
        if entry.name in (STAGE, CHECKPOINTS):
            continue
        if entry.is_dir() and not entry.is_symlink():  # a checkpoint stage's model is a link to the user's folder
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _clear_temporary(folder: Path) -> None:
    """Removes what a killed process was writing under a temporary name, which starts with a dot, wherever it is."""
    for path in [path for path in folder.rglob(".*") if path.relative_to(folder).parts[0] != CHECKPOINTS]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _read_or_none(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        data = read_json(path)
    except RunFolderError:
        return None
    return data if isinstance(data, dict) else None


def _difference(old: Any, new: Any, path: str = "") -> str:
    """The first few settings in which two descriptions differ."""
    ignored = {"identity", "name"}
    found: list[str] = []

    def compare(a: Any, b: Any, path: str) -> None:
        if isinstance(a, dict) and isinstance(b, dict):
            for key in [*a, *(key for key in b if key not in a)]:
                if path or key not in ignored:
                    compare(a.get(key), b.get(key), f"{path}.{key}".strip("."))
        elif a != b:
            found.append(
                f"{path.removeprefix('config.')} {a!r} -> {b!r}" if not path.startswith("parents") else "its parent"
            )

    compare(old, new, path)
    shown = [text if len(text) <= 80 else f"{text.split(' ')[0]} differs" for text in dict.fromkeys(found)]
    return ", ".join(shown[:3]) + (", ..." if len(shown) > 3 else "")
