"""`aha run` and `aha report`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from aha.cli.options import Sandbox, Settings, use_sandbox
from aha.errors import ConfigError

CHANGED = "changed"
"""What `--print-config` prints when it is given no value."""


class RunCommand(TyperCommand):
    """`aha run`, whose `--print-config` may have a value and need not."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Gives `--print-config` its value."""
        return super().parse_args(ctx, [f"{arg}={CHANGED}" if arg == "--print-config" else arg for arg in args])


Out = Annotated[
    Path | None, typer.Option(help="The run folder.", show_default="runs/<recipe>-seed<N>", file_okay=False)
]
Processes = Annotated[
    int | None, typer.Option(min=1, max=4096, help="Worker processes.", show_default="one per core or GPU")
]
Trained = Annotated[
    Path | None, typer.Option(metavar="DIR", help="grpo, sft, distill: the checkpoint that is trained.")
]
Teacher = Annotated[Path | None, typer.Option(metavar="DIR", help="distill: the checkpoint that is learnt from.")]
Task = Annotated[str | None, typer.Option(help="grpo, sft, distill: gsm8k, math, choice, rows, ...")]
Data = Annotated[
    Path | None,
    typer.Option(help="A task's folder or file of rows; pretrain: a file or folder of text.", show_default="AHA_DATA"),
]
LogTo = Annotated[
    list[str] | None,
    typer.Option(help="Copy the metrics to tensorboard, trackio or wandb, too (extras). Repeatable."),
]
PrintConfig = Annotated[
    str | None,
    typer.Option(
        "--print-config",
        metavar="[=all]",
        help="Print the settings that differ from the defaults, or with =all every one, and exit.",
    ),
]


def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name, a YAML file, or module:function of your own.")
    ],
    set_: Settings = None,
    out: Out = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier run left in the folder.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random is derived from it.")] = None,
    processes: Processes = None,
    model: Trained = None,
    teacher: Teacher = None,
    task: Task = None,
    data: Data = None,
    log_to: LogTo = None,
    sandbox: Sandbox = None,
    print_config: PrintConfig = None,
) -> None:
    """Run a recipe, or go on with it where it stopped.

    The run may be interrupted at any moment: the same command continues it, and ends with the same bytes. What is
    done is kept, what changed is redone.

    [bold]Examples[/bold]

    [dim]The main job, with another seed, with one setting changed:[/dim]

      aha run r1-zero-tiny --seed 1 --set rl.group_size=8

    [dim]A file to edit and run:[/dim]

      aha run r1-zero-tiny --print-config > mine.yaml && aha run mine.yaml

    [dim]Again what an earlier run was made with:[/dim]

      aha run runs/r1-zero-tiny-seed0/config.yaml

    [dim]A checkpoint of your own, by reinforcement learning and by fine-tuning:[/dim]

      aha run grpo --model ./Qwen3-0.6B --task gsm8k

      aha run sft --model ./Qwen3-0.6B --data conversations.jsonl

      aha run distill --teacher ./R1-Distill-Qwen-7B --model ./Qwen3-0.6B --task gsm8k

    [dim]A base model on text of your own:[/dim]

      aha run pretrain --data ./books --log-to tensorboard

    [dim]Under another launcher:[/dim]

      torchrun --nproc-per-node 8 -m aha run r1-zero-tiny
    """
    use_sandbox(sandbox)
    folders = {"model": model, "teacher": teacher, "data": data}
    named = {**{name: path and path.absolute() for name, path in folders.items()}, "task": task}
    settings = [f"{key}={json.dumps(str(value))}" for key, value in named.items() if value is not None]
    settings += [f"log_to={json.dumps(log_to)}"] if log_to else []
    raise typer.Exit(_run(recipe, [*settings, *(set_ or [])], seed, out, fresh, processes, print_config))


def _run(
    recipe: str,
    settings: list[str],
    seed: int | None,
    out: Path | None,
    fresh: bool,
    processes: int | None,
    print_config: str | None,
) -> int:
    """Runs or prints a recipe with these settings; returns the exit code."""
    from aha.configuration import changed_settings, dump_config
    from aha.recipes.registry import recipe_default, resolve
    from aha.recipes.run import execute

    config = resolve(recipe, settings, seed)
    if print_config is None:
        return execute(config, out, fresh, processes)
    if print_config not in (CHANGED, "all"):
        raise ConfigError(f"--print-config={print_config}: expected --print-config or --print-config=all")
    changed = {"recipe": config.recipe, **changed_settings(config, recipe_default(config.recipe))}
    print(dump_config(config if print_config == "all" else changed), end="")
    return 0


def report(
    run_folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as runs/r1-zero-tiny-seed0.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML file.", show_default="report.html in the run folder", dir_okay=False)
    ] = None,
    open_: Annotated[bool, typer.Option("--open/--no-open", help="Open it in the browser.")] = False,
) -> None:
    """Make one self-contained HTML page of a run: curves, accuracy, transcripts, lineage, cost.

    [bold]Example[/bold]

      aha report runs/r1-zero-tiny-seed0 --open
    """
    from aha.report.page import make_report

    path = make_report(run_folder, out)
    print(path)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())
