"""A run folder as the run page sees it: whole, half written, cut back, damaged."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from aha.errors import RunFolderError
from aha.evals.scaling import Answered
from aha.report.browser import MOST_POINTS, RunBrowser, pieces
from aha.report.rollouts import RolloutLog
from aha.runs import RunFolder


def completion(text: str, right: bool, advantage: float = 0.0) -> dict[str, Any]:
    rewards = {"accuracy": float(right), "format": 1.0}
    return {
        "text": text, "tokens": 5, "finish_reason": "stop", "reward": sum(rewards.values()), "rewards": rewards,
        "advantage": advantage,
    }  # fmt: skip


def row(
    step: int, question: str, *completions: dict[str, Any], family: str = "boxes", level: int = 1
) -> dict[str, Any]:
    return {
        "stage": "rl", "step": step, "family": family, "level": level, "question": question, "gold": "4",
        "completions": list(completions),
    }  # fmt: skip


def sample(model: str, key: str, index: int, correct: bool) -> dict[str, Any]:
    return {
        "stage": "test", "model": model, "style": "chat", "key": key, "family": "cups", "level": 2,
        "question": f"Q {key}", "index": index, "correct": correct, "well_formed": True, "tokens": 3,
        "score": float(correct), "truncated": False, "completion": "<think>a</think>b",
    }  # fmt: skip


def write(path: Path, *rows: dict[str, Any], end: str = "\n") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write("\n".join(json.dumps(one, ensure_ascii=False) for one in rows) + end)


RIGHT, WRONG = completion("<think>2+2=4 Wait</think>4", True, 1.0), completion("5", False, -1.0)
ROWS = [
    row(0, "Alpha?", RIGHT, WRONG),
    row(1, "Beta?", WRONG, WRONG, level=2),
    row(2, "等于几", RIGHT, RIGHT, family="cups"),
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("recipe: mine\n")
    stages = [("base", "pretrain", True), ("rl", "grpo", False), ("test", "evaluation", False), ("later", "sft", False)]
    lineage = [{"name": name, "kind": kind, "parents": [], "done": done} for name, kind, done in stages]
    (folder / "lineage.json").write_text(json.dumps({"recipe": "mine", "seed": 3, "stages": lineage}))
    write(folder / "rl" / "rollouts.jsonl", *ROWS)
    write(
        folder / "test" / "rollouts.jsonl", *(sample(m, k, i, m == "b") for m in "ab" for k in "xy" for i in range(2))
    )
    write(
        folder / "metrics.jsonl", {"stage": "base", "step": 0, "loss": 3.0}, {"stage": "base", "step": 10, "loss": 2.0}
    )
    return folder


def test_stages_and_how_far_they_are(run: Path) -> None:
    overview = RunBrowser(run, "mine").overview()
    assert (overview["recipe"], overview["seed"]) == ("mine", 3)
    assert overview["live"] is False
    told = [(s["name"], s["state"], s["step"], s["curves"], s["rollouts"] > 0) for s in overview["stages"]]
    assert told == [
        ("base", "done", 10, True, False), ("rl", "stopped", None, False, True), ("test", "stopped", None, False, True),
        ("later", "waiting", None, False, False),
    ]  # fmt: skip
    lock = RunFolder(run)
    lock.acquire()
    live = RunBrowser(run, "mine").overview()
    assert live["live"] and [s["state"] for s in live["stages"]] == ["done", "running", "running", "waiting"]
    write(run / "test" / "rollouts.jsonl", sample("c", "x", 0, True))
    assert RunBrowser(run, "mine").overview() != live, "a stage without steps has more rollouts"
    lock.release()
    assert not RunBrowser(run, "mine").overview()["live"]
    with pytest.raises(RunFolderError):
        RunBrowser(run / "rl", "no run")


def test_curves_grow_and_are_thinned(run: Path) -> None:
    browser = RunBrowser(run, "mine")
    (first, rest) = browser.panels("base")
    assert first["series"] == {"loss": [(0, 3.0), (10, 2.0)]} and first["first"] and not rest["first"]
    assert browser.panels("rl") == []
    write(run / "metrics.jsonl", {"stage": "rl", "step": 0, "reward": 0.5, "rewards/accuracy/mean": 0.25})
    titles = {panel["title"]: panel["series"] for panel in browser.panels("rl")}
    assert titles["rewards on training problems"] == {"accuracy": [(0, 0.25)]} and titles["reward"] == {
        "reward": [(0, 0.5)]
    }
    write(run / "metrics.jsonl", *({"stage": "base", "step": step, "loss": 1.0} for step in range(20, 5000)))
    points = browser.panels("base")[0]["series"]["loss"]
    assert len(points) <= MOST_POINTS + 1 and points[0] == (0, 3.0) and points[-1] == (4999, 1.0)
    with pytest.raises(LookupError):
        browser.panels("../rl")


def test_test_time_scaling_has_a_group_for_each_way_and_setting(tmp_path: Path) -> None:
    """Its rows are `Answered`: they have no format, and one question comes again under every setting."""
    answered = Answered(
        "x", "boxes", 2, "Q?", "samples", 0, 0, "4", True, 9, 0, 7, -0.1, False, "<think>2+2</think>4"
    )  # fmt: skip
    rows = [
        answered, replace(answered, index=1, correct=False), replace(answered, source="wait", setting=16),
        replace(answered, source="wait", setting=32, truncated=True),
    ]  # fmt: skip
    path = tmp_path / "rollouts.jsonl"
    write(path, *({"stage": "scaling", "model": "r1", "style": "chat", **asdict(one)} for one in rows))
    log = RolloutLog(path)
    groups = [log.group(entry.start) for entry in log.entries()]
    assert [(group["source"], len(group["completions"])) for group in groups] == [
        ("samples 0", 2), ("wait 16", 1), ("wait 32", 1)
    ]  # fmt: skip
    assert [one["rewards"] for one in groups[0]["completions"]] == [{"score": 1.0}, {"score": 0.0}]
    assert groups[2]["completions"][0]["finish_reason"] == "length"


@pytest.mark.parametrize(
    ("filters", "questions"),
    [
        ({}, ["等于几", "Beta?", "Alpha?"]),
        ({"family": "cups"}, ["等于几"]),
        ({"level": 2}, ["Beta?"]),
        ({"outcome": "right"}, ["等于几"]),
        ({"outcome": "mixed"}, ["Alpha?"]),
        ({"outcome": "wrong"}, ["Beta?"]),
        ({"first_step": 1}, ["等于几", "Beta?"]),
        ({"last_step": 0}, ["Alpha?"]),
        ({"reflecting": True}, ["等于几", "Alpha?"]),
        ({"reflecting": False}, ["Beta?"]),
        ({"text": "ALPHA"}, ["Alpha?"]),
        ({"text": "2+2"}, ["等于几", "Alpha?"]),
        ({"text": "等于"}, ["等于几"]),
        ({"text": "step"}, []),
        ({"family": "cups", "level": 2}, []),
    ],
)
def test_filters_and_search(run: Path, filters: dict[str, Any], questions: list[str]) -> None:
    found = RunBrowser(run, "mine").search("rl", filters, 0, 10)
    assert [group["question"] for group in found["groups"]] == questions
    assert (found["total"], found["of"]) == (len(questions), 3)
    assert (found["families"], found["levels"], found["models"]) == (["boxes", "cups"], [1, 2], [])


def test_a_group_whole_with_its_reflection_marked(run: Path) -> None:
    browser = RunBrowser(run, "mine")
    found = browser.search("rl", {}, 2, 1)["groups"]
    assert [(hit["right"], hit["count"], hit["reward"]) for hit in found] == [(1, 2, 1.5)]
    group = browser.group("rl", found[0]["at"])
    assert (group["step"], group["gold"]) == (0, "4")
    first = group["completions"][0]
    assert (first["right"], first["advantage"], first["rewards"]) == (True, 1.0, {"accuracy": 1.0, "format": 1.0})
    assert first["pieces"] == [("<think>2+2=4 ", None), ("Wait", "wait"), ("</think>4", None)]
    with pytest.raises(LookupError):
        browser.group("rl", found[0]["at"] + 1)


def test_marks_are_whole_english_words_and_lose_no_text() -> None:
    for text in ("", "Wait, no. 等等，不对。", "know waiting nobody checks", "NO!"):
        assert "".join(piece for piece, _ in pieces(text)) == text
    assert [kind for _, kind in pieces("Wait, no. 等等，不对。") if kind] == ["wait", "no", "wait", "no"]
    assert pieces("know waiting") == [("know waiting", None)]


def test_evaluations_are_grouped_by_problem(run: Path) -> None:
    browser = RunBrowser(run, "mine")
    found = browser.search("test", {"model": "b"}, 0, 10)
    assert (found["models"], found["of"]) == (["a", "b"], 4)
    assert [(hit["question"], hit["right"], hit["count"]) for hit in found["groups"]] == [("Q y", 2, 2), ("Q x", 2, 2)]
    group = browser.group("test", found["groups"][0]["at"])
    assert group["style"] == "chat" and [one["advantage"] for one in group["completions"]] == [None, None]


def test_a_log_is_read_on_while_it_grows_and_anew_when_it_was_cut_back(tmp_path: Path) -> None:
    path = tmp_path / "rollouts.jsonl"
    log = RolloutLog(path)
    assert log.entries() == []
    write(path, ROWS[0])
    write(path, ROWS[1], end="")  # a row that is being written
    assert [entry.question for entry in log.entries()] == ["Alpha?"]
    write(path, end="\n")
    write(path, ROWS[2])
    assert [entry.question for entry in log.search({})] == ["Alpha?", "Beta?", "等于几"]
    path.write_text("")
    write(path, ROWS[0], row(1, "Gamma?", WRONG))
    assert [entry.question for entry in log.entries()] == ["Alpha?", "Gamma?"]
    write(path, {"stage": "rl"})
    with pytest.raises(RunFolderError, match="damaged"):
        log.entries()


def test_what_thinking_costs_and_brings_is_told_as_far_as_it_was_measured(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text("recipe: mine\n")
    names = ("thinking", "scaling")
    stages = [{"name": f"my-{name}", "kind": name, "parents": [], "done": name == "thinking"} for name in names]
    (folder / "lineage.json").write_text(json.dumps({"stages": stages}))
    trained = {"thinking_tokens": 74.0, "accuracy": {"mean": 0.7}}
    longer = {"right_to_wrong": 0.1, "wrong_to_right": 0.05}
    thinking = {"zero": {"trained_levels": trained, "think_longer": longer}}
    points = [{"setting": budget, "tokens": 2.0 * budget, "accuracy": {"mean": 0.5}} for budget in (64, 16)]
    scaling = {"zero": {"zero": {"curves": {"end_thinking": points}}}, "r1": {"chat": {"curves": {"wait": points[:1]}}}}
    for name, content in (("thinking", thinking), ("scaling", scaling)):
        (folder / f"my-{name}").mkdir()
        (folder / f"my-{name}" / f"{name}.json").write_text(json.dumps(content))
    measured = {"free": [{"tokens": 74.0, "right": 0.7}], "longer": longer}
    assert RunBrowser(folder, "mine").overview()["effort"] == {"zero": measured}
    stages[1]["done"] = True
    (folder / "lineage.json").write_text(json.dumps({"stages": stages}))
    effort = RunBrowser(folder, "mine").overview()["effort"]
    budget = [{"setting": 16, "tokens": 32.0, "right": 0.5}, {"setting": 64, "tokens": 128.0, "right": 0.5}]
    assert effort["zero"] == {**measured, "budget": budget, "least": []}
    assert effort["r1"] == {"budget": [], "least": budget[1:]}
