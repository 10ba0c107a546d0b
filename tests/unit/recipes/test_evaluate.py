"""`aha eval`: several models and tasks, every completion kept, continued where it stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aha.errors import ConfigError, RunFolderError, UnknownNameError
from aha.evals.sample_store import SampleStore
from aha.recipes.evaluate import PRESETS, evaluate_models
from aha.text.tokenizer import Tokenizer

DATA = Path(__file__).resolve().parents[2] / "data"
FEW = ["max_completion_tokens=8", "samples=2", "problems_per_level=2", "levels=[1]", "problems_limit=2"]


@pytest.fixture
def model(base: Tokenizer, tmp_path: Path) -> Path:
    return tmp_path / "run" / "base" / "model"


def run(model: Path, out: Path, *settings: str, preset: str = "", tasks: tuple[str, ...] = ("boxes", "gsm8k")) -> None:
    evaluate_models([model], tasks, ["zero", "chat"], preset, [*FEW, f"data={DATA}", *settings], out, seed=0)


def test_all_is_kept_and_counted(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, tmp_path / "out")
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(results["base"]) == {"zero", "chat"}
    for way in results["base"].values():
        assert way["by_task"]["gsm8k"]["pass_at_1"]["problems"] == 2
        assert way["by_task"]["boxes"]["pass_at_1"]["samples"] == 2
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (2 + 2) * 2 and {row["style"] for row in rows} == {"zero", "chat"}
    assert "pass@1" in capsys.readouterr().out


def test_it_goes_on_where_it_was_killed(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "whole")
    run(model, tmp_path / "cut")
    samples = tmp_path / "cut" / "samples.jsonl"
    lines = samples.read_bytes().splitlines(keepends=True)
    samples.write_bytes(b"".join(lines[:3]) + lines[3][:20])  # in the middle of a problem, and of a line
    run(model, tmp_path / "cut")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "cut")]
    assert results[0] == results[1]
    assert sorted(set(samples.read_bytes().splitlines())) == sorted(
        (tmp_path / "whole" / "samples.jsonl").read_bytes().splitlines()
    )


def test_what_was_resumed_and_runs_again_has_the_same_numbers(model: Path, tmp_path: Path) -> None:
    """Samples of a question that was cut off are made again, and count once."""
    run(model, tmp_path / "out")
    whole = (tmp_path / "out" / "results.json").read_bytes()
    samples = tmp_path / "out" / "samples.jsonl"
    samples.write_bytes(b"".join(samples.read_bytes().splitlines(keepends=True)[:5]))
    for _ in range(3):
        run(model, tmp_path / "out")
        assert (tmp_path / "out" / "results.json").read_bytes() == whole


@pytest.mark.parametrize("counts", ["{gsm8k: 4, choice: 2}", "{gsm8k: 2, choice: 4}"])
def test_tasks_with_numbers_of_samples_of_their_own(model: Path, tmp_path: Path, counts: str) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        run(model, out, f"samples_by_task={counts}", tasks=("gsm8k", "choice"))
        results = json.loads((out / "results.json").read_text())["base"]["zero"]["by_task"]
        found = {name: results[name]["pass_at_1"]["samples"] for name in ("gsm8k", "choice")}
        assert f"{{gsm8k: {found['gsm8k']}, choice: {found['choice']}}}" == counts
    rows = (out / "samples.jsonl").read_text().splitlines()
    assert len(rows) == 2 * 2 * (2 + 4), "nothing is asked twice"


def test_parts_of_the_world_alone(model: Path, tmp_path: Path) -> None:
    """Levels that are not trained, general families without requests: what was not asked has no number, and no harm."""
    run(model, tmp_path / "hard", "levels=[4,5]", tasks=("boxes",))
    hard = json.loads((tmp_path / "hard" / "results.json").read_text())["base"]["zero"]
    assert hard["by_task"]["boxes"]["pass_at_1"]["problems"] == 4
    assert hard["trained_levels"]["pass_at_1"] == {"mean": None, "low": None, "high": None, "problems": 0, "samples": 0}
    run(model, tmp_path / "facts", "general=[facts]", "general_per_level=1", tasks=("boxes",))
    general = json.loads((tmp_path / "facts" / "results.json").read_text())["base"]["zero"]["general"]
    assert general["helpful"]["mean"] is not None
    assert general["harmful_refused"] == {"mean": None, "low": None, "high": None}


def test_general_families_are_asked_by_name(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(model, tmp_path / "out", "general_per_level=1", "general_samples=1", tasks=("facts", "requests"))
    result = json.loads((tmp_path / "out" / "results.json").read_text())["base"]["zero"]
    assert set(result["general"]["by_family"]) == {"facts", "requests"} and result["by_task"] == {}
    assert {"facts", "requests", "general"} <= set(capsys.readouterr().out.split())
    with pytest.raises(UnknownNameError, match="did you mean 'facts'"):
        run(model, tmp_path / "out", tasks=("fact",))


def test_families_have_numbers_of_samples_of_their_own_too(model: Path, tmp_path: Path) -> None:
    asked = "general=[facts]", "general_per_level=1", "samples_by_task={cups: 3, facts: 1}"
    run(model, tmp_path / "out", *asked, tasks=("boxes", "cups"))
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    most = {name: max(row["index"] for row in rows if row["family"] == name) + 1 for name in ("boxes", "cups", "facts")}
    assert most == {"boxes": 2, "cups": 3, "facts": 1}


def test_pass_at_k_is_of_all_samples(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out", "samples=3", tasks=("boxes",))
    results = json.loads((tmp_path / "out" / "results.json").read_text())["base"]["zero"]
    assert set(results["by_task"]["boxes"]["pass_at_k"]) == {"1", "2", "3"}


def test_the_numbers_do_not_depend_on_the_batch(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "large")
    run(model, tmp_path / "small", "engine_rows=3")
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("large", "small")]
    assert results[0] == results[1]


def test_another_evaluation_is_not_mixed_in(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out")
    with pytest.raises(RunFolderError, match="other settings"):
        run(model, tmp_path / "out", "temperature=0.5")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("")
    with pytest.raises(RunFolderError, match="holds something else"):
        SampleStore(tmp_path / "other", {})


def test_corrected_answers_are_another_evaluation(model: Path, tmp_path: Path) -> None:
    data = tmp_path / "mine.jsonl"
    rows = [{"question": f"What is {i} + 1?", "answer": str(i + 1)} for i in (1, 2, 1)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run(model, tmp_path / "out", f"data={data}", tasks=("rows",))
    kept = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    asked = [row["question"].split("?")[0] for row in kept if row["index"] == 0 and row["style"] == "zero"]
    assert asked == ["What is 1 + 1", "What is 2 + 1"]
    run(model, tmp_path / "out", f"data={data}", tasks=("rows",))
    data.write_text(data.read_text().replace('"3"', '"4"'))
    with pytest.raises(RunFolderError, match="other settings"):
        run(model, tmp_path / "out", f"data={data}", tasks=("rows",))


@pytest.mark.parametrize(
    "line", [b"{\n", b"[]\n", b'{"model": "base"}\n', b'{"model": "m", "style": "zero", "x": 1}\n']
)
def test_samples_that_cannot_be_read_are_said_and_left_as_they_are(model: Path, tmp_path: Path, line: bytes) -> None:
    run(model, tmp_path / "out")
    samples = tmp_path / "out" / "samples.jsonl"
    first, *others = samples.read_bytes().splitlines(keepends=True)
    content = b"".join([first, line, *others])
    samples.write_bytes(content)
    with pytest.raises(RunFolderError, match=r"samples\.jsonl', line 2: damaged, or written by another version"):
        run(model, tmp_path / "out")
    assert samples.read_bytes() == content


def test_a_folder_in_use_is_refused(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    with SampleStore(tmp_path / "out", settings), pytest.raises(RunFolderError, match=r"in use by process \d+"):
        run(model, tmp_path / "out")
    run(model, tmp_path / "out")


def test_presets(model: Path, tmp_path: Path) -> None:
    run(model, tmp_path / "out", preset="greedy", tasks=("choice",))
    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    assert (settings["temperature"], settings["samples"]) == (0.0, 2), "--set is applied last"
    assert PRESETS["paper"]["samples_by_task"]["choice"] == 64
    with pytest.raises(UnknownNameError, match="did you mean 'paper'"):
        run(model, tmp_path / "out", preset="papr")


def test_several_sampling_settings_at_once(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        run(model, tmp_path / "out", "samples_by_task={}", preset="paper,greedy", tasks=("boxes",))
        results = json.loads((tmp_path / "out" / "results.json").read_text())["base"]
        assert set(results) == {"zero, paper", "zero, greedy", "chat, paper", "chat, greedy"}
        title = " ".join(capsys.readouterr().out.split())
        assert "paper: temperature 0.6, top-p 0.95; greedy: temperature 0, top-p 1" in title
    rows = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert len(rows) == 4 * 2 * 2
    greedy = {row["completion"] for row in rows if row["style"] == "zero, greedy"}
    assert len(greedy) <= 2, "the most likely answer, whatever the sample"


def test_bad_names(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'boxes'.*gsm8k"):
        run(model, tmp_path / "out", tasks=("boxs",))
    with pytest.raises(ConfigError, match=r"samples_by_task.*did you mean 'gsm8k'"):
        run(model, tmp_path / "out", "samples_by_task={gsm8: 2}")
    with pytest.raises(ConfigError, match="named twice"):
        evaluate_models([model, model], (), (), "", FEW, tmp_path / "out", 0)
