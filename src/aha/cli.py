"""The command line: one verb per act. Each imports what it needs when called: `aha --help` is quick and loads no torch.

Exit codes: 0 done; 1 `aha` said no, in one line on standard error; 2 wrong usage; 130, 143 stopped by Ctrl-C, SIGTERM.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer

from aha import __version__
from aha.errors import AhaError
from aha.files import cannot_write
from aha.training.interrupts import StopRequested

app = typer.Typer(
    name="aha",
    help="DeepSeek-R1 in PyTorch, from random weights on a laptop to a GPU node.",
    epilog="Start with: aha run r1-zero-tiny",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


Sandbox = Annotated[
    str | None,
    typer.Option(
        envvar="AHA_SANDBOX",
        metavar="URL",
        help="Where programs are graded: a remote sandbox, or limits such as '{seconds: 10}'.",
        show_default="a local one",
        show_envvar=True,
    ),
]


def _version(shown: bool) -> None:
    if shown:
        print(f"aha {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """DeepSeek-R1 in PyTorch, from random weights on a laptop to a GPU node."""


@app.command()
def run(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="A recipe's name, a YAML file, or module:function of your own.")
    ],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting; may be given many times.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run folder.", show_default="runs/<recipe>-seed<N>", file_okay=False)
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Delete what an earlier run left in the folder.")] = False,
    seed: Annotated[int | None, typer.Option(min=0, help="Everything random is derived from it.")] = None,
    processes: Annotated[
        int | None, typer.Option(min=1, max=4096, help="Worker processes.", show_default="one per core or GPU")
    ] = None,
    model: Annotated[
        Path | None, typer.Option(metavar="DIR", help="grpo, sft, distill: the checkpoint that is trained.")
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(metavar="DIR", help="distill: the checkpoint that is learnt from.")
    ] = None,
    task: Annotated[str | None, typer.Option(help="grpo, sft, distill: gsm8k, math, choice, rows, ...")] = None,
    data: Annotated[
        Path | None, typer.Option(help="For a task: its data folder, or a file of rows.", show_default="AHA_DATA")
    ] = None,
    sandbox: Sandbox = None,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="Print the resolved configuration and exit.")
    ] = False,
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

    [dim]Under another launcher:[/dim]

      torchrun --nproc-per-node 8 -m aha run r1-zero-tiny
    """
    from aha.configuration import dump_config
    from aha.recipes.registry import resolve
    from aha.recipes.run import execute

    _use_sandbox(sandbox)
    folders = {"model": model, "teacher": teacher, "data": data}
    named = {**{name: path and path.absolute() for name, path in folders.items()}, "task": task}
    settings = [f"{key}={json.dumps(str(value))}" for key, value in named.items() if value is not None]
    config = resolve(recipe, [*settings, *(set_ or [])], seed)
    if print_config:
        print(dump_config(config), end="")
        return
    raise typer.Exit(execute(config, out, fresh, processes))


@app.command()
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
    from aha.recipes.acts import make_report

    path = make_report(run_folder, out)
    print(path)
    if open_:
        import webbrowser

        webbrowser.open(path.resolve().as_uri())


