"""The stage table: one row per model, the same figures on a page, in a terminal, in Markdown and in JSON."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.errors import ConfigError
from aha.recipes.compare import compare
from aha.report.comparison import COLUMNS, as_json, level_table, markdown, measured, rows_of, text, value
from aha.report.reading import read_run


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
    folder.mkdir()
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
    assert [(row.model, row.asked) for row in rows] == [("pretrain", "zero"), ("r1", "chat")]
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
    assert lines[0] == "|  | pretrain | r1 |"
    assert "| pass@1, % | 20.0 | 80.0 |" in lines
    assert "| tokens | 61.3 | 61.3 |" in lines
    assert [row["general"] for row in as_json(rows)] == [None, 0.75]


def test_the_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "table.md"
    done = CliRunner().invoke(app, ["compare", str(run), "--format", "markdown", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "| general, % | – | 75.0 |" in done.output
    assert out.read_text() == done.output
    table = CliRunner().invoke(app, ["compare", str(run), str(run)], env={"COLUMNS": "200"})
    assert "run/r1" in table.output


def test_what_is_neither_run_nor_model_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(ConfigError, match="neither a run folder"):
        compare([tmp_path], "chat", [], "table", None, 0)
    with pytest.raises(ConfigError, match="expected one of table, markdown, json"):
        compare([run], "chat", [], "yaml", None, 0)
    (run / "evaluation" / "results.json").write_text("{}")
    with pytest.raises(ConfigError, match="no finished evaluation"):
        compare([run], "chat", [], "table", None, 0)
