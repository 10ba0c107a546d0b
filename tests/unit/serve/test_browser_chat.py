"""The chat page in a real browser: streams, thinking, side by side, votes, verdicts, stop, edit, reload, keyboard."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import END_THINK, THINK, Tokenizer
from aha.types import Request

from .conftest import solved

pytestmark = pytest.mark.slow

KEY = "correct-horse"
STOP = "(stops)"
"""Begins a thinking that ends with the turn, without an answer."""
SUM = r"(?:What is|Compute|Find the value of) ([-\d+*]+)"
Open = Callable[..., AbstractContextManager[Any]]
Say = Callable[[str, int], tuple[str, str]]


@pytest.fixture
def opened(chromium: Any, tokenizer: Tokenizer, listening: Any, scripted_generator: Any) -> Open:
    """Called with what models say (name to function of prompt and sample): their chat page in a fresh browser."""

    @contextmanager
    def open_page(
        models: dict[str, Say],
        steps: threading.Semaphore | None = None,
        api_key: str | None = None,
        style: str = "chat",
        rows: int = 32,
        **context: Any,
    ) -> Iterator[Any]:
        def script(say: Say) -> Callable[[Request, int], Sequence[int]]:
            def tokens(request: Request, index: int) -> list[int]:
                thinking, content = say(tokenizer.decode(request.prompt_token_ids), index)
                if thinking.startswith(STOP):
                    return [*tokenizer.encode(thinking.removeprefix(STOP)), tokenizer.eos_id]
                think = [*tokenizer.encode(thinking), tokenizer.control_id(END_THINK)] if style != "chat_direct" else []
                start = [tokenizer.control_id(THINK)] if style == "zero" and "Wait" not in thinking else []
                return [*start, *think, *tokenizer.encode(content), tokenizer.eos_id]

            return tokens

        options = {"max_rows": rows, "max_context": 4000, "steps": steps}
        served = [
            ServedModel(name, tokenizer, scripted_generator(script(say), **options), PromptStyle.named(style))
            for name, say in models.items()
        ]
        with listening(create_app(served, ServeConfig(), api_key)) as port:
            page = chromium.new_context(**context).new_page()
            page.set_default_timeout(10_000)
            faults: list[str] = []
            page.on("pageerror", lambda error: faults.append(str(error)))
            page.goto(f"http://127.0.0.1:{port}/")
            page.locator(".family").first.wait_for()
            yield page
            if steps is not None:
                steps.release(100_000)
            page.context.close()
            assert not faults

    return open_page


def adds(prompt: str, index: int) -> tuple[str, str]:
    """Thinks in two lines, and is right about sums."""
    found = re.findall(SUM, prompt)
    result = eval(found[-1]) if found else solved(prompt) or 4
    return f"first {result}\nthen {result}", f"The answer is {result}."


def ask(page: Any, question: str) -> None:
    page.fill("#question", question)
    page.keyboard.press("Enter")


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def test_thinking_streams_then_the_answer(opened: Open, tokenizer: Tokenizer) -> None:
    steps = threading.Semaphore(0)
    thinking, content = "one\ntwo", r"So \(\frac{1}{2}\), **bold**"
    with opened({"m": lambda *_: (thinking, content)}, steps) as page:
        ask(page, "How much?")
        page.locator("#stop").wait_for()
        steps.release(3)
        page.locator(".think.working").wait_for()
        assert re.fullmatch(r"Thinking: [1-3] tokens?, \d+\.\d s", text(page, ".think summary"))
        assert "so" not in text(page, ".answer").lower()
        steps.release(1000)
        page.locator('.answer[data-status="done"]').wait_for()
        count = len(tokenizer.encode(thinking)) + 1
        assert text(page, ".think summary").startswith(f"Thought: {count} tokens")
        assert page.locator(".thought").text_content() == thinking
        assert page.locator(".content math mfrac").count() == 1 and text(page, ".content strong") == "bold"
        assert page.locator("#stop").is_hidden()
        page.click(".think summary")
        assert page.locator(".thought").is_hidden()


def test_models_are_switched_and_set_side_by_side(opened: Open) -> None:
    with opened({"left": lambda *_: ("l", "from left"), "right": lambda *_: ("r", "from right")}) as page:
        page.select_option("#model", "left")
        ask(page, "who?")
        page.get_by_text("from left").wait_for()
        page.select_option("#model", "right")
        ask(page, "who?")
        page.get_by_text("from right").wait_for()
        page.select_option("#second", "left")
        ask(page, "both?")
        turn = page.locator(".turn").nth(2)
        turn.get_by_text("from right").wait_for()
        turn.get_by_text("from left").wait_for()
        places = "nodes => nodes.map(node => node.getBoundingClientRect())"
        left, right = turn.locator(".answer").evaluate_all(places)
        assert left["y"] == right["y"] and left["right"] <= right["left"]


def test_stop_by_key_and_button_frees_the_model(opened: Open) -> None:
    """There is room for one answer: the next one thinks only if the stopped one has left."""
    steps = threading.Semaphore(0)
    with opened({"m": lambda *_: ("on and on " * 300, "end")}, steps, rows=1) as page:
        for way in (lambda: page.keyboard.press("Escape"), lambda: page.click("#stop")):
            page.click("#clear")
            ask(page, "go")
            steps.release(5)
            page.locator(".think.working").wait_for()
            way()
            page.locator('.answer[data-status="stopped"]').wait_for()
            assert "stopped" in text(page, ".status")
            steps.release(1)
        page.click("#clear")
        ask(page, "go")
        steps.release(5)
        page.locator(".think.working").wait_for()


def test_a_chat_survives_a_reload_with_its_settings_and_theme(opened: Open) -> None:
    with opened({"m": adds}) as page:
        page.click("#settings-open")
        page.fill("#max_tokens", "300")
        page.click("#theme")
        page.click("#theme")
        ask(page, "What is 1+2?")
        page.get_by_text("The answer is 3.").wait_for()
        page.reload()
        page.get_by_text("The answer is 3.").wait_for()
        assert page.locator(".thought").text_content() == "first 3\nthen 3"
        assert page.input_value("#max_tokens") == "300"
        assert page.locator("html").get_attribute("data-theme") == "dark"
        background = page.locator("body").evaluate("node => getComputedStyle(node).backgroundColor")
        assert background == "rgb(20, 23, 27)"


def test_a_question_is_edited_and_copied(opened: Open) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return adds(prompt, index)

    with opened({"m": say}, permissions=["clipboard-read", "clipboard-write"]) as page:
        ask(page, "What is 1+2?")
        page.get_by_text("The answer is 3.").wait_for()
        ask(page, "What is 2+2?")
        page.get_by_text("The answer is 4.").wait_for()
        assert "The answer is 3." in prompts[-1] and "first 3" not in prompts[-1]
        page.locator(".turn").first.hover()
        page.locator(".question").first.get_by_text("Edit").click()
        page.locator(".question textarea").fill("What is 5+6?")
        page.keyboard.press("Enter")
        page.get_by_text("The answer is 11.").wait_for()
        assert page.locator(".turn").count() == 1
        page.locator(".answer .tools").get_by_text("Copy").click()
        page.get_by_text("Copied").wait_for()
        page.focus("#question")
        page.keyboard.press("Control+V")
        assert page.input_value("#question") == "The answer is 11."


def test_a_problem_gets_the_verifiers_verdict(opened: Open) -> None:
    with opened({"right": adds, "wrong": lambda *_: ("hm", "The answer is 1000.")}) as page:
        page.select_option("#model", "right")
        page.select_option("#second", "wrong")
        page.get_by_title("Draw a problem: sums, level 1", exact=True).click()
        page.locator("#tag").wait_for()
        page.keyboard.press("Enter")
        page.locator(".chip.right").wait_for()
        page.locator(".chip.wrong").wait_for()
        answers = page.locator(".answer")
        assert "✓ right" in answers.nth(0).inner_text()
        result = re.findall(r"The answer is (\d+)", answers.nth(0).inner_text())[0]
        assert f"a right answer: {result}" in answers.nth(1).inner_text()
        ask(page, "What is 1+1?")  # not a drawn problem: nobody judges
        page.locator(".turn").nth(1).locator('.answer[data-status="done"]').nth(1).wait_for()
        assert page.locator(".turn").nth(1).locator(".chip").count() == 0


def test_answers_of_a_vote_are_grouped_with_their_thinking(opened: Open) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        right = prompt.endswith("Wait") or index % 4
        return f"thought {index}", f"The answer is {7 if right else 8}."

    with opened({"m": say}) as page:
        page.click("#settings-open")
        page.select_option("#votes", "8")
        ask(page, "seven?")
        page.locator(".vote").wait_for()
        groups = [page.locator(".group").nth(number) for number in (0, 1)]
        assert [re.sub(r"\s+", " ", group.locator("summary").first.inner_text()) for group in groups] == [
            "7 6 of 8",
            "8 2 of 8",
        ]
        assert page.locator(".answer > .tools").inner_text().split() == ["Again", "Copy"]
        groups[1].locator("summary").first.click()
        groups[1].locator(".think summary").nth(1).click()
        assert groups[1].locator(".thought").nth(1).inner_text() == "thought 4"
        groups[1].get_by_text("Think longer").first.click()
        page.locator(".group summary .soft", has_text="7 of 8").wait_for()  # one of them has changed its mind


@pytest.mark.parametrize("style", ["chat", "zero"])
def test_thinking_goes_on_when_asked(opened: Open, style: str) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        return (
            (", no. It is 5", "The answer is 5.")
            if prompt.endswith("It is 4\nWait")
            else ("It is 4", "The answer is 4.")
        )

    with opened({"m": say}, style=style) as page:
        ask(page, "2+3?")
        page.get_by_text("The answer is 4.").wait_for()
        page.get_by_text("Think longer").click()
        page.locator(".content").get_by_text("The answer is 5.").wait_for()
        assert page.locator(".thought").text_content() == "It is 4\nWait, no. It is 5"
        assert page.locator(".thought mark").all_inner_texts() == ["Wait", "no"]
        assert text(page, ".earlier") == "Before: The answer is 4."
        page.locator(".change.changed").wait_for()
        assert re.fullmatch(r"Thinking longer changed the answer: 4 → 5 · \d+ tokens more", text(page, ".change"))


def test_an_answer_that_thinking_longer_keeps_is_said_to_be_kept(opened: Open) -> None:
    with opened({"m": adds}) as page:
        ask(page, "What is 1+2?")
        page.get_by_text("The answer is 3.").wait_for()
        assert page.locator(".change").count() == 0
        page.get_by_text("Think longer").click()
        page.locator(".change").wait_for()
        assert text(page, ".change").startswith("Thinking longer kept the answer: 3 · ")
        assert page.locator(".changed").count() == 0


def test_what_thinking_costs_and_brings_is_said_where_it_was_measured(opened: Open) -> None:
    measured = {
        "free": [{"tokens": 73.8, "right": 0.698}],
        "budget": [{"setting": 16, "tokens": 20.0, "right": 0.2}, {"setting": 64, "tokens": 60.0, "right": 0.5}],
        "longer": {"right_to_wrong": 0.12, "wrong_to_right": 0.07},
    }
    with opened({"m": adds}) as page:
        page.click("#settings-open")
        assert page.locator("#effort").is_hidden()
        page.route(
            "**/api/runs", lambda route: route.fulfill(json={"data": [{"name": "a", "effort": {"m": measured}}]})
        )
        page.reload()
        page.locator(".family").first.wait_for()
        page.click("#settings-open")
        assert text(page, "#effort") == "Measured on held-out problems: 74 tokens, 70% right"
        page.select_option("#thinking", "budget")
        assert text(page, "#effort").endswith("budget 16: 20 tokens, 20% right; budget 64: 60 tokens, 50% right")
        page.select_option("#thinking", "least")
        assert page.locator("#effort").is_hidden()
        ask(page, "What is 1+2?")
        page.locator('.answer[data-status="done"]').wait_for()
        assert "spoils 12% of the right answers" in page.locator(".longer").get_attribute("title")


def test_a_thinking_is_opened_where_the_model_opened_none(opened: Open) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        return ("no, 5", "The answer is 5.") if prompt.endswith(THINK) else (f"{STOP}The answer is 4.", "")

    with opened({"m": say}, style="zero") as page:
        ask(page, "2+3?")
        page.get_by_text("The answer is 4.").wait_for()
        page.get_by_text("Think longer").click()
        page.locator(".content").get_by_text("The answer is 5.").wait_for()
        assert page.locator(".thought").text_content() == "no, 5"
        assert text(page, ".earlier") == "Before: The answer is 4."


def test_an_answer_that_was_to_be_given_at_once_is_thought_about_when_asked(opened: Open) -> None:
    with opened({"m": lambda *_: ("5", "The answer is 5.")}) as page:  # one token, in whose place the end is forced
        page.click("#settings-open")
        page.select_option("#thinking", "off")
        ask(page, "2+3?")
        page.get_by_text("The answer is 5.").wait_for()
        assert page.locator(".thought").text_content() == ""
        page.get_by_text("Think longer").click()
        page.locator(".earlier").wait_for()
        page.locator('.answer[data-status="done"]').wait_for()
        assert page.locator(".thought").text_content() == "5"


def test_models_that_do_not_think_have_no_such_button(opened: Open) -> None:
    with opened({"m": lambda *_: ("", "The answer is 4.")}, style="chat_direct") as page:
        ask(page, "2+3?")
        page.locator('.answer[data-status="done"]').wait_for()
        assert page.locator(".longer").count() == 0


def test_an_answer_is_forced_where_thinking_on_would_end_without_one(opened: Open) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        if prompt.endswith("It is 4\nWait"):
            return f"{STOP} It is 5", ""
        return ("", "The answer is 5.") if prompt.endswith("It is 5") else ("It is 4", "The answer is 4.")

    with opened({"m": say}) as page:
        ask(page, "2+3?")
        page.get_by_text("The answer is 4.").wait_for()
        page.get_by_text("Think longer").click()
        page.locator(".content").get_by_text("The answer is 5.").wait_for()
        assert page.locator(".thought").text_content() == "It is 4\nWait It is 5"


def test_sampling_and_budget_reach_the_server(opened: Open) -> None:
    with opened({"m": adds}) as page:
        sent: list[dict[str, Any]] = []
        page.on("request", lambda request: request.url.endswith("completions") and sent.append(request.post_data_json))
        page.click("#settings-open")
        page.select_option("#thinking", "budget")
        page.fill("#budget", "3")
        page.fill("#seed", "11")
        page.fill("#max_tokens", "50")
        page.fill("#system", "Be brief.")
        page.locator("#temperature").fill("0.2")
        ask(page, "What is 1+2?")
        page.locator('.answer[data-status="done"]').wait_for()
        assert text(page, ".think summary").startswith("Thought: 4 tokens")  # the budget, and the forced end
        page.select_option("#thinking", "off")
        ask(page, "What is 1+2?")
        page.locator('.answer[data-status="done"]').nth(1).wait_for()
        page.select_option("#thinking", "least")
        ask(page, "What is 1+2?")
        page.locator('.answer[data-status="done"]').nth(2).wait_for()
        first, second, third = sent
        assert third["thinking"] == {"type": "enabled", "min_tokens": 3}
        assert first["thinking"] == {"type": "enabled", "budget_tokens": 3} and second["thinking"] == {
            "type": "disabled"
        }
        assert (first["seed"], first["max_completion_tokens"], first["temperature"], first["top_p"]) == (
            11,
            50,
            0.2,
            0.95,
        )
        assert first["messages"][0] == {"role": "system", "content": "Be brief."}


def test_errors_are_said_and_the_page_goes_on(opened: Open) -> None:
    with opened({"m": adds}) as page:
        ask(page, "word " * 9000)
        page.get_by_role("alert").wait_for()
        assert "there is no room for a reply" in text(page, ".error")
        assert page.locator(".longer").count() == 0
        ask(page, "What is 1+2?")
        page.get_by_text("The answer is 3.").wait_for()


def test_an_answer_stays_when_thinking_longer_is_refused(opened: Open) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return "It is 4", "The answer is 4."

    def refuse(route: Any) -> None:
        route.fulfill(status=429, json={"error": {"message": "too many requests wait"}})

    with opened({"m": say}) as page:
        ask(page, "2+3?")
        page.get_by_text("The answer is 4.").wait_for()
        page.route("**/v1/chat/completions", refuse)
        page.get_by_text("Think longer").click()
        page.get_by_role("alert").wait_for()
        assert text(page, ".error") == "too many requests wait"
        assert text(page, ".content") == "The answer is 4."
        assert page.locator(".thought").text_content() == "It is 4"
        assert page.locator(".earlier").count() == 0
        page.unroute("**/v1/chat/completions")
        ask(page, "and then?")
        page.locator(".turn").nth(1).get_by_text("The answer is 4.").wait_for()
        assert "2+3?" in prompts[-1] and "The answer is 4." in prompts[-1], "it is still a part of the conversation"


def test_an_answer_stays_when_its_verdict_is_refused(opened: Open) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return "so", "The answer is 4."

    with opened({"m": say}) as page:
        page.route("**/api/judge", lambda route: route.fulfill(status=503, json={"error": {"message": "no judge"}}))
        page.locator(".family").first.get_by_role("button").first.click()
        page.locator("#tag").wait_for()
        question = page.input_value("#question")
        page.keyboard.press("Enter")
        page.get_by_text("no judge").wait_for()
        ask(page, "and then?")
        page.locator(".turn").nth(1).get_by_text("The answer is 4.").wait_for()
        assert question.split("\n")[0] in prompts[-1]


def test_it_fits_a_phone_and_is_used_by_keyboard(opened: Open) -> None:
    with opened(
        {"m": lambda *_: ("x" * 200, "y" * 300 + "\n\n|a|b|\n|-|-|\n|1|2|")}, viewport={"width": 390, "height": 844}
    ) as page:
        page.locator("h1").click()
        page.keyboard.press("/")
        page.keyboard.type("hi")
        page.keyboard.press("Enter")
        page.locator('.answer[data-status="done"]').wait_for()
        assert page.locator("html").evaluate("node => node.scrollWidth") == 390
        page.keyboard.press("ArrowUp")
        assert page.input_value(".question textarea") == "hi"
        page.keyboard.press("Escape")
        page.keyboard.press("ArrowUp")  # the question is where it was, and can be edited again
        assert page.locator(".question textarea").is_visible()
        page.keyboard.press("Escape")
        page.focus("#settings-open")
        page.keyboard.press("Enter")
        assert page.locator("#settings").bounding_box()["width"] == 390


def test_the_key_is_asked_for_by_the_browser(opened: Open) -> None:
    with pytest.raises(Exception, match="ERR_INVALID_AUTH_CREDENTIALS"), opened({"m": adds}, api_key=KEY):
        pass
    with opened({"m": adds}, api_key=KEY, http_credentials={"username": "me", "password": KEY}) as page:
        ask(page, "What is 1+2?")
        page.get_by_text("The answer is 3.").wait_for()
