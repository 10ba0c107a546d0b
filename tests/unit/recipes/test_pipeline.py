"""The graph of stages: identities, what is kept, what is redone, what is put together from it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console

from aha.configuration import Config, StageName
from aha.errors import CheckpointError, ConfigError
from aha.recipes import pipeline as pipelines
from aha.recipes.pipeline import Pipeline
from aha.recipes.recipe import RecipeConfig, StageSpec, identities, short_name
from aha.runs import RunFolder
from aha.training.distributed import Distributed
from aha.training.interrupts import StopFlag, StopRequested
from aha.training.progress import Progress
from aha.training.stage import StageContext, StageResult


class NoteConfig(Config):
    """What a stage of this test writes, and when it stumbles."""

    text: str = "x"
    stumble_at: int = -1
    outside: ClassVar[str] = ""
    """Stands for the content of a file."""

    def data_identity(self) -> str:
        return self.outside if self.text == "base" else ""


class Notes(RecipeConfig):
    """base -> child, base -> other: `other` does not depend on `child`."""

    recipe: str = "notes"
    checkpoint_seconds: float = 0
    base: NoteConfig = NoteConfig(text="base")
    child: NoteConfig = NoteConfig(text="child")
    other: NoteConfig = NoteConfig(text="other")

    def stages(self) -> tuple[StageSpec, ...]:
        return (
            StageSpec("base", "notes", self.base),
            StageSpec("child", "notes", self.child, parents=("base",)),
            StageSpec("other", "notes", self.other, parents=("base",)),
        )


class Note:
    """Writes its text, once per step, and its parent's."""

    kind: ClassVar[str] = "notes"
    ran: ClassVar[list[str]] = []
    stumbles: ClassVar[bool] = True

    def run(self, context: StageContext) -> StageResult:
        config = context.config
        assert isinstance(config, NoteConfig)
        saved = context.checkpointer.load()
        self.ran.append(f"{context.name}:{saved.step if saved else 0}")
        for step in range(saved.step if saved else 0, 4):
            if self.stumbles and step == config.stumble_at:
                raise KeyboardInterrupt
            context.metrics.write({"step": step})
            if context.checkpointer.due():
                context.checkpointer.save(step + 1, {"x": torch.tensor(step)}, {})
        above = (context.parent_model_folder() / "note").read_text() if context.parents else ""
        context.model_folder.mkdir()
        (context.model_folder / "note").write_text(above + config.text)
        return StageResult({"score": len(above)}, tokens_trained=7)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipelines, "make_stage", lambda kind: Note())
    monkeypatch.setattr(Note, "ran", [])
    monkeypatch.setattr(Note, "stumbles", True)


def run(path: Path, stop: StopFlag | None = None, **changes: object) -> tuple[list[str], str]:
    """Runs the pipeline in this process. Returns which stages ran (and from which step), and what was said."""
    config = Notes.model_validate(changes)
    folder = RunFolder.prepare(path)
    folder.write_config("recipe: notes\n")
    said = io.StringIO()
    progress = Progress(console=Console(file=said, width=1000))
    Note.ran.clear()
    try:
        Pipeline(config, folder, Distributed(), progress, stop or StopFlag()).run()
    finally:
        folder.release()
    return list(Note.ran), said.getvalue()


def test_identities_follow_kind_config_seed_data_and_parents(monkeypatch: pytest.MonkeyPatch) -> None:
    base = identities(Notes())
    assert len(set(base.values())) == 3

    def changed(**changes: object) -> list[str]:
        new = identities(Notes.model_validate(changes))
        return [name for name in base if base[name] != new[name]]

    assert changed() == []
    assert changed(compute={"device": "cpu"}, checkpoint_seconds=5, max_processes=1) == []
    assert changed(seed=1) == ["base", "child", "other"]
    assert changed(base={"text": "new"}) == ["base", "child", "other"]
    assert changed(child={"text": "new"}) == ["child"]
    monkeypatch.setattr(NoteConfig, "outside", "other content")
    assert changed() == ["base", "child", "other"]


