"""“Thinking longer”: the section of a run with a scaling stage, and no section without one."""

import json
from pathlib import Path
from typing import Any

import pytest

from aha.report.page import make_report
from aha.report.reading import read_run
from aha.report.scaling import curves_figure, section


def point(setting: int, tokens: float, mean: float) -> dict[str, Any]:
    figures = {
        "tokens": tokens,
        "forced_tokens": 0.0,
        "accuracy": {"mean": mean, "low": mean - 0.1, "high": mean + 0.1},
        "problems": 10,
    }
    return {"setting": setting, **figures, "by_level": {"1": figures, "5": {**figures, "tokens": 3 * tokens}}}


CURVES = {
    "majority": [point(1, 20, 0.4), point(2, 40, 0.5)],
    "adaptive": [point(2, 40, 0.55)],
    "something new": [point(1, 20, 0.3)],
}
RESULT = {
    "curves": CURVES,
    "at_equal_tokens": {
        "16": dict.fromkeys(CURVES),
        "40": {"majority": point(2, 40, 0.5), "adaptive": point(2, 40, 0.55), "something new": None},
    },
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    (folder / "scaling").mkdir(parents=True)
    (folder / "config.yaml").write_text("recipe: toy\n")
    stages = [
        {"name": "r1", "kind": "grpo", "parents": [], "done": True},
        {"name": "scaling", "kind": "scaling", "parents": ["r1"], "done": True},
    ]
    (folder / "lineage.json").write_text(json.dumps({"stages": stages}))
    results = {"pretrain": {"zero": RESULT}, "r1": {"chat": RESULT}}
    (folder / "scaling" / "scaling.json").write_text(json.dumps(results))
    return folder


def test_forced_thinking_has_a_table_by_budget(run: Path) -> None:
    path = run / "scaling" / "scaling.json"
    results = json.loads(path.read_text())
    cut, wait = [point(64, 50, 0.6), point(16, 22, 0.2)], [point(64, 97, 0.1)]
    results["r1"]["chat"]["curves"] |= {"end_thinking": cut, "wait": wait}
    for by_method in results["r1"]["chat"]["at_equal_tokens"].values():
        by_method |= {"end_thinking": None, "wait": None}
    path.write_text(json.dumps(results))
    made = section(read_run(run))
    assert made is not None
    (table,) = (table for table in made.tables if table.head[0] == "r1, asked as chat: budget")
    assert table.head[1:] == ["thinking cut off", "tokens", "“Wait” put in", "tokens"]
    assert table.rows == [
        ["16", "20.0 [10, 30]", "22", "–", "–"], ["64", "60.0 [50, 70]", "50", "10.0 [0, 20]", "97"]
    ]  # fmt: skip


def test_the_section_has_curves_levels_and_equal_budgets(run: Path) -> None:
    made = section(read_run(run))
    assert made is not None
    assert len(made.figures) == 1 + 2 + 2, "all models' votes; each model's methods; each model's levels"
    assert "any right" not in made.figures[1]
    assert "majority vote" in made.figures[1]
    assert "something new" in made.figures[1]
    equal, _, levels, _, spent, _ = made.tables
    assert equal.rows[0] == ["16", "–", "–", "–"]
    assert equal.rows[1][1:3] == ["50.0 [40, 60]", "55.0 [45, 65]"]
    assert levels.rows[0] == ["majority vote", "50.0 [40, 60]", "50.0 [40, 60]", "40", "120"]
    assert "at 40 tokens" in levels.note
    assert spent.rows == [["one sample", "20", "60"], ["adaptive, 2 samples on average", "40", "120"]]
    page = make_report(run).read_text(encoding="utf-8")
    assert "Thinking longer" in page
    assert "tokens per question" in page


def test_an_unfinished_stage_shows_nothing(run: Path) -> None:
    stages = [{"name": "scaling", "kind": "scaling", "parents": [], "done": False}]
    (run / "lineage.json").write_text(json.dumps({"stages": stages}))
    assert section(read_run(run)) is None
    assert "Thinking longer" not in make_report(run).read_text(encoding="utf-8")


def test_a_name_cannot_become_markup() -> None:
    drawn = curves_figure(RESULT, 'a" onload="alert(1)')
    assert 'aria-label="a&quot; onload=&quot;alert(1)"' in drawn
