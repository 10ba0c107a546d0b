"""The run page in a real browser: curves and rollouts of a run that is still being written."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aha.report.browser import RunBrowser
from aha.runs import RunFolder
from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.tokenizer import Tokenizer

pytestmark = pytest.mark.slow


def rollout(step: int, text: str, right: bool) -> str:
    rewards = {"accuracy": float(right), "format": 1.0}
    one = {"text": text, "tokens": 9, "finish_reason": "stop", "reward": 1.0 + right, "rewards": rewards}
    other = {
        **one,
        "text": "<img src=x>",
        "reward": 0.0,
        "advantage": -1.5,
        "rewards": {"accuracy": 0.0, "format": 0.0},
    }
    row = {"stage": "rl", "step": step, "family": "boxes", "level": 1, "question": f"Riddle {step}?", "gold": "4"}
    return json.dumps({**row, "completions": [other, {**one, "advantage": 1.5}]}) + "\n"


def metric(step: int) -> str:
    return (
        json.dumps({"stage": "rl", "step": step, "rewards/accuracy/mean": step / 10, "entropy/trained_tokens": 0.5})
        + "\n"
    )


@pytest.fixture
def growing(tmp_path: Path) -> Iterator[Path]:
    """A run that some process works at."""
    folder = tmp_path / "my-run"
    (folder / "rl").mkdir(parents=True)
    (folder / "config.yaml").write_text("recipe: mine\n")
    stages = [("base", "pretrain", True), ("rl", "grpo", False), ("next", "sft", False)]
    rows = [{"name": name, "kind": kind, "parents": [], "done": done} for name, kind, done in stages]
    (folder / "lineage.json").write_text(json.dumps({"recipe": "mine", "seed": 0, "stages": rows}))
    (folder / "metrics.jsonl").write_text(metric(0) + metric(1))
    (folder / "rl" / "rollouts.jsonl").write_text(rollout(0, "2+2=4 Wait", True) + rollout(1, "five", False))
    lock = RunFolder(folder)
    lock.acquire()
    yield folder
    lock.release()


def test_a_growing_run(chromium: Any, listening: Any, growing: Path) -> None:
    app = create_app([], ServeConfig(), runs=[RunBrowser(growing, "my-run")])
    with listening(app) as port:
        page = chromium.new_context(viewport={"width": 1200, "height": 800}).new_page()
        page.set_default_timeout(10_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/run")
        page.locator(".figure").first.wait_for()
        assert page.locator("#title").inner_text() == "rl" and "live" in page.locator("#state").inner_text()
        assert page.get_by_role("button", name="next").is_disabled()
        assert "accuracy 10%" in page.locator(".figure").first.inner_text()
        with (growing / "metrics.jsonl").open("a") as file:
            file.write(metric(2))
        page.get_by_text("accuracy 20%").wait_for()

        page.get_by_role("tab", name="Rollouts").click()
        page.locator(".completion").first.wait_for()
        assert page.locator(".problem").inner_text() == "Riddle 1?"  # the newest
        page.locator(".hit", has_text="Riddle 0?").click()
        page.locator("mark").wait_for()
        assert page.locator("mark").inner_text() == "Wait"
        first = page.locator(".completion").first.inner_text()
        assert all(
            words in first for words in ("#2", "✓ right", "reward 2", "advantage +1.50", "accuracy 1", "9 tokens")
        )
        assert page.locator(".completion pre").nth(1).inner_text() == "<img src=x>"
        page.reload()
        page.locator("mark").wait_for()  # the address names what was shown

        page.get_by_placeholder("Search").fill("FIVE")
        page.get_by_text("1 of 2 prompts").wait_for()
        assert page.locator(".hit").count() == 1 and "Riddle 1?" in page.locator(".hit").inner_text()
        page.get_by_placeholder("Search").fill("")
        page.check("[name=reflecting]")
        page.locator(".hit", has_text="Riddle 0?").wait_for()
        page.select_option("[name=outcome]", "wrong")
        page.get_by_text("0 of 2 prompts").wait_for()
        page.select_option("[name=outcome]", "")
        page.uncheck("[name=reflecting]")
        with (growing / "rl" / "rollouts.jsonl").open("a") as file:
            file.write(rollout(2, "six", True))
        with (growing / "metrics.jsonl").open("a") as file:
            file.write(metric(3))
        page.locator(".hit", has_text="Riddle 2?").wait_for()
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.locator("html").evaluate("node => node.scrollWidth") == 390
        page.context.close()
        assert not faults


def test_all_groups_of_a_long_log_are_reached(chromium: Any, listening: Any, growing: Path) -> None:
    log = growing / "rl" / "rollouts.jsonl"
    log.write_text("".join(rollout(step, "2+2=4", True) for step in range(260)))
    with listening(create_app([], ServeConfig(), runs=[RunBrowser(growing, "my-run")])) as port:
        page = chromium.new_context(viewport={"width": 1200, "height": 800}).new_page()
        page.set_default_timeout(10_000)
        page.goto(f"http://127.0.0.1:{port}/run#my-run/rl/rollouts")
        page.get_by_text("260 prompts").wait_for()
        assert page.locator(".hit").count() == 50
        with log.open("a") as file:  # what comes in front meanwhile moves the others on, here by more than a page
            file.write("".join(rollout(step, "2+2=4", True) for step in range(260, 320)))
        for count in (90, 140, 190, 240, 260):
            page.get_by_role("button", name="More").click()
            page.locator(".hit").nth(count - 1).wait_for()
            assert page.locator(".hit").count() == count
        assert page.get_by_role("button", name="More").count() == 0
        shown = page.locator(".hit .what").all_inner_texts()
        assert shown == [f"Riddle {step}?" for step in reversed(range(260))]
        page.context.close()


def test_what_the_server_refuses_is_said_and_the_page_goes_on(chromium: Any, listening: Any, growing: Path) -> None:
    with listening(create_app([], ServeConfig(), runs=[RunBrowser(growing, "my-run")])) as port:
        page = chromium.new_context(viewport={"width": 1200, "height": 800}).new_page()
        page.set_default_timeout(10_000)
        faults: list[str] = []
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(f"http://127.0.0.1:{port}/run#my-run/rl/rollouts/77")  # no rollout begins there
        page.locator("#state", has_text="no such stage or rollout").wait_for()
        page.locator(".hit", has_text="Riddle 1?").click()
        page.locator("#state", has_text="live").wait_for()
        page.fill("[name=first_step]", "1.5")
        page.locator("#state", has_text="first_step").wait_for()
        page.fill("[name=first_step]", "1")
        page.get_by_text("1 of 2 prompts").wait_for()
        page.context.close()
        assert not faults


def test_a_run_that_cannot_be_read_takes_no_model_away(
    chromium: Any, listening: Any, growing: Path, tokenizer: Tokenizer, scripted_generator: Any
) -> None:
    (growing / "metrics.jsonl").write_text("damaged\n")
    model = ServedModel("m", tokenizer, scripted_generator(lambda *_: [tokenizer.eos_id], max_rows=4, max_context=400))
    app = create_app([model], ServeConfig(), runs=[RunBrowser(growing, "my-run")])
    with listening(app) as port:
        page = chromium.new_context().new_page()
        page.set_default_timeout(10_000)
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator("#send:not([disabled])").wait_for()
        assert "No model" not in page.locator("#note").inner_text()
        page.click("#runs")
        page.locator("#state", has_text="cannot be read").wait_for()
        page.context.close()


def test_the_chat_says_that_no_model_is_there_yet(chromium: Any, listening: Any, growing: Path) -> None:
    with listening(create_app([], ServeConfig(), runs=[RunBrowser(growing, "my-run")])) as port:
        page = chromium.new_context().new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.get_by_text("No model is finished yet").wait_for()
        assert page.locator("#send").is_disabled()
        page.click("#runs")
        page.locator(".figure").first.wait_for()
        page.context.close()
