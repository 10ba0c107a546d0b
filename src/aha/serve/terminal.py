"""A chat in the terminal, with the server's own requests, budgets, votes and verdicts, and no server.

Ctrl-C ends the answer and keeps the program. What is on screen, and how, is `serve.screen`'s.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml
from rich.console import Console

from aha.errors import AhaError, nearest
from aha.serve.budget import wait_for
from aha.serve.errors import ApiError
from aha.serve.generation import Reply, start_chat
from aha.serve.judging import NUMBERS, ProblemName, find_problem, judge
from aha.serve.prompts import chat_ids
from aha.serve.schemas import MAX_N, ChatRequest, read
from aha.serve.screen import Screen
from aha.serve.served import ServedModel
from aha.tasks.families import FAMILIES, GENERAL
from aha.text.prompt_style import PromptStyle
from aha.types import Language

SETTINGS = ("temperature", "top_p", "seed", "max_completion_tokens", "stop")
"""Fields of a request that /set changes; the others have commands of their own."""
OFF = {"type": "disabled"}
"""The `thinking` of a request that is to be answered at once."""


@dataclass(eq=False)
class Turn:
    """A question, and what was answered."""

    question: str
    problem: ProblemName | None = None
    reply: Reply = field(default_factory=Reply)
    beside: Reply | None = None
    """The second model's."""


class Leave(Exception):  # noqa: N818 - not an error
    """The user wants to go."""


