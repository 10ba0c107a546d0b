"""`aha chat`: thinking apart from the answer, commands, verdicts, votes, Ctrl-C; text cannot steer the terminal."""

from __future__ import annotations

import _thread
import io
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest
from rich.console import Console

from aha.serve.errors import ApiError
from aha.serve.screen import visible
from aha.serve.served import ServedModel
from aha.serve.terminal import Terminal, start_model
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import ASSISTANT, END_THINK, THINK, Tokenizer
from aha.types import Request

from .conftest import solved

Talk = Callable[..., str]
Lines = Sequence[str | BaseException | Callable[[], str]]
SUM = r"(?:What is|Compute|Find the value of) ([-\d+*]+)"


@pytest.fixture
def talk(tokenizer: Tokenizer, scripted_generator: Any) -> Talk:
    """Called with lines that are typed, and what models say to a prompt: what is on the screen in the end."""

    def run(
        lines: Lines,
        say: Callable[..., Any],
        styles: dict[str, str] | None = None,
        colours: bool = False,
        raw: bool = False,
        tokenizers: dict[str, Tokenizer] | None = None,
        **options: Any,
    ) -> str:
        asked = styles or {"m": "chat"}
        waiting = list(lines)

        def script(own: Tokenizer, request: Request, index: int) -> Sequence[int]:
            if raw:
                return say(request, index)
            thinking, content = say(own.decode(request.prompt_token_ids), index)
            thought = [*own.encode(thinking), own.control_id(END_THINK)] if thinking else []
            return [*thought, *own.encode(content), own.eos_id]

        def ask(prompt: str) -> str:
            if not waiting:
                raise EOFError
            line = waiting.pop(0)
            if isinstance(line, BaseException):
                raise line
            return line if isinstance(line, str) else line()

        def load(name: str) -> ServedModel:
            own = (tokenizers or {}).get(name, tokenizer)
            generator = scripted_generator(partial(script, own), max_context=800, **options)
            return ServedModel(name, own, generator, PromptStyle.named(asked[name]))

        screen = io.StringIO()
        console = Console(file=screen, width=100, force_terminal=colours, highlight=False)
        terminal = Terminal(
            {name: PromptStyle.named(one) for name, one in asked.items()}, load, next(iter(asked)), console, ask
        )
        terminal.run()
        terminal.close()
        assert not waiting
        return screen.getvalue()

    return run


def adds(prompt: str, index: int) -> tuple[str, str]:
    found = re.findall(SUM, prompt)
    result = eval(found[-1]) if found else solved(prompt) or 4
    return f"so\n{result}", f"The answer is {result}."


def test_thinking_is_dimmed_behind_a_bar_and_the_answer_is_not(talk: Talk) -> None:
    assert "│ so\n│ 3\n\nThe answer is 3.\n" in talk(["What is 1+2?"], adds)
    coloured = talk(["What is 1+2?"], adds, colours=True)
    assert "\x1b[2m│ s" in coloured and "\x1b[2mT" not in coloured.split("Ctrl-D leaves.")[1]


def test_the_conversation_is_remembered_without_thinking_and_forgotten(talk: Talk) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return adds(prompt, index)

    talk(["/system Be kind.", "What is 1+2?", "What is 2+2?"], say)
    assert "Be kind." in prompts[-1] and "The answer is 3." in prompts[-1] and "so\n3" not in prompts[-1]
    talk(["What is 1+2?", "/clear", "What is 2+2?"], say)
    assert "answer is 3" not in prompts[-1] and "1+2" not in prompts[-1]
    talk(["What is 1+2?", "What is 2+2?"], lambda p, i: say(p, i), {"m": "zero"})
    assert "1+2" not in prompts[-1]


def test_models_are_switched_in_a_conversation(talk: Talk) -> None:
    said = talk(["who?", "/model b", "who?", "/model", "/model c"], adds, {"a": "chat", "b": "chat_direct"})
    assert "* b" in said and "chat format, no thinking" in said
    assert "there is no model 'c'" in said


def test_a_second_model_is_asked_the_same_and_goes_on_with_its_own_answers(talk: Talk) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return ("so", "from a") if THINK in prompt.rpartition(ASSISTANT)[2] else ("", "from b")

    styles: dict[str, str] = {"a": "chat", "b": "chat_direct"}
    said = talk(["/beside b", "one?", "/model", "two?", "/longer", "/beside", "three?"], say, styles)
    assert re.search(r"\na\n│ so\n\nfrom a\n.*tokens.*\nb\nfrom b\n", said)
    assert "* a" in said and "+ b" in said
    asking = [prompt for prompt in dict.fromkeys(prompts) if "one?" in prompt and "two?" in prompt]
    assert "from a" in asking[0] and "from b" not in asking[0]
    assert "from b" in asking[1] and "from a" not in asking[1]
    assert said.split("two?")[0].count("\nb\n") == 2 and len(asking) == 4  # neither to think on nor when switched off
    refused = talk(["/beside c", "/beside a", "/beside b", "/model b", "one?"], say, styles)
    assert "there is no model 'c'" in refused and "'a' answers already" in refused and "from a" not in refused


