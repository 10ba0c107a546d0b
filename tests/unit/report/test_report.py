"""The report reads run folders only: transcripts by the stated rule, unfinished runs, hostile text."""

import json
from pathlib import Path
from typing import Any

import pytest

from aha.errors import RunFolderError
from aha.report.page import make_report
from aha.report.transcripts import choose, frequency


def sample(key: str, index: int, completion: str, correct: bool = True, **other: Any) -> dict[str, Any]:
    row = {"key": key, "index": index, "completion": completion, "correct": correct, "well_formed": True}
    row |= {"rejected": 3, "wrong_rejected": 2} if " no\n" in completion else {"rejected": 0, "wrong_rejected": 0}
    return {**row, "family": "rules", "level": 1, "question": f"Q {key}", "style": "zero", **other}


REJECTING = "<think>9-2=7 3+3=6 no\n9-3=6 2+3=5 no\n9+2=11 yes</think>\n<answer>1</answer>"
PLAIN = "<think>9-2=7 yes</think>\n<answer>1</answer>"


def test_the_rule_chooses_and_nobody_else() -> None:
    base = [sample("a", 0, PLAIN, correct=False), sample("b", 0, PLAIN), sample("c", 0, PLAIN)]
    trained = [
        sample("a", 0, PLAIN),
        sample("a", 1, REJECTING),
        sample("b", 0, REJECTING, correct=False),
        sample("c", 0, REJECTING, well_formed=False),
        sample("c", 1, PLAIN, rejected=1),
        sample("d", 0, REJECTING),
    ]
    (chosen,) = choose(base, trained)
    assert (chosen.question, chosen.before, chosen.before_right, chosen.rejected) == ("Q a", PLAIN, False, 2)
    counted = frequency("m", trained)
    assert counted.answers == 5
    assert counted.rejecting == 0.6
    assert counted.right_when_rejecting == pytest.approx(2 / 3)
    assert counted.false_alarms == pytest.approx(4 / 10)


def folder(tmp_path: Path, completion: str) -> Path:
    run = tmp_path / "run"
    stages = [
        ("pretrain", "pretrain", []),
        ("r1-zero", "grpo", ["pretrain"]),
        ("evaluation", "evaluation", ["r1-zero"]),
    ]
    (run / "evaluation").mkdir(parents=True)
    (run / "config.yaml").write_text(
        "recipe: toy\nseed: 3\nrl: {levels: [1]}\nevaluation: {trained_levels: [1], temperature: 1.0}\n"
    )
    lineage = {"stages": [{"name": n, "kind": k, "parents": p, "done": True} for n, k, p in stages]}
    (run / "lineage.json").write_text(json.dumps(lineage))
    row = {
        "pass_at_1": {"mean": 0.5, "low": 0.4, "high": 0.6, "problems": 2, "samples": 1},
        "by_family": {"rules": {"1": 0.5}},
        "by_domain": {"math": {"mean": 0.5, "low": 0.4, "high": 0.6}},
        "format_rate": 0.95,
        "mean_tokens_well_formed": 10.0,
        "mean_tokens_right": 9.0,
        "mean_tokens_wrong": None,
        "reflections_per_answer": 1.0,
    }
    both = {"trained_levels": row, "all_levels": row}
    (run / "evaluation" / "results.json").write_text(
        json.dumps({"pretrain": {"zero": both}, "r1-zero": {"zero": both}})
    )
    rows = [
        {"stage": "pretrain", "step": 0, "loss": 3.0},
        {"stage": "r1-zero", "step": 0, "reward": 0.5, "evaluation": row, "evaluation_trained_levels": row},
        {"stage": "r1-zero", "step": 1, "reward": 0.7, "evaluation": row, "evaluation_trained_levels": row},
    ]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    samples = [{"model": m, **sample("a", 0, completion)} for m in ("pretrain", "r1-zero")]
    (run / "evaluation" / "rollouts.jsonl").write_text("".join(json.dumps(s) + "\n" for s in samples))
    return run


def test_a_page_with_transcripts(tmp_path: Path) -> None:
    page = make_report(folder(tmp_path, REJECTING)).read_text(encoding="utf-8")
    assert "<mark>no</mark>" in page
    assert "50.0%" in page


def test_model_text_cannot_become_markup(tmp_path: Path) -> None:
    hostile = "<think><script>alert(1)</script> no\n<img src=x onerror=alert(2)></think>"
    page = make_report(folder(tmp_path, hostile)).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


def test_an_unfinished_run_gets_a_page(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.yaml").write_text("recipe: toy\n")
    assert "not finished" in make_report(run).read_text(encoding="utf-8")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError):
        make_report(tmp_path)