class Terminal:
    """The conversation and its commands.

    Args:
        models: names of models, and the prompt style of each.
        load: gives a model when it is first asked.
        model: the name of the one to start with.
        console: where to write.
        ask: reads a line, after a prompt. Raises EOFError at the end, KeyboardInterrupt for Ctrl-C.
    """

    def __init__(
        self,
        models: Mapping[str, PromptStyle],
        load: Callable[[str], ServedModel],
        model: str,
        console: Console,
        ask: Callable[[str], str] = input,
    ) -> None:
        self._models, self._load, self._model, self._screen, self._ask = models, load, model, Screen(console), ask
        self._beside = ""
        self._loaded: dict[str, ServedModel] = {}
        self._turns: list[Turn] = []
        self._settings: dict[str, Any] = {}
        self._system = ""
        self._commands: dict[str, tuple[Callable[[str], None], str, str]] = {
            "model": (self._choose, "[NAME]", "list the models, or talk to another; the conversation goes on with it"),
            "beside": (self._set_beside, "[NAME]", "ask a second model the same questions, or no other any more"),
            "problem": (self._problem, "[FAMILY [LEVEL [zh]]]", "ask a held-out problem, and let a verifier judge"),
            "longer": (self._longer, "", 'go on with the last thinking ("Wait"), or think where there was none'),
            "think": (
                self._think,
                "free|off|N|N+",
                "think as long as it likes, not at all, at most N tokens, or at least",
            ),
            "votes": (self._votes, "N", "draw N answers and show how they agree"),
            "edit": (self._edit, "TEXT", "ask this instead of the last question"),
            "again": (self._again, "", "answer the last question anew"),
            "set": (self._set, "[NAME VALUE]", f"show the settings, or change one: {', '.join(SETTINGS)}"),
            "system": (self._set_system, "[TEXT]", "put a text before the conversation, or none"),
            "clear": (self._clear, "", "forget the conversation"),
            "help": (self._help, "", "this list"),
            "quit": (self._leave, "", "leave (Ctrl-D)"),
        }

    def run(self) -> None:
        """Reads and answers until the user leaves."""
        self._screen.note(f"Talking to {self._model}. /help lists the commands, Ctrl-C stops an answer, Ctrl-D leaves.")
        while True:
            try:
                self._take(self._ask("\n> ").strip())
            except (EOFError, Leave):
                return
            except KeyboardInterrupt:
                self._screen.note("\n/quit or Ctrl-D leaves")
            except ApiError as error:
                self._screen.fault(error.message)
            except AhaError as error:  # a model that cannot be loaded: others may
                self._screen.fault(str(error))

    def close(self) -> None:
        """Ends all work."""
        for model in self._loaded.values():
            model.worker.close()

    def _take(self, line: str) -> None:
        if not line.startswith("/"):
            if line:
                self._answer(Turn(line))
            return
        name, _, rest = line[1:].partition(" ")
        if name not in self._commands:
            raise ApiError(400, f"unknown command /{name}{nearest(name, self._commands)}; /help lists them")
        self._commands[name][0](rest.strip())

    # ---- answering ----

    def _answer(self, turn: Turn, thought: str | None = None) -> None:
        """Asks, shows, judges; and asks the model beside, unless it is a thinking that goes on.

        A turn that is new is kept when something has been said to it.
        """
        asked = [self._model, self._beside] if self._beside and thought is None else [self._model]
        for name in asked:
            if len(asked) > 1:
                self._screen.write("", title=name)
            reply, stopped = self._reply(turn, name, thought)
            if reply is not None and name == self._model:
                turn.reply = reply
                self._turns += [] if turn in self._turns else [turn]
            elif reply is not None:
                turn.beside = reply
            if stopped:
                return

    def _reply(self, turn: Turn, name: str, thought: str | None) -> tuple[Reply | None, bool]:
        """One model's reply, or the one that won; None where nothing was said. Tells too whether it was stopped.

        A model that was made to think on, and ends inside its thinking, has the end of it forced, and answers.
        """
        model = self._served(name)
        replies, stopped = self._generate(model, self._request(turn, name, thought))
        if thought is not None and not stopped and not replies[0].content:
            whole = thought + replies[0].reasoning
            answered, stopped = self._generate(model, self._request(turn, name, whole, closed=True))
            replies[0].content = answered[0].content
        if not any(reply.reasoning or reply.content for reply in replies):
            self._screen.note("(no answer)")
            return None, stopped
        problem = find_problem(turn.problem) if turn.problem else None
        judgement = judge([reply.content for reply in replies], problem)
        reply = replies[judgement.winner]
        reply.reasoning = (thought or "") + reply.reasoning
        if len(replies) > 1:
            self._screen.votes(judgement)
            self._screen.write(reply.content)
        if problem is not None and not stopped:
            self._screen.verdict(judgement)
        return reply, stopped

    def _request(self, turn: Turn, name: str, thought: str | None, closed: bool = False) -> ChatRequest:
        """What is asked for a turn.

        Args:
            turn: to answer.
            name: of the model; the one beside goes on with its own replies.
            thought: thinking that the reply begins with.
            closed: nothing is added to it.

        Raises:
            ApiError: a setting does not hold.
        """
        single = self._models[name].name == "zero"
        earlier = [] if single else itertools.takewhile(lambda other: other is not turn, self._turns)
        messages: list[dict[str, Any]] = [{"role": "system", "content": self._system}] if self._system else []
        for other in earlier:
            reply = other.reply if name == self._model else other.beside or other.reply
            messages.append({"role": "user", "content": other.question})
            messages.append({"role": "assistant", "content": reply.content})
        messages.append({"role": "user", "content": turn.question})
        if thought is not None:
            begun = {"role": "assistant", "content": "", "reasoning_content": thought, "prefix": True}
            messages.append(begun)
        settings = dict(self._settings)
        if thought is not None:
            settings.pop("n", None)
        if thought is not None and settings.get("thinking") == OFF:
            settings.pop("thinking")
        if closed:
            settings["thinking"] = OFF
        if self._models[name].name == "chat_direct":
            settings.pop("thinking", None)
        return self._checked({**settings, "model": name, "messages": messages})

    def _checked(self, settings: dict[str, Any]) -> ChatRequest:
        return read(ChatRequest, json.dumps(settings).encode())

    def _generate(self, model: ServedModel, request: ChatRequest) -> tuple[list[Reply], bool]:
        """Streams one answer to the screen, or draws several; what there is when Ctrl-C comes is kept."""
        replies = [Reply() for _ in range(request.samples)]
        shown = self._screen.stream(silent=len(replies) > 1, thinking=bool(request.thought))
        tokens, thought, started = 0, 0, time.monotonic()

        async def listen() -> None:
            nonlocal tokens, thought
            prompt = chat_ids(model, request.turns, request.thought)
            generation = start_chat(model, request, prompt)
            async with contextlib.aclosing(generation.deltas()) as deltas:
                async for delta in deltas:
                    replies[delta.index].add(delta)
                    shown.add(delta.reasoning, delta.content)
            tokens, thought = (
                generation.usage.completion_tokens,
                generation.usage.completion_tokens_details.reasoning_tokens,
            )

        stopped = False
        try:
            asyncio.run(listen())
        except KeyboardInterrupt:
            stopped = True
        shown.end()
        seconds = time.monotonic() - started
        self._screen.note("stopped" if stopped else f"{tokens} tokens, {thought} of them thinking, in {seconds:.1f} s")
        return replies, stopped

    def _served(self, name: str) -> ServedModel:
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    # ---- commands ----

    def _choose(self, name: str) -> None:
        if name:
            self._model = self._known(name)
            self._beside = "" if self._beside == name else self._beside
            return
        self._screen.pairs(
            (f"{'*' if known == self._model else '+' if known == self._beside else ' '} {known}", style.title)
            for known, style in self._models.items()
        )

    def _set_beside(self, name: str) -> None:
        if name and self._known(name) == self._model:
            raise ApiError(400, f"{name!r} answers already: choose another model to set beside it")
        self._beside = name

    def _known(self, name: str) -> str:
        if name not in self._models:
            raise ApiError(404, f"there is no model {name!r}{nearest(name, self._models)}")
        return name

    def _problem(self, rest: str) -> None:
        family, level, language, *_ = [*rest.split(), "", "", ""]
        chosen = family or random.choice(list(FAMILIES))
        own = FAMILIES.get(chosen) or GENERAL.get(chosen)
        if own is None:
            raise ApiError(404, f"there is no family {chosen!r}; known: {', '.join([*FAMILIES, *GENERAL])}")
        if level and (not level.isdecimal() or int(level) not in own.levels):
            raise ApiError(400, f"level {level!r}: expected one of {', '.join(map(str, own.levels))}")
        spoken: Language = "zh" if language == "zh" else "en"
        number = random.randrange(NUMBERS)
        name = ProblemName(family=chosen, level=int(level or own.levels[0]), language=spoken, number=number)
        question = find_problem(name).question
        self._screen.write(question, title=f"{name.family}, level {name.level}: ")
        self._answer(Turn(question, name))

    def _longer(self, rest: str) -> None:
        turn = self._last()
        if self._models[self._model].name == "chat_direct":
            raise ApiError(400, f"{self._model!r} answers without thinking: choose a model that thinks with /model")
        if not turn.reply.reasoning:
            self._answer(turn, "")
            return
        wait = wait_for(turn.question)
        self._screen.go_on(wait)
        self._answer(turn, f"{turn.reply.reasoning}\n{wait}")

    def _edit(self, rest: str) -> None:
        old = self._last()
        if not rest:
            raise ApiError(400, "/edit needs the words to ask instead of the last question")
        new = Turn(rest, old.problem if rest == old.question else None)
        self._turns.remove(old)
        try:
            self._answer(new)
        finally:
            if new not in self._turns:  # nothing was said to it
                self._turns.append(old)

    def _again(self, rest: str) -> None:
        self._answer(self._last())

    def _last(self) -> Turn:
        if not self._turns:
            raise ApiError(400, "nothing has been answered yet")
        return self._turns[-1]

    def _think(self, rest: str) -> None:
        number = rest.removesuffix("+")
        if rest not in ("free", "off") and not number.isdecimal():
            raise ApiError(400, f"/think {rest}: expected free, off, a number of tokens, or one with a + behind it")
        bound = "min_tokens" if rest.endswith("+") else "budget_tokens"
        chosen = {"free": None, "off": OFF}
        self._change("thinking", chosen[rest] if rest in chosen else {"type": "enabled", bound: int(number)})

    def _votes(self, rest: str) -> None:
        if not rest.isdecimal():
            raise ApiError(400, f"/votes {rest}: expected a number, at most {MAX_N}")
        self._change("n", int(rest))

    def _set(self, rest: str) -> None:
        name, value, *_ = [*re.split(r"\s*=\s*|\s+", rest, maxsplit=1), ""]
        if not name:
            self._screen.note(
                ", ".join(f"{key} {value}" for key, value in self._settings.items()) or "R1's own: 0.6, 0.95"
            )
        elif name not in SETTINGS:
            raise ApiError(400, f"there is no setting {name!r}{nearest(name, SETTINGS)}; known: {', '.join(SETTINGS)}")
        else:
            try:
                self._change(name, yaml.safe_load(value))
            except (yaml.YAMLError, TypeError, ValueError):  # such as dates: JSON has none, and there is no month 13
                raise ApiError(400, f"{name}: {value!r} is not a value") from None

    def _change(self, name: str, value: Any) -> None:
        """Takes a setting over if a request with it would be valid; no value takes it back."""
        changed = {key: other for key, other in self._settings.items() if key != name}
        if value is not None:
            changed[name] = value
        self._checked({**changed, "model": self._model, "messages": [{"role": "user", "content": "?"}]})
        self._settings = changed

    def _set_system(self, rest: str) -> None:
        self._system = rest

    def _clear(self, rest: str) -> None:
        self._turns = []

    def _help(self, rest: str) -> None:
        self._screen.pairs((f"/{name} {arguments}", words) for name, (_, arguments, words) in self._commands.items())

    def _leave(self, rest: str) -> None:
        raise Leave


def start_model(names: Sequence[str], wanted: str) -> str:
    """The model to start with: the one that is wanted, else R1, else the last.

    Raises:
        ApiError: there is none of that name.
    """
    if wanted and wanted not in names:
        raise ApiError(404, f"there is no model {wanted!r}{nearest(wanted, names)}; known: {', '.join(names)}")
    return wanted or next((name for name in names if name.split(":")[-1] == "r1"), names[-1])
