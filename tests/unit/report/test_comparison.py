"""The stage table: one row per model, the same figures on a page, in a terminal, in Markdown and in JSON."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.errors import ConfigError, RunFolderError
from aha.evals.stage import EvaluationConfig
from aha.recipes.compare import compare
from aha.report.comparison import COLUMNS, ModelRow, as_json, level_table, markdown, measured, rows_of, text, value
from aha.report.reading import read_run
from aha.tasks.families import GENERAL, held_out_suite
from aha.tasks.stored import HELD_OUT, write_problems
from aha.text.tokenizer import Tokenizer


def result(accuracy: float, general: float | None = None) -> dict[str, Any]:
    trained = {
        "pass_at_1": {"mean": accuracy, "low": 0.0, "high": 1.0},
        "cons_at_k": {"16": accuracy + 0.1},
        "pass_at_k": {"1": accuracy, "16": accuracy + 0.2},
        "by_domain": {"math": {"mean": accuracy}},
        "format_rate": 0.9,
        "mean_completion_tokens": 61.26,
    }
    cell = {"pass_at_1": accuracy, "cons_at_k": accuracy, "pass_at_k": accuracy}
    found: dict[str, Any] = {"trained_levels": trained, "all_levels": {"by_domain_level": {"math": {"1": cell}}}}
    return found if general is None else {**found, "general": {"score": general}}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir(exist_ok=True)
    (folder / "config.yaml").write_text("recipe: r1-tiny\nseed: 0\n")
    stages = [("pretrain", "pretrain"), ("r1", "grpo"), ("evaluation", "evaluation")]
    lineage = {"stages": [{"name": n, "kind": k, "parents": [], "done": True} for n, k in stages]}
    (folder / "lineage.json").write_text(json.dumps(lineage))
    summary = {"stages": [{"name": "r1", "tokens_trained": 1_500_000, "minutes": 3.21}]}
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "evaluation").mkdir()
    results = {"r1": {"chat": result(0.8, 0.75)}, "pretrain": {"direct": result(0.3), "zero": result(0.2)}}
    (folder / "evaluation" / "results.json").write_text(json.dumps(results))
    return folder


def test_rows_are_in_the_order_of_the_recipe_and_each_model_is_asked_its_own_way(run: Path) -> None:
    rows = rows_of(read_run(run))
    assert [(row.model, row.style) for row in rows] == [("pretrain", "zero"), ("r1", "chat")]
    by_title = {column.title: column for column in COLUMNS}
    assert [value(rows[1], by_title[title]) for title in ("pass@1", "cons@k", "pass@k", "math", "general")] == [
        0.8,
        0.9,
        1.0,
        0.8,
        0.75,
    ]
    assert value(rows[0], by_title["general"]) is None
    assert [text(row, by_title["trained on"]) for row in rows] == ["–", "1.50M"]
    assert "harmful refused" not in [column.title for column in measured(rows)]
    assert level_table(rows)["math"]["1"]["r1"]["pass_at_1"] == 0.8


def test_markdown_and_json_say_the_same(run: Path) -> None:
    rows = rows_of(read_run(run))
    lines = markdown(rows).splitlines()
    assert lines[0] == "|  | pretrain | r1 |" and "measured with" not in markdown(rows)
    assert "| pass@1, % | 20.0 | 80.0 |" in lines
    assert "| tokens | 61.3 | 61.3 |" in lines
    assert "| math, level 1 | 20 / 20 / 20 | 80 / 80 / 80 |" in lines
    assert [row["general"] for row in as_json(rows)] == [None, 0.75]
    assert as_json(rows)[1]["levels"]["math"]["1"]["pass_at_1"] == 0.8


def test_the_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    done = CliRunner().invoke(app, ["compare", str(run), "--format", "markdown", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "| general, % | – | 75.0 |" in done.output
    assert out.read_text() == done.output
    other = shutil.copytree(run, tmp_path / "other" / "run")
    table = CliRunner().invoke(app, ["compare", str(run), str(other)], env={"COLUMNS": "60"})
    names = [f"{own.parent.name}-run/r1" for own in (run, other)]
    assert all(name in table.output for name in names)
    assert table.output.count("math, level 1") > 1, "what does not fit stands below"


def test_rows_that_were_measured_otherwise_are_marked() -> None:
    hot, cool = (
        {"temperature": 1.0, "samples": 8, "general": []},
        {"temperature": 0.6, "samples": 8, "general": ["facts"]},
    )
    rows = [ModelRow(name, "chat", result(0.5), own) for name, own in (("a", hot), ("b", cool), ("c", hot))]
    written = markdown(rows)
    assert "| measured with | A | B | A |" in written
    assert "All with" in written and "k is the number of samples" in written
    assert "Measured with A: temperature 1.0, general none." in written
    assert "Measured with B: temperature 0.6, general facts." in written
    assert [row["settings"]["temperature"] for row in as_json(rows)] == [1.0, 0.6, 1.0]


def evaluated(run: Path, **changes: Any) -> dict[str, Any]:
    """Says what the run's evaluation was made with, small enough to be repeated."""
    few = {"families": ["boxes"], "levels": [1], "problems_per_level": 2, "samples": 2, "max_completion_tokens": 4}
    suites = [{"stage": stage, "styles": [way]} for stage, way in (("pretrain", "zero"), ("r1", "chat"))]
    config = EvaluationConfig.model_validate({**few, "temperature": 0.6, "suites": suites, **changes})
    (run / "evaluation" / "stage.json").write_text(json.dumps({"config": config.model_dump(mode="json")}))
    return few


