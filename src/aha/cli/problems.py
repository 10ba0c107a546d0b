"""`aha task` and `aha grade`: problems are shown, completions are graded."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from aha.cli.options import Sandbox, use_sandbox


def task(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A family, such as sums, or gsm8k, humaneval, math, choice, gym:NAME (nine datasets of "
            "reasoning-gym, whose judges execute answers, are refused).",
        ),
    ],
    level: Annotated[int | None, typer.Option(min=1, max=5, help="Of difficulty.", show_default="all")] = None,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=1000, help="Problems per level.")] = 2,
    language: Annotated[str, typer.Option(help="en or zh.")] = "en",
    seed: Annotated[int, typer.Option(min=0)] = 0,
    data: Annotated[
        Path | None, typer.Option(envvar="AHA_DATA", help="The data folder (or file) of gsm8k and the like.")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Show prompts in this model's template.", show_default="R1-Zero's"),
    ] = None,
    style: Annotated[
        str, typer.Option(help="Prompt style: zero, zero_think, chat, chat_direct, direct, steps.")
    ] = "zero",
    reward: Annotated[
        list[str] | None, typer.Option(metavar="FILE.py:FUNCTION", help="A reward of your own, shown beside.")
    ] = None,
    sandbox: Sandbox = None,
) -> None:
    """Show problems as a model sees them, and what the right answer and wrong ones score.

    Fails where a right answer scores 0 or a wrong one 1: look at this before you train on a task of your own.

    [bold]Examples[/bold]

      aha task sums

      aha task boxes --level 6 -n 5 --language zh

      aha task humaneval --data data

      aha task rows --data mine.jsonl --model ./Qwen3-0.6B --style chat --reward reward.py:brevity
    """
    from aha.recipes.show_task import show_task
    from aha.text.prompt_style import PromptStyle

    use_sandbox(sandbox)
    show_task(name, level, count, language, seed, data, model, PromptStyle.named(style), reward or [])


def grade(
    file: Annotated[
        Path, typer.Argument(metavar="FILE.jsonl", help="Rows with `completion`, and `problem` (an id) or `answer`.")
    ],
    task: Annotated[str, typer.Option(help="gsm8k, humaneval, math, choice, or a family.")],
    data: Annotated[
        Path | None, typer.Option(envvar="AHA_DATA", help="The data folder (or file), for rows that name a problem.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Write the lines here.", show_default="standard output", dir_okay=False)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Count answers in the form <think>..</think><answer>..</answer> only.")
    ] = False,
    sandbox: Sandbox = None,
) -> None:
    """Score completions that exist already: one JSON line each with its rewards by part, and a summary. No model.

    [bold]Examples[/bold]

      aha grade --task gsm8k answers.jsonl

      aha grade --task humaneval programs.jsonl --data data --out scores.jsonl
    """
    from aha.recipes.grade import grade_completions

    use_sandbox(sandbox)
    grade_completions(file, task, data, out, strict)
