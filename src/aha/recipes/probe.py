"""`aha probe`: will thinking grow in reinforcement learning? A model folder's answers, steps and verdicts, and why."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from aha import __version__
from aha.compute import ComputeConfig
from aha.configuration import override_config
from aha.errors import ConfigError, UnknownNameError
from aha.evals.probe import MEASURES, ProbeSettings, Row
from aha.evals.probe_summary import summarize
from aha.evals.resumable_log import PieceStore
from aha.evals.sample_store import content_of
from aha.files import write_json
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.placement import placement
from aha.recipes.model_folders import refuse_reward_model
from aha.stages.checkpoint import checkpoint_identity
from aha.tasks.datasets import is_dataset
from aha.tasks.families import FAMILIES, GENERAL
from aha.test_time.candidates import Respondent
from aha.text.prompt_style import PROMPT_STYLES, PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.training.progress import Progress
from aha.types import SamplingParams


class ModelProbe(ProbeSettings):
    """What `aha probe` does; change it with --set."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="device and numbers")
    engine_rows: int = Field(256, gt=0, description="samples decoded at once; each needs a cache of its longest length")


def probe(
    checkpoint: Path,
    tasks: Sequence[str],
    style: PromptStyle,
    given: Mapping[str, Any],
    overrides: Sequence[str],
    as_json: bool,
    out: Path | None,
    seed: int,
) -> None:
    """Probes a model folder and prints what was found, and what will happen in RL.

    Args:
        checkpoint: a folder in Hugging Face layout.
        tasks: families that are asked; none for all of reasoning.
        style: in which it is asked.
        given: settings that have an option of their own.
        overrides: ``a.b=c`` settings of `ModelProbe`.
        as_json: print JSON instead of tables; progress then goes to standard error.
        out: a JSON file for the results and all rows. Until they are all there, OUT.part keeps them, and the same
            command goes on from it.
        seed: of the problems and of the sampling.

    Raises:
        CheckpointError: the folder is not a model, or damaged.
        ConfigError: a setting is unknown or out of bounds, the style has no thinking, or positions do not suffice.
        UnknownNameError: there is no such family.
    """
    config = settings_for(style, tasks, given, overrides, seed)
    refuse_reward_model(checkpoint)
    settings = config.model_dump(mode="json", exclude={"compute": {"device"}, "engine_rows": True})
    asks = {"model": checkpoint_identity(str(checkpoint)), "style": style.name, "seed": seed, "settings": settings}
    problems = content_of([one for family in config.families for one in config.problems(family)])
    part = None if out is None else out.with_name(f"{out.name}.part")
    with PieceStore(part, {**asks, "problems": problems, "aha": __version__}) as kept:
        rows = measure(
            checkpoint, config, style, seed, kept, Progress(console=Console(stderr=as_json, highlight=False))
        )
    results = summarize(rows, config)
    if as_json:
        print(json.dumps(results, ensure_ascii=False, indent=1))
    else:
        show(results, config, style)
    if out is not None:
        about = {"model": str(checkpoint), "style": style.name, "seed": seed, "settings": config.model_dump()}
        write_json(out, {**about, "results": results, "rows": rows})
        kept.done()


def settings_for(
    style: PromptStyle, tasks: Sequence[str], given: Mapping[str, Any], overrides: Sequence[str], seed: int
) -> ModelProbe:
    """The settings of one measurement.

    Raises:
        ConfigError: a setting is unknown or out of bounds, or what is asked has no levels or no thinking.
        UnknownNameError: there is no such family.
    """
    if not style.thinks:
        thinking = ", ".join(one.name for one in PROMPT_STYLES if one.thinks)
        raise ConfigError(f"asked as {style.name!r} a model does not think between tags: use --style {thinking}")
    for name in tasks:
        if is_dataset(name) or name in GENERAL:
            raise ConfigError(
                f"{name} has no levels, and no solutions whose steps can be checked: the probe asks "
                f"{', '.join(FAMILIES)}"
            )
        if name not in FAMILIES:
            raise UnknownNameError("reasoning family", name, FAMILIES)
    data: dict[str, Any] = {"suite_seed": seed, **given} | ({"families": list(tasks)} if tasks else {})
    return override_config(ModelProbe(), data, overrides)


def levels_of(text: str) -> list[int]:
    """Reads levels such as "1-4,6,8".

    Raises:
        ConfigError: they are none.
    """
    found: list[int] = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        first, dash, last = part.partition("-")
        if not first.isdecimal() or (dash and not last.isdecimal()):
            raise ConfigError(f"--levels {text!r}: expected levels and ranges of them, as in 1-4,6,8")
        found += range(int(first), int(last if dash else first) + 1)
    if not found:
        raise ConfigError(f"--levels {text!r}: no level is asked; expected some, as in 1-4,6,8")
    return found