def compared(*arguments: str | Path) -> list[dict[str, Any]]:
    done = CliRunner().invoke(app, ["compare", *map(str, arguments), "--format", "json"])
    assert done.exit_code == 0, done.output
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_a_model_folder_is_measured_as_its_run_measures(run: Path, base: Tokenizer, tmp_path: Path) -> None:
    """`base` lies in the run as a model that no evaluation names."""
    evaluated(run, general=["facts"], general_per_level=1)
    for stage in ("pretrain", "r1"):
        shutil.copytree(run / "base" / "model", run / stage / "model")
    rows = compared(run, run / "pretrain" / "model", run / "r1" / "model", run / "base" / "model")
    assert [(row["model"], row["style"]) for row in rows[2:]] == [
        ("pretrain", "zero"),
        ("r1", "chat"),
        ("base", "chat"),
    ]
    assert {json.dumps(row["settings"]) for row in rows} == {json.dumps(rows[0]["settings"])}
    assert rows[0]["settings"]["temperature"] == 0.6 and "general" in rows[2]
    asked = compared(run / "r1" / "model", "--style", "direct", "--set", "temperature=0", "--set", "general=[]")
    assert [(row["style"], row["settings"]["temperature"]) for row in asked] == [("direct", 0.0)]


def test_held_out_problems_of_the_run_are_asked_as_well(run: Path, base: Tokenizer) -> None:
    evaluated(run, families=[], problems=["decontaminated"], problems_limit=1)
    (run / "decontaminated").mkdir()
    problems = list(held_out_suite(["sums"], [1], 3, 0))
    write_problems(run / "decontaminated" / HELD_OUT, problems)
    mine = compared(run / "base" / "model")
    assert mine[0]["levels"].keys() == {"math"} and mine[0]["settings"]["problems"] == ["decontaminated"]


def test_a_base_that_lies_elsewhere_is_measured_as_the_run_that_links_to_it(
    run: Path, base: Tokenizer, tmp_path: Path
) -> None:
    evaluated(run)
    (run / "base").rename(tmp_path / "mine")
    (run / "base").mkdir()
    (run / "base" / "model").symlink_to(tmp_path / "mine" / "model", target_is_directory=True)
    row = compared(run / "base" / "model")[0]
    assert (row["model"], row["settings"]["families"]) == ("base", ["boxes"])
    shutil.copytree(tmp_path / "mine" / "model", run / "pretrain" / "model")
    (tmp_path / "best").symlink_to(run / "pretrain", target_is_directory=True)
    again = compared(tmp_path / "best" / "model")[0]
    assert (again["model"], again["style"], again["settings"]["families"]) == ("best", "zero", ["boxes"])


def test_other_folders_get_the_papers_sampling_and_names_of_their_own(
    base: Tokenizer, run: Path, tmp_path: Path
) -> None:
    folders = [shutil.copytree(run / "base" / "model", tmp_path / name / "r1" / "model") for name in ("a", "b")]
    small = [f"--set={key}={value}".replace("'", "") for key, value in evaluated(run).items() if key != "samples"]
    rows = compared(*folders, *small, "--set=general_per_level=1", "--seed=3")
    assert [row["model"] for row in rows] == ["a-r1", "b-r1"]
    settings = rows[0]["settings"]
    assert (settings["temperature"], settings["top_p"], settings["samples"]) == (0.6, 0.95, 16)
    assert settings["suite_seed"] == 3 and set(settings["general"]) == set(GENERAL)


def test_what_is_neither_run_nor_model_is_refused(tmp_path: Path, base: Tokenizer, run: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run folder"):
        compare([tmp_path], "chat", [], "table", None, None)
    with pytest.raises(ConfigError, match="expected one of table, markdown, json"):
        compare([run], "chat", [], "yaml", None, None)
    with pytest.raises(ConfigError, match="runs are shown as they were measured"):
        compare([run], "", ["temperature=0"], "table", None, None)
    with pytest.raises(ConfigError, match="--seed are for model folders"):
        compare([run], "", [], "table", None, 1)
    with pytest.raises(ConfigError, match=r"there is a model in '.*base/model'"):
        compare([run / "base"], "", [], "table", None, None)
    with pytest.raises(RunFolderError, match="cannot write"):
        compare([run], "", [], "table", run / "lineage.json" / "table.md", None)
    reward_model = shutil.copytree(run / "base", run / "helpful-rm")
    (reward_model / "reward_model.json").write_text("{}")
    with pytest.raises(ConfigError, match="belongs to a reward model"):
        compare([reward_model / "model"], "", [], "table", None, None)
    (run / "evaluation" / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="no finished evaluation"):
        compare([run], "", [], "table", None, None)
