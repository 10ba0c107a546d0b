"""`aha scale` on a small random model, and what it says no to."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.errors import AhaError, CheckpointError, ConfigError, UnknownNameError
from aha.recipes.recipe import identities
from aha.recipes.registry import make_stage, resolve
from aha.recipes.scale import scale, settings_for
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
        "riddle,motion",
        "--asked",
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
    assert {row["family"] for row in written["answers"]} == {"riddle", "motion"}
    assert (written["asked"], written["seed"]) == ("zero", 0)
    assert set(written["results"]) == {"curves", "at_equal_tokens", "length"}
    assert svg.read_text().startswith("<svg")
    first = out.read_bytes()
    assert CliRunner().invoke(app, arguments, env={"COLUMNS": "160"}).exit_code == 0
    assert out.read_bytes() == first


def test_tasks_from_files(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "curves.json"
    data = Path(__file__).resolve().parents[2] / "data"
    scale(model, ["riddle", "gsm8k"], "zero", [*SETTINGS, f"data={data}", "problems_limit=3"], out, None, 0)
    answers = json.loads(out.read_text())["answers"]
    assert {row["family"] for row in answers} == {"riddle", "gsm8k"}
    assert len({row["question"] for row in answers if row["family"] == "gsm8k"}) == 3
    assert {row["source"] for row in answers if row["family"] == "gsm8k"} >= {"samples", "wait", "revision"}


def test_ways_without_thinking_leave_out_what_takes_hold_of_it() -> None:
    assert settings_for("direct", [], [], 0).methods == ("any_right", "majority", "confidence", "adaptive")
    assert "wait" in settings_for("chat", [], [], 0).methods
    assert settings_for("chat", ["riddle"], ["samples=3"], 7).suite_seed == 7


@pytest.mark.parametrize(
    ("families", "asked", "overrides", "words"),
    [
        ([], "shouting", [], "expected one of zero, zero_think"),
        (["ridle"], "chat", [], "did you mean 'riddle'"),
        ([], "direct", ["methods=[majority,wait]"], "wait needs a model that thinks"),
        (["gsm8l"], "chat", [], "did you mean 'gsm8k'"),
        ([], "chat", ["families=[]"], "nothing is asked"),
        ([], "chat", ["sampels=3"], "did you mean 'samples'"),
        ([], "chat", ["methods=[best_of_n]"], "needs a reward model"),
    ],
)
def test_what_cannot_be_is_said(families: list[str], asked: str, overrides: list[str], words: str) -> None:
    with pytest.raises((ConfigError, UnknownNameError), match=words):
        scale(Path("nowhere"), families, asked, overrides, None, None, 0)


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        scale(tmp_path, ["riddle"], "chat", [], None, None, 0)
    with pytest.raises(AhaError):
        scale(tmp_path / "missing", ["riddle"], "chat", [], None, None, 0)


@pytest.mark.parametrize("recipe", ["r1-tiny", "r1-zero-tiny"])
def test_recipes_have_the_stage_where_models_are_named(recipe: str) -> None:
    without = resolve(recipe, ["scaling.suites=[]"])
    assert "scaling" not in identities(without)
    more = resolve(recipe, ["scaling.suites=[{stage: r1-zero, elicitation: zero}, {stage: pretrain}]"])
    spec = more.stages()[-1]
    assert (spec.name, spec.kind, spec.parents) == ("scaling", "scaling", ("r1-zero", "pretrain"))
    assert make_stage(spec.kind).kind == spec.kind
    assert identities(without).items() <= identities(more).items()
    if recipe == "r1-tiny":
        assert resolve(recipe).stages()[-1].parents == ("pretrain", "r1-zero", "r1")