@app.command("eval")
def evaluate(
    checkpoints: Annotated[list[Path], typer.Argument(metavar="CKPT...", help="Model folders in Hugging Face layout.")],
    task: Annotated[
        str, typer.Option(metavar="T[,T]", help="Families, general ones too, and tasks.", show_default="all reasoning")
    ] = "",
    asked: Annotated[
        str,
        typer.Option(
            metavar="WAY[,WAY]", help="zero, zero_think, chat, chat_direct, direct, steps.", show_default="zero"
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
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the evaluation.")
    ] = None,
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

      aha eval runs/r1-tiny-seed0/dev3/model runs/r1-tiny-seed0/r1/model --asked chat --preset paper

      aha eval ./Qwen3-0.6B --task gsm8k,humaneval --asked chat --data data --set max_completion_tokens=2048
    """
    from aha.recipes.acts import evaluate_models

    _use_sandbox(sandbox)
    settings = [] if data is None else [f"data={json.dumps(str(data))}"]
    names, ways = ([part for part in given.split(",") if part] for given in (task, asked))
    evaluate_models(checkpoints, names, ways, preset, [*settings, *(set_ or [])], out, seed)


@app.command()
def compare(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    asked: Annotated[
        str,
        typer.Option(
            help="How model folders are asked: chat, zero, chat_direct, direct, steps, zero_think.",
            show_default="as their run asks them, else chat",
        ),
    ] = "",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of their evaluation.")
    ] = None,
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
    from aha.recipes.acts import compare as compare_models

    compare_models(paths, asked, set_ or [], form, out, seed)


@app.command()
def scale(
    checkpoint: Annotated[Path, typer.Argument(metavar="CKPT", help="A model folder in Hugging Face layout.")],
    task: Annotated[
        str,
        typer.Option(metavar="TASK[,TASK]", help="The families and tasks that are asked.", show_default="reasoning"),
    ] = "",
    asked: Annotated[
        str, typer.Option(help="How the model is asked: chat, zero, zero_think, chat_direct, direct, steps.")
    ] = "chat",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting of the measurement.")
    ] = None,
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

      aha scale runs/r1-tiny-seed0/r1/model --task countdown --svg curves.svg

      aha scale runs/r1-tiny-seed0/r1-zero/model --asked zero --task riddle,motion --set samples=32

      aha scale ./Qwen3-0.6B --task gsm8k --set problems_limit=50 --set max_completion_tokens=1024 --set room=2048
    """
    from aha.recipes.acts import scale as scale_model

    scale_model(checkpoint, [name for name in task.split(",") if name], asked, set_ or [], out, svg, seed)


@app.command()
def serve(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    host: Annotated[str, typer.Option(help="Where to listen. Other machines can reach it only with a key.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Where to listen; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str | None,
        typer.Option(
            envvar="AHA_API_KEY",
            metavar="K",
            help="Required of clients. Rather set the variable.",
            show_default="none",
            show_envvar=True,
        ),
    ] = None,
    asked: Annotated[
        str, typer.Option(help="How model folders are asked: chat (thinks first), chat_direct, zero.")
    ] = "chat",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting, such as rows=64.")
    ] = None,
) -> None:
    """Serve models on a web page, and to OpenAI's clients: /v1/chat/completions, /v1/completions, /v1/models.

    A run folder serves all its models under the names of their stages: the base, V3, R1-Zero, R1, the students. Its
    curves and rollouts are on the page too, also while it is being trained. Thinking comes as `reasoning_content`,
    apart from `content`.

    [bold]Examples[/bold]

      aha serve runs/r1-tiny-seed0

    [dim]One model that does not think, on another port:[/dim]

      aha serve runs/r1-tiny-seed0/v3/model --asked chat_direct --port 8080

    [dim]For other machines too:[/dim]

      AHA_API_KEY=... aha serve runs/r1-tiny-seed0 --host 0.0.0.0

    [dim]Then:[/dim]

      curl http://127.0.0.1:8000/v1/chat/completions -H 'Content-Type: application/json'
        -d '{"model": "r1", "messages": [{"role": "user", "content": "Compute 17+25."}]}'
    """
    from aha.recipes.acts import serve as serve_models

    serve_models(paths, host, port, api_key, asked, set_ or [])


@app.command()
def chat(
    paths: Annotated[list[Path], typer.Argument(metavar="RUN|CKPT...", help="Run folders, or model folders.")],
    model: Annotated[str, typer.Option(metavar="NAME", help="To start with.", show_default="r1, or the last")] = "",
    asked: Annotated[
        str, typer.Option(help="How model folders are asked: chat (thinks first), chat_direct, zero.")
    ] = "chat",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="A.B=C", help="Change a setting, such as context_tokens=512.")
    ] = None,
) -> None:
    """Talk to models in the terminal: thinking dimmed, /commands, Ctrl-C stops the answer.

    [bold]Examples[/bold]

      aha chat runs/r1-tiny-seed0

      aha chat runs/r1-tiny-seed0 --model r1-zero
    """
    from aha.recipes.acts import chat as chat_with_models

    chat_with_models(paths, model, asked, set_ or [])


