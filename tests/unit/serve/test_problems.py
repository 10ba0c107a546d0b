"""Example problems and verdicts: drawn again by name, judged by the family, whatever a client sends."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from aha.errors import RunFolderError
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.judging import ProblemName, find_problem, judge
from aha.tasks.families import FAMILIES, GENERAL, is_held_out

from .conftest import talking


def name(family: str, level: int = 1, number: int = 7) -> dict[str, Any]:
    return {"family": family, "level": level, "language": "en", "number": number}


def test_every_family_and_level_has_problems_and_they_are_held_out(client: TestClient) -> None:
    listed = client.get("/api/page").json()["families"]
    assert [card["name"] for card in listed] == [*FAMILIES, *GENERAL]
    for card in listed:
        for level in card["levels"]:
            body = name(card["name"], level)
            answer = client.post("/api/problem", json=body)
            assert answer.status_code == 200
            problem = find_problem(ProblemName(**body))
            assert is_held_out(problem) and answer.json() == {"question": problem.question, "domain": card["domain"]}


@pytest.mark.parametrize("family", [*FAMILIES, *GENERAL])
def test_right_and_wrong_answers(client: TestClient, family: str) -> None:
    problem = find_problem(ProblemName(**name(family)))
    if family in GENERAL:
        right = GENERAL[family].respond(problem, random.Random(0))
    else:
        right = f"So it is.\nThe answer is {problem.answer}."
    answer = client.post("/api/judge", json={"problem": name(family), "replies": [right, "", "purple"]}).json()
    assert answer["replies"][0]["score"] == 1
    assert all(reply["score"] < 1 for reply in answer["replies"][1:])
    assert answer["replies"][1]["answer"] is None and answer["gold"] == problem.answer


def test_equivalent_answers_are_one_group() -> None:
    problem = find_problem(ProblemName(family="sums", level=14))
    short, long = problem.answer, f"00{problem.answer}"
    outcome = judge(["no idea", f"The answer is {short}.", f"The answer is {long}."], problem)
    assert [reply.group for reply in outcome.replies] == [None, 0, 0]
    assert (outcome.winner, outcome.groups[0].answer, outcome.groups[0].count) == (1, short, 2)
    texts = judge(["The answer is 4.", "The answer is 5.", "It is. The answer is 5"], None)
    assert [(group.answer, group.count) for group in texts.groups] == [("5", 2), ("4", 1)]
    assert texts.winner == 1 and texts.gold is None and texts.replies[0].score is None
    numbers = judge(["The answer is 7.", "The answer is 0.50.", r"so it is \boxed{\frac{1}{2}}"], None)
    assert [(group.answer, group.count) for group in numbers.groups] == [("0.50", 2), ("7", 1)]
    assert numbers.winner == 1 and numbers.replies[2].answer == r"\frac{1}{2}"


BAD: list[tuple[str, Any, int]] = [
    ("/api/problem", {"family": "no", "level": 1}, 404),
    ("/api/problem", {"family": "../etc", "level": 1}, 404),
    ("/api/problem", {"family": "facts", "level": 5}, 404),
    ("/api/problem", {"family": "facts", "level": "1"}, 400),
    ("/api/problem", {"family": "facts", "level": 1, "number": -1}, 400),
    ("/api/problem", {"family": "facts", "level": 1, "language": "fr"}, 400),
    ("/api/problem", {"family": "facts", "level": 1, "answer": "x"}, 400),
    ("/api/problem", [], 400),
    ("/api/judge", {"replies": []}, 400),
    ("/api/judge", {"replies": ["a"] * 65}, 400),
    ("/api/judge", {"replies": [1]}, 400),
    ("/api/judge", {"problem": {"family": "facts"}, "replies": ["a"]}, 400),
]


@pytest.mark.parametrize(("path", "body", "status"), BAD)
def test_what_is_refused(client: TestClient, path: str, body: Any, status: int) -> None:
    answer = client.post(path, json=body)
    assert answer.status_code == status
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "text", ["\x00", "1e999999", "9**9**9**9", "(" * 5000, "\\boxed{" * 999, "😀" * 9999, "__import__('os')"]
)
def test_hostile_answers_are_judged_and_wrong(client: TestClient, text: str) -> None:
    for family in [*FAMILIES, *GENERAL]:
        answer = client.post("/api/judge", json={"problem": name(family), "replies": [f"The answer is {text}", text]})
        assert answer.status_code == 200
        assert all(reply["score"] < 1 for reply in answer.json()["replies"])


def test_a_verdict_that_takes_too_long_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()
    monkeypatch.setattr("aha.serve.pages.judge", lambda *_: released.wait(20))
    with talking(create_app([], ServeConfig(deadline_seconds=0.2))) as http:
        late = http.post("/api/judge", json={"replies": ["4"]})
        released.set()
    assert (late.status_code, late.json()["error"]["code"]) == (408, "deadline_exceeded")


@pytest.mark.parametrize("path", ["/api/runs/search", "/api/runs/panels", "/api/runs/group"])
def test_a_log_that_takes_too_long_to_read_is_not_waited_for(path: str) -> None:
    released = threading.Event()

    class Slow:
        name = "r"

        def panels(self, *_: Any) -> Any:
            return released.wait(20)

        search = group = overview = panels

    body = {"run": "r", "stage": "s", **({"at": 0} if path.endswith("group") else {})}
    with talking(create_app([], ServeConfig(deadline_seconds=0.2), runs=[Slow()])) as http:
        late = http.post(path, json=body)
        released.set()
    assert (late.status_code, late.json()["error"]["code"]) == (408, "deadline_exceeded")


def test_a_run_that_cannot_be_read_hides_no_other() -> None:
    class Damaged:
        name = "damaged"

        def overview(self) -> dict[str, Any]:
            raise RunFolderError("/a/path that nobody is told of")

    class Good(Damaged):
        name = "good"

        def overview(self) -> dict[str, Any]:
            return {"name": "good", "live": False, "stages": []}

    with talking(create_app([], ServeConfig(), runs=[Damaged(), Good()])) as http:
        answer = http.get("/api/runs")
    assert answer.status_code == 200
    damaged, good = answer.json()["data"]
    assert (damaged["fault"], damaged["stages"]) == ("the run folder cannot be read at present", [])
    assert (good["name"], "fault" in good) == ("good", False)