def measure(
    checkpoint: Path, config: ModelProbe, style: PromptStyle, seed: int, kept: PieceStore, progress: Progress
) -> dict[str, list[Row]]:
    """The rows of every measure; pieces of work that are kept are not done again.

    Raises:
        CheckpointError: the folder is not a model, or damaged.
        ConfigError: the model has not so many positions.
    """
    model, tokenizer = load_pretrained(checkpoint, **placement(config.compute)), Tokenizer.load(checkpoint)
    problems = {family: config.problems(family) for family in config.families}
    longest = style.longest_prompt(tokenizer, [problem for own in problems.values() for problem in own])
    positions = model.config.max_position_embeddings
    if longest + config.room > positions:
        raise ConfigError(
            f"prompts of {longest} tokens and completions of {config.room} need more than the {positions} positions of "
            "the model: lower --set room and max_completion_tokens, or ask lower --levels"
        )
    fitting = tuple(length for length in config.lengths if length + longest + config.room <= positions)
    settings = config.changed(lengths=fitting)
    respondent = Respondent(
        Engine(model, max_rows=config.engine_rows, max_context=max(fitting, default=0) + longest + config.room),
        tokenizer,
        style,
        SamplingParams(config.temperature, max_completion_tokens=config.max_completion_tokens),
        config.room,
        seed,
    )
    rows: dict[str, list[Row]] = {name: [] for name in MEASURES}
    jobs = [(family, level, name) for family in problems for level in sorted(set(config.levels)) for name in MEASURES]
    with progress.task(f"asked as {style.name!r}", len(jobs)) as task:
        for done, (family, level, name) in enumerate(jobs, start=1):
            piece = f"{name}, {family} {level}"
            own = kept.get(piece)
            if own is None:
                some = [problem for problem in problems[family] if problem.level == level]
                own = MEASURES[name](respondent, some, settings)
                kept.add(piece, own)
            rows[name] += own
            task.update(done, {family: name.replace("_", " ")})
    return rows


def show(results: Mapping[str, Any], config: ModelProbe, style: PromptStyle) -> None:
    """Prints the tables, and the verdict in words."""
    console = Console(highlight=False)
    families = results["families"]
    answers = config.problems_per_level * config.samples
    console.print(_answers(families, f"asked as {style.name!r}, {answers} answers a line: kinds and right ones, in %"))
    console.print(_half_written(families))
    console.print(_by_family(families))
    console.print(results["verdict"], soft_wrap=True, markup=False, style="bold")
    shared: dict[str, list[str]] = {}
    for name, about in families.items():
        for reason in (*about["reasons"], *about["reasons_against_more"]):
            shared.setdefault(reason, []).append(name)
    for reason, names in shared.items():
        console.print(f"- {', '.join(names)}: {reason}", soft_wrap=True, markup=False)


def _table(title: str, left: Sequence[str], right: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for head in left:
        table.add_column(head, no_wrap=True)
    for head in right:
        table.add_column(head, justify="right")
    return table


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.0f}"


def _answers(families: Mapping[str, Any], title: str) -> Table:
    """Kinds of answers by family and level."""
    heads = "long", "right", "all lines", "short", "right", "a guess", "given up", "right", "not formed"
    table = _table(title, ("family", "level"), heads)
    for name, about in families.items():
        for number, (level, row) in enumerate(about["levels"].items()):
            share, right = row["share"], row["right_by_kind"]
            figures = (
                share["long"], right["long"], row["right_number_of_lines"], share["short"], right["short"],
                row["chance"], share["given_up"], right["given_up"], share["malformed"],
            )  # fmt: skip
            table.add_row("" if number else name, level, *map(_percent, figures))
    return table


def _half_written(families: Mapping[str, Any]) -> Table:
    """Right answers, and those that stop too early, by lines that were there."""
    depths = sorted({int(one) for about in families.values() for row in about["half_written"].values() for one in row})
    title = "right (and: stopped too early) after so many lines of a right solution, in %"
    table = _table(title, ("family", "level"), [f"after {depth}" for depth in depths])
    for name, about in families.items():
        for number, (level, row) in enumerate(about["half_written"].items()):
            known = (row.get(str(depth)) for depth in depths)
            cells = (f"{_percent(one['correct'])} ({_percent(one['early'])})" if one else "" for one in known)
            table.add_row("" if number else name, level, *cells)
    return table


def _by_family(families: Mapping[str, Any]) -> Table:
    """Single steps, verdicts, a forced continuation, and what happens after long thinking."""
    table = _table('single steps, verdicts, a forced "Wait", and long thinking, in %', ("",), list(families))
    lines: dict[str, tuple[str, ...]] = {
        "look-ups that are right": ("look_ups", "right"),
        "single steps that are right": ("single_steps", "right"),
        "verdicts: reject what is right": ("own_verdicts", "rejects_right"),
        "  behind right work put there": ("forced_verdicts", "rejects_right"),
        "verdicts: accept what is wrong": ("own_verdicts", "accepts_wrong"),
        "  behind right work put there ": ("forced_verdicts", "accepts_wrong"),
        'right before a forced "Wait"': ("continuation", "all", "before"),
        "  and after": ("continuation", "all", "after"),
        "  wrong to right": ("continuation", "all", "wrong_to_right"),
        "  right to wrong": ("continuation", "all", "right_to_wrong"),
        "  right to wrong of long ones": ("continuation", "long", "right_to_wrong"),
    }
    for length in sorted({int(one) for about in families.values() for one in about["far"]}):
        lines[f"right from {length} tokens of thinking"] = ("far", str(length), "correct")
    for head, path in lines.items():
        table.add_row(head, *(_percent(_at(about, path)) for about in families.values()))
    return table


def _at(about: Any, path: Sequence[str]) -> float | None:
    for name in path[:-1]:
        about = about.get(name, {})
    value: float | None = about.get(path[-1])
    return value