def test_a_problem_is_judged_for_both(talk: Talk) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        return adds(prompt, index) if prompt.rstrip().endswith(THINK) else ("", "no")

    said = talk(["/beside b", "/problem sums 1"], say, {"a": "chat", "b": "chat_direct"})
    assert "✓ right" in said.split("\nb\n")[0] and "✗ wrong" in said.split("\nb\n")[1]


def test_the_last_question_is_replaced(talk: Talk) -> None:
    prompts: list[str] = []

    def say(prompt: str, index: int) -> tuple[str, str]:
        prompts.append(prompt)
        return adds(prompt, index)

    lines = ["/edit x", "What is 1+2?", "What is 2+2?", "/edit", "/edit What is 5+6?", "What is 1+1?"]
    said = talk(lines, say)
    assert "nothing has been answered" in said and "/edit needs the words" in said and "The answer is 11." in said
    assert all(words in prompts[-1] for words in ("1+2", "5+6", "1+1")) and "2+2" not in prompts[-1]
    refused = talk(["What is 1+2?", "/edit " + "long " * 2000, "What is 2+2?"], say)
    assert "there is no room for a reply" in refused
    assert "1+2" in prompts[-1] and "long" not in prompts[-1]


def test_a_problem_is_judged(talk: Talk) -> None:
    assert "✓ right" in talk(["/problem sums 2"], adds)
    wrong = talk(["/problem sums"], lambda *_: ("", "The answer is 1000."))
    assert "✗ wrong a right answer: " in wrong
    refused = talk(["/problem nothing", "/problem facts 9", "/problem facts x"], adds)
    assert "there is no family 'nothing'" in refused and "level '9': expected one of 1, 2" in refused
    assert "level 'x'" in refused


def test_votes_are_counted(talk: Talk) -> None:
    said = talk(["/votes 4", "seven?"], lambda _, index: ("t", f"The answer is {7 if index else 8}."))
    assert re.search(r"7 +3 of 4", said) and re.search(r"8 +1 of 4", said)
    assert "The answer is 7." in said and "│" not in said


def test_thinking_goes_on(talk: Talk) -> None:
    def say(prompt: str, index: int) -> tuple[str, str]:
        return (", no. 5", "The answer is 5.") if prompt.endswith("4\nWait") else ("4", "The answer is 4.")

    said = talk(["2+3?", "/longer", "/longer"], say)
    assert "│ ... Wait, no. 5\n\nThe answer is 5." in said
    assert "nothing has been answered" in talk(["/longer", "/again"], say)


def test_a_thinking_is_opened_where_there_was_none(talk: Talk, tokenizer: Tokenizer) -> None:
    end, five = tokenizer.control_id(END_THINK), tokenizer.encode("5")  # one token, in whose place the end is forced

    def script(request: Request, index: int) -> list[int]:
        opened = tokenizer.decode(request.prompt_token_ids).rstrip().endswith(THINK)
        answer = [*tokenizer.encode("The answer is 5."), tokenizer.eos_id]
        return [*five, end, *answer] if opened else answer

    for asked, first in (("chat", "/think off"), ("zero", "/think free")):
        said = talk([first, "2+3?", "/longer"], script, {"m": asked}, raw=True)
        before, after = said.split("tokens, ")[0], said.split("thinking, in")[1]
        assert "│" not in before and "The answer is 5.\n" in before
        assert "│ 5\n\nThe answer is 5.\n" in after and "Wait" not in said
    direct = talk(["hello", "/longer"], lambda *_: ("", "hi"), {"m": "chat_direct"})
    assert "'m' answers without thinking: choose a model that thinks with /model" in direct


def test_an_answer_is_forced_where_thinking_on_would_end_without_one(talk: Talk, tokenizer: Tokenizer) -> None:
    def script(request: Request, index: int) -> list[int]:
        prompt = tokenizer.decode(request.prompt_token_ids)
        end = tokenizer.control_id(END_THINK)
        if prompt.endswith("4\nWait"):
            return [*tokenizer.encode(". It is 5"), tokenizer.eos_id]
        answer = "The answer is 5." if prompt.endswith("It is 5") else "The answer is 4."
        return [
            end if "It is 5" in prompt else tokenizer.encode("4")[0],
            end,
            *tokenizer.encode(answer),
            tokenizer.eos_id,
        ]

    said = talk(["2+3?", "/longer"], script, raw=True)
    assert "│ ... Wait. It is 5\n" in said and "The answer is 5." in said