def test_a_graph_out_of_order_is_refused() -> None:
    class Bad(Notes):
        def stages(self) -> tuple[StageSpec, ...]:
            return (StageSpec("a", "notes", self.base, parents=("b",)), StageSpec("b", "notes", self.base))

    class Twice(Notes):
        def stages(self) -> tuple[StageSpec, ...]:
            return (StageSpec("a", "notes", self.base), StageSpec("a", "notes", self.child))

    with pytest.raises(ConfigError, match="stage 'a': parent 'b' is not an earlier stage"):
        identities(Bad())
    with pytest.raises(ConfigError, match="two stages named 'a'"):
        identities(Twice())


def test_a_link_left_by_a_kill_is_taken_away_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "weights").write_text("dear")
    stage = tmp_path / "stage"
    stage.mkdir()
    (stage / "model").symlink_to(tmp_path / "mine", target_is_directory=True)
    pipelines._clear_outputs(stage)
    assert list(stage.iterdir()) == []
    assert (tmp_path / "mine" / "weights").read_text() == "dear"


def test_a_run_says_what_it_is_made_of_from_its_start(tmp_path: Path) -> None:
    for stumbling, done in (("base", [False, False, False]), ("child", [True, False, False])):
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path, **{stumbling: {"text": stumbling, "stumble_at": 1}})
        lineage = json.loads((tmp_path / "lineage.json").read_text())
        assert [stage["done"] for stage in lineage["stages"]] == done


def test_everything_runs_once_and_is_kept(tmp_path: Path) -> None:
    assert run(tmp_path)[0] == ["base:0", "child:0", "other:0"]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    ran, said = run(tmp_path)
    assert ran == []
    assert said.count("done before, kept") == 3
    assert {path: path.read_bytes() for path in before} == before
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [(stage["name"], stage["parent"], stage["score"]) for stage in summary["stages"]] == [
        ("base", None, 0),
        ("child", "base", 4),
        ("other", "base", 4),
    ]
    assert summary["stages"][0]["tokens_trained"] == 7
    assert summary["peak_memory_bytes"] > 0
    lineage = json.loads((tmp_path / "lineage.json").read_text())
    assert [(stage["name"], stage["parents"], stage["done"]) for stage in lineage["stages"]] == [
        ("base", [], True),
        ("child", ["base"], True),
        ("other", ["base"], True),
    ]
    assert not list(tmp_path.glob("*/checkpoints"))


def test_only_what_changed_and_its_descendants_are_redone_and_the_logs_keep_their_order(tmp_path: Path) -> None:
    run(tmp_path)
    logs = (tmp_path / "metrics.jsonl").read_bytes()
    ran, said = run(tmp_path, child={"text": "new"})
    assert ran == ["child:0"]
    assert "child: changed (text 'child' -> 'new'); what was there is now in 'child.old'" in said
    assert (tmp_path / "child/model/note").read_text() == "basenew"
    assert (tmp_path / "child.old/model/note").read_text() == "basechild"
    assert (tmp_path / "metrics.jsonl").read_bytes() == logs
    ran, said = run(tmp_path, child={"text": "new"}, base={"text": "root"})
    assert ran == ["base:0", "child:0", "other:0"]
    assert "other: changed (its parent)" in said
    assert (tmp_path / "other/model/note").read_text() == "rootother"
    assert (tmp_path / "child.old/model/note").read_text() == "basechild", "what was put aside first is still there"
    assert (tmp_path / "child.old1/model/note").read_text() == "basenew"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("child/model/note", "model/note is damaged"),
        ("child/metrics.jsonl", "metrics.jsonl is damaged"),
        ("child/done.json", "done.json is damaged"),
        ("child/stage.json", "stage.json is missing or damaged"),
    ],
)
@pytest.mark.parametrize("missing", [False, True])
def test_a_damaged_result_is_redone(tmp_path: Path, name: str, reason: str, missing: bool) -> None:
    run(tmp_path)
    good = (tmp_path / name).read_bytes()
    if missing:
        (tmp_path / name).unlink()
        reason = reason.replace("is damaged", "is missing")
    else:
        (tmp_path / name).write_bytes(good[:-3])
    ran, said = run(tmp_path)
    assert ran == ["child:0"]
    assert reason in said or (name == "child/done.json" and missing)
    assert (tmp_path / name).read_bytes() == good


