"""`aha eval`, `aha compare`, `aha scale` and `aha probe`: models are measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from aha.cli.options import Sandbox, Settings, use_sandbox


def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Model folders in Hugging Face layout.")],
    task: Annotated[
        str, typer.Option(metavar="T[,T]", help="Families, general ones too, and tasks.", show_default="all reasoning")
    ] = "",
    style: Annotated[
        str,
        typer.Option(
            metavar="STYLE[,STYLE]", help="zero, zero_think, chat, chat_direct, direct, steps.", show_default="zero"
        ),
    ] = "",
    preset: Annotated[
        str,
        typer.Option(
            metavar="NAME[,NAME]", help="Sampling: paper (temperature 0.6, top-p 0.95, k by benchmark), greedy."
        ),
    ] = "",
    data: Annotated[
        Path | None, typer.Option(help="The data folder (or file) of gsm8k and the like.", show_default="AHA_DATA")
    ] = None,
    set_: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(help="The folder of completions and results.", show_default="evaluations/...", file_okay=False),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems and of the sampling.")] = 0,
    sandbox: Sandbox = None,
) -> None:
    """Measure models on held-out problems: pass@1 with intervals, cons@k, pass@k, tokens, by task.

    Every completion is kept; an interrupted evaluation goes on where it stopped.

    [bold]Examples[/bold]

      aha eval runs/r1-zero-tiny-seed0/r1-zero/model

      aha eval runs/r1-tiny-seed0/dev3/model runs/r1-tiny-seed0/r1/model --style chat --preset paper

      aha eval ./Qwen3-0.6B --task gsm8k,humaneval --style chat --data data --set max_completion_tokens=2048
    """
    from aha.recipes.evaluate import evaluate_models

    use_sandbox(sandbox)
    settings = [] if data is None else [f"data={json.dumps(str(data))}"]
    names, styles = ([part for part in given.split(",") if part] for given in (task, style))
    evaluate_models(checkpoints, names, styles, preset, [*settings, *(set_ or [])], out, seed)


def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    style: Annotated[
        str,
        typer.Option(
            help="Prompt style of model folders: chat, zero, chat_direct, direct, steps, zero_think.",
            show_default="as their run asks them, else chat",
        ),
    ] = "",
    set_: Settings = None,
    form: Annotated[str, typer.Option("--format", help="table, markdown or json.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Also write it to this file.", dir_okay=False)] = None,
    seed: Annotated[
        int | None,
        typer.Option(min=0, help="Of their problems, outside of a run, and of the sampling.", show_default="0"),
    ] = None,
) -> None:
    """Compare models: accuracy, format, language, readability, general tasks, length, cost, in one table.

    A run folder brings the numbers of its own evaluation. A model folder is evaluated now: one of a run as that run
    evaluates (its samples are new ones, so its figures are not those of the run to the digit), another one with the
    paper's sampling. Where settings differ, the table says so.

    [bold]Examples[/bold]

      aha compare runs/r1-tiny-seed0

      aha compare runs/r1-tiny-seed0/r1-zero/model runs/r1-tiny-seed0/r1/model --format markdown
    """
    from aha.recipes.compare import compare as compare_models

    compare_models(paths, style, set_ or [], form, out, seed)


def scale(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A model folder in Hugging Face layout.")],
    task: Annotated[
        str,
        typer.Option(metavar="TASK[,TASK]", help="The families and tasks that are asked.", show_default="reasoning"),
    ] = "",
    style: Annotated[
        str, typer.Option(help="Prompt style: chat, zero, zero_think, chat_direct, direct, steps.")
    ] = "chat",
    set_: Settings = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write all results to this JSON file. Interrupted, the same command goes on.", dir_okay=False
        ),
    ] = None,
    svg: Annotated[Path | None, typer.Option(help="Also draw the curves into this file.", dir_okay=False)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems and of the sampling.")] = 0,
) -> None:
    """Spend more tokens at test time, and see what they buy: votes, longer thinking, revision; accuracy by tokens.

    [bold]Examples[/bold]

      aha scale runs/r1-tiny-seed0/r1/model --task sums --svg curves.svg

      aha scale runs/r1-tiny-seed0/r1-zero/model --style zero --task boxes,cups --set samples=32

      aha scale ./Qwen3-0.6B --task gsm8k --set problems_limit=50 --set max_completion_tokens=1024 --set room=2048
    """
    from aha.recipes.scale import scale as scale_model
    from aha.text.prompt_style import PromptStyle

    scale_model(
        checkpoint, [name for name in task.split(",") if name], PromptStyle.named(style), set_ or [], out, svg, seed
    )


def probe(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A model folder in Hugging Face layout.")],
    task: Annotated[
        str, typer.Option(metavar="F[,F]", help="The families that are asked.", show_default="all reasoning")
    ] = "",
    style: Annotated[str, typer.Option(help="Prompt style: zero, zero_think, chat.")] = "zero",
    levels: Annotated[
        str | None, typer.Option(metavar="L[,L-L]", help="Levels that are asked.", show_default="1-4,6,8")
    ] = None,
    problems: Annotated[
        int | None, typer.Option(min=1, help="Held-out problems per family and level.", show_default="8")
    ] = None,
    samples: Annotated[int | None, typer.Option(min=1, help="Samples per problem.", show_default="16")] = None,
    set_: Settings = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the results as JSON instead of tables.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Also write all results to this JSON file. Interrupted, the same command goes on.", dir_okay=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the problems and of the sampling.")] = 0,
) -> None:
    """Will thinking grow in reinforcement learning? Ask a base model before hours of it.

    How often it works things out, guesses, or gives up, and how often each is right; whether its single steps, its
    verdicts and a forced "Wait" hold; whether it goes on with a half-written solution, and after long thinking. At the
    end in words: what RL will do, and what to change in the corpus or the pretraining if thinking will not grow.

    [bold]Examples[/bold]

      aha probe runs/r1-zero-tiny-seed0/pretrain/model

      aha probe runs/r1-zero-tiny-seed0/pretrain/model --task sums,boxes --levels 1-6 --samples 64 --out probe.json
    """
    from aha.recipes.probe import levels_of
    from aha.recipes.probe import probe as probe_model
    from aha.text.prompt_style import PromptStyle

    options = {"problems_per_level": problems, "samples": samples}
    given: dict[str, object] = {name: value for name, value in options.items() if value is not None}
    if levels is not None:
        given["levels"] = levels_of(levels)
    names = [name for name in task.split(",") if name]
    probe_model(checkpoint, names, PromptStyle.named(style), given, set_ or [], json_, out, seed)