@app.command()
def model(
    name: Annotated[str, typer.Argument(metavar="NAME|DIR", help="tiny, v2-lite, v3, or a model folder.")],
) -> None:
    """Count a model: parameters, cache per token, and the memory that each stage takes, beside this machine's.

    Nothing is loaded: a folder's config.json, tokenizer.json and the sizes of its files are enough.

    [bold]Examples[/bold]

      aha model v3

      aha model Qwen3-0.6B
    """
    from aha.recipes.describe import describe_model

    print(describe_model(name))


@app.command()
def export(
    checkpoint: Annotated[Path, typer.Argument(metavar="DIR", help="A model folder in Hugging Face layout.")],
    out: Annotated[Path, typer.Option(help="The folder or the file to write.")],
    to: Annotated[str, typer.Option(help="hf: a model folder; gguf: a file for llama.cpp (dense families).")] = "hf",
    adapter: Annotated[
        Path | None, typer.Option(help="A folder of LoRA adapters to merge in, as peft writes them.", file_okay=False)
    ] = None,
    precision: Annotated[str, typer.Option(help="Of the matrices: f32, bf16, or f16 (gguf only).")] = "bf16",
) -> None:
    """Write a model for other software: a Hugging Face folder, adapters merged in, or a GGUF file for llama.cpp.

    [bold]Examples[/bold]

      aha export runs/r1-tiny-seed0/student-qwen/model --to gguf --out student.gguf

      aha export Qwen3-0.6B --adapter my-adapter --out Qwen3-0.6B-mine
    """
    from aha.recipes.export import export_model

    export_model(checkpoint, out, to, adapter, precision)


@app.command()
def task(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A family, such as countdown, or gsm8k, humaneval, math, choice, gym:NAME (nine datasets of "
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
    asked: Annotated[str, typer.Option(help="How: zero, zero_think, chat, chat_direct, direct, steps.")] = "zero",
    reward: Annotated[
        list[str] | None, typer.Option(metavar="FILE.py:FUNCTION", help="A reward of your own, shown beside.")
    ] = None,
    sandbox: Sandbox = None,
) -> None:
    """Show problems as a model sees them, and what the right answer and wrong ones score.

    Fails where a right answer scores 0 or a wrong one 1: look at this before you train on a task of your own.

    [bold]Examples[/bold]

      aha task countdown

      aha task motion --level 3 -n 5 --language zh

      aha task humaneval --data data

      aha task rows --data mine.jsonl --model ./Qwen3-0.6B --asked chat --reward reward.py:brevity
    """
    from aha.recipes.show_task import show_task

    _use_sandbox(sandbox)
    show_task(name, level, count, language, seed, data, model, asked, reward or [])


@app.command()
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
    from aha.recipes.acts import grade_completions

    _use_sandbox(sandbox)
    grade_completions(file, task, data, out, strict)


def _use_sandbox(said: str | None) -> None:
    """Names the sandbox to this process and to those that it starts."""
    if said is not None:
        os.environ["AHA_SANDBOX"] = said


def main() -> None:
    """Runs the command line and ends the process."""
    worker = "RANK" in os.environ
    try:
        app()
    except SystemExit as done:
        if not worker:
            raise
        _leave(done.code if isinstance(done.code, int) else int(done.code is not None), worker)
    except StopRequested as stop:
        _leave(stop.exit_code, worker)
    except AhaError as error:
        _fail(str(error), worker)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            _fail(cannot_write(Path(error.filename or "."), error), worker)
        if not worker:
            raise
        traceback.print_exc()
        _leave(1, worker)


def _fail(message: str, worker: bool) -> None:
    """Says why in one line and ends with 1. Where all processes of a run fail alike, only rank 0 comes to speak."""
    if worker and int(os.environ["RANK"]) > 0:
        time.sleep(1.0)
    print(f"aha: error: {' '.join(message.split())}", file=sys.stderr, flush=True)
    _leave(1, worker)


def _leave(code: int, worker: bool) -> None:
    """Ends the process. A worker skips the libraries' farewells: gloo's threads abort if the peers are gone already."""
    if worker:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