def test_settings_are_checked_as_the_servers_are(talk: Talk) -> None:
    lines = [
        "/set temperature 3",
        "/set seed=4",
        "/set stop ANSWER=",
        "/set top_p = 0.5",
        "/set stop [a",
        "/set stop 2024-01-01",
        "/set stop 2024-13-01",
        "/problem rules 0",
        "/problem rules 15",
        "/set tempo 1",
        "/think x",
        "/votes 99",
        "/set",
        "/thing",
    ]
    said = talk(lines, adds)
    for words in ("'temperature': Input should be less", "seed 4", "is not a value", "no setting 'tempo'", "/think x"):
        assert words in said
    assert "stop ANSWER=, top_p 0.5" in said
    assert "level '0': expected one of 1, 2, 3, 4, 5" in said and "level '15': expected one of" in said
    assert "stop: '2024-01-01' is not a value" in said and "stop: '2024-13-01' is not a value" in said
    assert "'n': Input should be less" in said and "did you mean 'think'" in said
    bounded = talk(["/think 2", "What is 1+2?"], adds)
    assert "3 of them thinking" in bounded
    prolonged = talk(["/think 20+", "What is 1+2?"], lambda *_: ("so", "3"))
    assert "│ so Wait Wait" in prolonged and "/think x+" in talk(["/think x+"], adds)
    assert "0 of them thinking" in talk(
        ["/think off", "/think free", "hello"], lambda *_: ("", "hi"), {"m": "chat_direct"}
    )


def test_what_a_checkpoints_template_refuses_is_said_and_the_chat_goes_on(
    talk: Talk, strict: Tokenizer, untemplated: Tokenizer
) -> None:
    lines = ["/system Be kind.", "What is 1+2?", "/system", "What is 2+2?", "/model b", "hello?", "/model m", "More?"]
    own = {"m": strict, "b": untemplated}
    said = talk(lines, adds, {"m": "chat", "b": "chat"}, tokenizers=own)
    assert "template refuses the conversation: Roles must alternate [2Juser/assistant" in " ".join(said.split())
    assert "\x1b" not in said and "The answer is 3." not in said and said.count("The answer is 4.") == 2
    assert "'b' has no chat template and cannot be asked as chat" in said


@pytest.fixture
def own_ctrl_c() -> Iterator[None]:
    """Ctrl-C as a program of its own has it, whatever ran in this process before."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("own_ctrl_c")
def test_ctrl_c_stops_the_answer_and_not_the_program(talk: Talk) -> None:
    steps = threading.Semaphore(4)

    def interrupt() -> str:
        def later() -> None:
            while steps.acquire(blocking=False):  # until four tokens have been made
                steps.release()
                time.sleep(0.01)
            _thread.interrupt_main()
            for _ in range(20):  # each token wakes the terminal, which then notices
                steps.release()
                time.sleep(0.05)
            steps.release(1000)

        threading.Thread(target=later, daemon=True).start()
        return "go"

    said = talk([interrupt, KeyboardInterrupt(), "again?"], lambda *_: ("thinking " * 40, "end"), steps=steps)
    assert "stopped" in said and "/quit or Ctrl-D leaves" in said
    assert said.rstrip().endswith("s") and "of them thinking, in" in said.split("leaves")[-1]


def test_what_a_model_writes_cannot_steer_the_terminal(talk: Talk) -> None:
    evil = "\x1b[2J\x1b]0;title\x07\x9b31m\u202eabc\rxyz [bold]b[/bold] [link=file:///x]y[/link]"
    said = talk(["hello"], lambda *_: (evil, evil))
    assert not set("\x1b\x07\x9b\u202e\r") & set(said)
    assert "[bold]b[/bold] [link=file:///x]y[/link]" in said
    assert visible("a\n\té等") == "a\n\té等" and visible("\x1b") == "\ufffd"


def test_it_needs_no_server() -> None:
    code = "import sys; sys.modules.update(fastapi=None, starlette=None, uvicorn=None); import aha.serve.terminal"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_where_to_start() -> None:
    assert start_model(["v3", "r1", "qwen3"], "") == "r1" and start_model(["a", "b"], "") == "b"
    assert start_model(["a:r1", "b:v3"], "") == "a:r1"
    with pytest.raises(ApiError, match="no model 'r2'; known: r1"):
        start_model(["r1"], "r2")