def test_an_interrupted_stage_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    changes = {"child": {"stumble_at": 2}}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", **changes)
    assert json.loads((tmp_path / "broken/summary.json").read_text())["stages"][0]["name"] == "base"
    with (tmp_path / "broken/child/metrics.jsonl").open("a") as file:
        file.write('{"step": "after the checkpoint"}\n{"half')
    for name in ("child/.model.x.tmp/model/y", "child/deep/.z.tmp"):
        (tmp_path / "broken" / name).parent.mkdir(parents=True)
        (tmp_path / "broken" / name).write_text("half written when it was killed")
    Note.stumbles = False
    ran, said = run(tmp_path / "broken", **changes)
    assert ran == ["child:2", "other:0"]
    assert "child: continues after step 2" in said
    assert not list((tmp_path / "broken").rglob("*.tmp"))
    run(tmp_path / "whole", **changes)
    for name in ("metrics.jsonl", "child/metrics.jsonl", "child/done.json", "other/done.json", "lineage.json"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_without_a_good_checkpoint_a_stage_starts_clean(tmp_path: Path) -> None:
    changes = {"child": {"stumble_at": 2}}
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, **changes)
    (tmp_path / "child" / "left-over").write_text("x")
    for path in (tmp_path / "child" / "checkpoints").iterdir():
        (path / "state.json").write_text("{}")
    Note.stumbles = False
    ran, said = run(tmp_path, **changes)
    assert ran == ["child:0", "other:0"]
    assert "child: checkpoint 'step-00000002' is damaged: state.json has 2 bytes" in said
    assert not (tmp_path / "child" / "left-over").exists()


def test_a_stop_is_obeyed_after_saving(tmp_path: Path) -> None:
    stop = StopFlag()
    stop.signum = 15
    with pytest.raises(StopRequested) as caught:
        run(tmp_path, stop)
    assert caught.value.exit_code == 143
    assert run(tmp_path)[0] == ["base:1", "child:0", "other:0"]


def test_a_full_disk_ends_the_run_with_a_message_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aha.training import checkpoint

    def full(*arguments: object, **settings: object) -> None:
        raise CheckpointError("the disk is full")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", full)
        with pytest.raises(CheckpointError):
            run(tmp_path)
    assert run(tmp_path)[0] == ["base:0", "child:0", "other:0"]


class Reading(Config):
    """Names a stage."""

    source: StageName = ""


class Reads(RecipeConfig):
    """Three stages, of which the last reads the second."""

    recipe: str = "reads"
    last: Reading = Reading()

    def stages(self) -> tuple[StageSpec, ...]:
        return (
            StageSpec("first", "notes", NoteConfig()),
            StageSpec("second", "notes", NoteConfig()),
            StageSpec("third", "notes", self.last, parents=("second",)),
        )


def test_settings_name_stages_that_are_there_and_are_read() -> None:
    identities(Reads())
    identities(Reads(last=Reading(source="second")))
    with pytest.raises(ConfigError, match=r"^last.source = 'frist': no stage of that name .*did you mean 'first'"):
        identities(Reads(last=Reading(source="frist")))
    with pytest.raises(ConfigError, match=r"^last.source = 'first': not one of the stages that 'third' reads: second$"):
        identities(Reads(last=Reading(source="first")))


def test_a_stage_may_only_read_its_parents(tmp_path: Path) -> None:
    context = StageContext(
        RunFolder(tmp_path), "a", tmp_path / "a", NoteConfig(), 0, Distributed(), None, None, Progress(False), ("b",)
    )
    assert context.parent_model_folder() == tmp_path / "b" / "model"
    assert context.derive_seed("x") != context.derive_seed("y")
    with pytest.raises(ConfigError, match="not among its parents"):
        context.parent_folder("c")


def test_the_run_folder_is_named_after_the_recipe() -> None:
    assert short_name("r1-zero-tiny") == "r1-zero-tiny"
    assert short_name("my.module:my_recipe") == "my-recipe"
    assert Notes(seed=3).run_name == "notes-seed3"
    assert Notes(name="mine").run_name == "mine-seed0"
