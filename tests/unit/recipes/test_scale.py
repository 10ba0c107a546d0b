"""`aha scale` on a small random model, and what it says no to."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import aha.recipes.scale as scaling
from aha.cli import app
from aha.errors import AhaError, CheckpointError, ConfigError, RunFolderError, UnknownNameError
from aha.evals.resumable_log import PieceStore
from aha.evals.scaling_rows import Job
from aha.recipes.recipe import identities
from aha.recipes.registry import make_stage, resolve
from aha.recipes.scale import scale, settings_for
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

SETTINGS = (
    "problems_per_level=2", "levels=[1]", "samples=4", "repeats=1", "rounds=1", "budgets=[4,8]",
    "max_completion_tokens=12", "room=80", "subsets=4",
)  # fmt: skip


@pytest.fixture
def model(base: Tokenizer, tmp_path: Path) -> Path:
    return tmp_path / "run" / "base" / "model"


def test_the_command(model: Path, tmp_path: Path) -> None:
    out, svg = tmp_path / "curves.json", tmp_path / "curves.svg"
    arguments = [
        "scale",
        str(model),
        "--task",
        "boxes,cups",
        "--style",
        "zero",
        "--out",
        str(out),
        "--svg",
        str(svg),
    ]
    for setting in SETTINGS:
        arguments += ["--set", setting]
    done = CliRunner().invoke(app, arguments, env={"COLUMNS": "160"})
    assert done.exit_code == 0, done.output
    for words in ("majority vote", "4 samples", "thinking cut off", "8 tokens", "revision", "1 round", "4 held-out"):
        assert words in done.output
    written = json.loads(out.read_text())
    assert {row["family"] for row in written["answers"]} == {"boxes", "cups"}
    assert (written["style"], written["seed"]) == ("zero", 0)
    assert set(written["results"]) == {"curves", "at_equal_tokens", "length"}
    assert svg.read_text().startswith("<svg")
    first = out.read_bytes()
    assert CliRunner().invoke(app, arguments, env={"COLUMNS": "160"}).exit_code == 0
    assert out.read_bytes() == first


def test_an_interrupted_measurement_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the fourth piece of work and in the middle of a line: what was done is not done again."""
    work: list[Job] = []
    really = scaling.answer

    def counted(job: Job, *arguments: Any) -> Any:
        work.append(job)
        if len(work) == 4:
            raise KeyboardInterrupt
        return really(job, *arguments)

    monkeypatch.setattr(scaling, "answer", counted)
    out, part = tmp_path / "new" / "a.json", tmp_path / "new" / "a.json.part"
    with pytest.raises(KeyboardInterrupt):
        scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, out, None, 0)
    with part.open("a") as file:
        file.write('{"piece": "wait 8')
    with pytest.raises(RunFolderError, match=r"^'.*a\.json\.part' is of an unfinished measurement with other settings"):
        scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, out, None, 1)
    scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, out, None, 0)
    assert not part.exists()
    assert len(work) == 1 + len(settings_for(PromptStyle.named("zero"), ["boxes"], SETTINGS, 0).jobs())
    scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, tmp_path / "b.json", None, 0)
    assert json.loads(out.read_text()) == json.loads((tmp_path / "b.json").read_text())


def test_what_cannot_be_written_is_said_before_the_work(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out, svg in ((tmp_path / "file" / "a.json", None), (None, tmp_path / "file" / "a.svg")):
        with pytest.raises(AhaError, match=r"cannot write .* is a file, not a folder"):
            scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, out, svg, 0)
    for content in ("[]\n", "no JSON\n", "{}\n"):
        (tmp_path / "c.json.part").write_text(content)
        with pytest.raises(RunFolderError, match=r"^'.*c\.json\.part', line 1: damaged"):
            scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, tmp_path / "c.json", None, 0)
    with PieceStore(tmp_path / "d.json.part", {}), pytest.raises(RunFolderError, match="in use by another process"):
        scale(model, ["boxes"], PromptStyle.named("zero"), SETTINGS, tmp_path / "d.json", None, 0)


def test_tasks_from_files(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "curves.json"
    data = Path(__file__).resolve().parents[2] / "data"
    scale(
        model,
        ["boxes", "gsm8k"],
        PromptStyle.named("zero"),
        [*SETTINGS, f"data={data}", "problems_limit=3"],
        out,
        None,
        0,
    )
    answers = json.loads(out.read_text())["answers"]
    assert {row["family"] for row in answers} == {"boxes", "gsm8k"}
    assert len({row["question"] for row in answers if row["family"] == "gsm8k"}) == 3
    assert {row["source"] for row in answers if row["family"] == "gsm8k"} >= {"samples", "wait", "revision"}


def test_ways_without_thinking_leave_out_what_takes_hold_of_it() -> None:
    assert settings_for(PromptStyle.named("direct"), [], [], 0).methods == (
        "any_right",
        "majority",
        "confidence",
        "adaptive",
    )
    assert "wait" in settings_for(PromptStyle.named("chat"), [], [], 0).methods
    assert settings_for(PromptStyle.named("chat"), ["boxes"], ["samples=3"], 7).suite_seed == 7


@pytest.mark.parametrize(
    ("families", "style", "overrides", "words"),
    [
        ([], "shouting", [], "expected one of zero, zero_think"),
        (["boxs"], "chat", [], "did you mean 'boxes'"),
        ([], "direct", ["methods=[majority,wait]"], "wait needs a model that thinks"),
        (["gsm8l"], "chat", [], "did you mean 'gsm8k'"),
        ([], "chat", ["families=[]"], "nothing is asked"),
        ([], "chat", ["sampels=3"], "did you mean 'samples'"),
        ([], "chat", ["methods=[best_of_n]"], "needs a reward model"),
    ],
)
def test_what_cannot_be_is_said(families: list[str], style: str, overrides: list[str], words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        scale(Path("nowhere"), families, PromptStyle.named(style), overrides, None, None, 0)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        scale(tmp_path, ["boxes"], PromptStyle.named("chat"), [], None, None, 0)
    with pytest.raises(AhaError):
        scale(tmp_path / "missing", ["boxes"], PromptStyle.named("chat"), [], None, None, 0)


@pytest.mark.parametrize("recipe", ["r1-tiny", "r1-zero-tiny"])
def test_recipes_have_the_stage_where_models_are_named(recipe: str) -> None:
    without = resolve(recipe, ["scaling.suites=[]"])
    assert "scaling" not in identities(without)
    more = resolve(recipe, ["scaling.suites=[{stage: r1-zero, style: zero}, {stage: pretrain}]"])
    spec = more.stages()[-1]
    assert (spec.name, spec.kind, spec.parents) == ("scaling", "scaling", ("r1-zero", "pretrain"))
    assert make_stage(spec.kind).kind == spec.kind
    assert identities(without).items() <= identities(more).items()
    if recipe == "r1-tiny":
        assert resolve(recipe).stages()[-1].parents == ("pretrain", "r1-zero", "r1")
