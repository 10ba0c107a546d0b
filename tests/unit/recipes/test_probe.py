"""`aha probe` on a small random model, and what it says no to."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import aha.recipes.probe as probing
from aha.cli import app
from aha.errors import AhaError, CheckpointError, ConfigError, UnknownNameError
from aha.evals.probe import MEASURES
from aha.recipes.probe import levels_of, settings_for
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

SMALL = ("--set", "max_completion_tokens=12", "--set", "room=40", "--set", "lengths=[0,16,100000]")
FEW = ("--task", "sums,boxes", "--levels", "1-2", "--problems", "2", "--samples", "3", *SMALL)


@pytest.fixture
def model(base: Tokenizer, tmp_path: Path) -> Path:
    return tmp_path / "run" / "base" / "model"


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(app, ["probe", *arguments], env={"COLUMNS": "100"})


def test_the_command(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "probe.json"
    done = invoke(str(model), *FEW, "--out", str(out))
    assert done.exit_code == 0, done.output
    for words in ("asked as 'zero', 6 answers a line", "after 1", "look-ups that are right", "accept what is wrong",
                  "right from 16 tokens", "In RL thinking will not grow in sums, boxes."):  # fmt: skip
        assert words in done.output
    assert "100000" not in done.output, "what does not fit into the positions is left out"
    written = json.loads(out.read_text())
    assert (written["style"], written["seed"], written["settings"]["samples"]) == ("zero", 0, 3)
    assert set(written["rows"]) == set(MEASURES)
    assert len(written["rows"]["answers"]) == 2 * 2 * 2 * 3
    assert set(written["results"]["families"]) == {"sums", "boxes"}
    first = out.read_bytes()
    assert invoke(str(model), *FEW, "--out", str(out)).exit_code == 0
    assert out.read_bytes() == first


def test_json_alone_on_standard_output(model: Path) -> None:
    done = invoke(str(model), *FEW, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert set(found) == {"families", "verdict"}
    assert found["families"]["sums"]["levels"]["1"]["answers"] == 6
    assert "asked as 'zero'" in done.stderr, "progress"


def test_an_interrupted_probe_goes_on(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in the fourth piece of work: what was done is not done again."""
    work = []
    really = dict(MEASURES)

    def counted(name: str) -> Any:
        def measure(*arguments: Any) -> Any:
            work.append(name)
            if len(work) == 4:
                raise KeyboardInterrupt
            return really[name](*arguments)

        return measure

    monkeypatch.setattr(probing, "MEASURES", {name: counted(name) for name in MEASURES})
    out = tmp_path / "a.json"
    assert invoke(str(model), *FEW, "--out", str(out)).exit_code != 0
    assert out.with_name("a.json.part").is_file() and not out.exists()
    assert invoke(str(model), *FEW, "--out", str(out)).exit_code == 0
    assert not out.with_name("a.json.part").exists()
    assert len(work) == 1 + 2 * 2 * len(MEASURES)
    assert invoke(str(model), *FEW, "--out", str(tmp_path / "b.json")).exit_code == 0
    assert json.loads(out.read_text()) == json.loads((tmp_path / "b.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (["--task", "gsm8k"], ConfigError, "gsm8k has no levels, and no solutions whose steps can be checked"),
        (["--task", "sums,facts"], ConfigError, "facts has no levels"),
        (["--task", "summs"], UnknownNameError, "unknown reasoning family 'summs' .did you mean 'sums'"),
        (["--style", "direct"], ConfigError, "does not think between tags: use --style zero, zero_think, chat"),
        (["--style", "loud"], ConfigError, "expected one of zero, zero_think"),
        (["--levels", ""], ConfigError, "no level is asked"),
        (["--levels", "3-1"], ConfigError, "no level is asked"),
        (["--levels", "1-x"], ConfigError, "expected levels and ranges"),
        (["--levels", "1,15"], ConfigError, "levels are 1 to 14"),
        (["--levels", "5,6"], ConfigError, "none of the levels asked .5, 6. is one that the corpus has"),
        (["--set", "room=100"], ConfigError, "room 100 is less than max_completion_tokens 256"),
        (["--set", "sampels=3"], ConfigError, "did you mean 'samples'"),
        (["--set", "room=100000"], ConfigError, r"completions of 100000 need more than the \d+ positions of the model"),
    ],
)
def test_what_cannot_be_is_said(model: Path, arguments: list[str], error: type[AhaError], words: str) -> None:
    done = invoke(str(model), *arguments)
    assert done.exit_code != 0
    with pytest.raises(error, match=words):
        raise done.exception


def test_what_is_no_model_is_said(tmp_path: Path) -> None:
    done = invoke(str(tmp_path))
    assert isinstance(done.exception, CheckpointError)


def test_levels_are_numbers_and_ranges() -> None:
    assert levels_of("1-4, 6,8") == [1, 2, 3, 4, 6, 8]
    config = settings_for(PromptStyle.named("chat"), ["cups"], {"levels": [3]}, ["samples=5"], 7)
    assert (config.families, config.levels, config.samples, config.suite_seed) == (("cups",), (3,), 5, 7)
