"""`aha compare`: one table for any runs and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from aha.configuration import override_config
from aha.errors import ConfigError
from aha.files import make_folder_of, names_of, write_atomic
from aha.recipes.model_folders import is_run, require_model
from aha.report.comparison import (
    LEVEL_NOTE,
    ModelRow,
    as_json,
    level_lines,
    main_style,
    markdown,
    marks,
    rows_of,
    shared,
    stage_lines,
)
from aha.report.reading import evaluation_settings, model_sizes, read_run
from aha.tasks.families import GENERAL
from aha.tasks.stored import HELD_OUT
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

Format = Literal["table", "markdown", "json"]
FORMATS: tuple[Format, ...] = ("table", "markdown", "json")


def compare(
    paths: Sequence[Path], style: str, overrides: Sequence[str], form: str, out: Path | None, seed: int | None
) -> None:
    """Prints the table of all models that the paths hold.

    Args:
        paths: run folders, whose evaluations are read, or model folders, which are evaluated now.
        style: the prompt style of model folders; empty: that of the run that they lie in, elsewhere the chat format.
        overrides: settings of that evaluation.
        form: "table", "markdown" or "json".
        out: a file to write it to as well.
        seed: of that evaluation; None for 0.

    Raises:
        ConfigError: a path is neither a run nor a model, the form is unknown, or there is nothing to evaluate now that
            was to be asked otherwise.
    """
    if form not in FORMATS:
        raise ConfigError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    if style:
        PromptStyle.named(style)
    for path in paths:
        if not is_run(path):
            require_model(path)
    if (style or overrides or seed is not None) and all(map(is_run, paths)):
        raise ConfigError("--style, --set and --seed are for model folders: runs are shown as they were measured")
    if out is not None:
        make_folder_of(out)
    named = dict(zip(names_of(paths), paths, strict=True))
    of_runs = {
        name: _of_run(path, f"{name}/" if len(paths) > 1 else "") for name, path in named.items() if is_run(path)
    }
    rows: list[ModelRow] = []
    for name, path in named.items():
        rows += of_runs[name] if name in of_runs else [_evaluated(path, name, style, overrides, seed or 0)]
    written = markdown(rows) if form == "markdown" else json.dumps(as_json(rows), indent=2, ensure_ascii=False)
    if form == "table":
        _print(rows)
    else:
        print(written)
    if out is not None:
        write_atomic(out, (markdown(rows) if form == "table" else written) + "\n")


def _of_run(path: Path, prefix: str) -> list[ModelRow]:
    """What a run's own evaluations measured."""
    found = rows_of(read_run(path))
    if not found:
        raise ConfigError(f"{str(path)!r} has no finished evaluation yet: let `aha run` finish it first")
    return [replace(row, model=prefix + row.model) for row in found]


def _evaluated(path: Path, name: str, style: str, overrides: Sequence[str], seed: int) -> ModelRow:
    """Measures a model folder now: as the run that it lies in measures, elsewhere with the paper's sampling."""
    from aha.recipes.evaluate import PRESETS, ModelEvaluation, measure

    places = [(one.parent.parent, one.parent.name) for one in (path.absolute(), path.resolve()) if one.name == "model"]
    # As it is named first: the checkpoint stage links to a folder outside of the run.
    run, stage = next((place for place in places if is_run(place[0])), (path, ""))
    if stage:
        style, own = _as_in_run(run, stage, style)
    else:
        style, own = style or "chat", {}
    if own:
        chosen = {key: setting for key, setting in own.items() if key in ModelEvaluation.model_fields}
        chosen["held_out"] = [str(run / source / HELD_OUT) for source in own.get("problems", ())]
    else:
        general = list(GENERAL) if Tokenizer.load(path).is_own else []
        chosen = {**PRESETS["paper"], "general": general, "suite_seed": seed}
    config = override_config(ModelEvaluation(), chosen, overrides)
    results = {**measure(path, name, config, PromptStyle.named(style), seed), "sizes": model_sizes(path)}
    problems = [Path(file).parent.name for file in config.held_out]
    return ModelRow(name, style, results, {**config.model_dump(mode="json"), "problems": problems})


def _as_in_run(run: Path, stage: str, style: str) -> tuple[str, dict[str, Any]]:
    """How a run asks the model of a stage, and its evaluation's settings: none where no evaluation has begun."""
    from aha.recipes.talk_models import find_models

    known = evaluation_settings(run)
    by_style = known.get(stage, {})
    if not style:
        served = {model.name: model.style.name for model in find_models([run], "chat")}
        style = main_style(by_style) if by_style else served.get(stage, "chat")
    others = (settings for own in (by_style, *known.values()) for settings in own.values())
    return style, by_style.get(style) or next(others, {})


def _print(rows: Sequence[ModelRow]) -> None:
    """Both tables in the terminal, models across; those that do not fit stand below."""
    console = Console()
    notes = [f"measured with {letter}: {settings}" for letter, settings in marks(rows)[1].items()]
    about = "\n".join(["the trained levels of the held-out problems", *filter(None, [shared(rows)]), *notes])
    for lines, note in ((stage_lines(rows), about), (level_lines(rows), LEVEL_NOTE)):
        for columns in _blocks(list(zip(*lines, strict=True)), console.width):
            table = Table()
            for place, (head, *_) in enumerate(columns):
                table.add_column(head, justify="right" if place else "left")
            for cells in list(zip(*columns, strict=True))[1:]:
                table.add_row(*cells)
            console.print(table)
        if lines:
            console.print(note, highlight=False, markup=False)


def _blocks(columns: Sequence[Sequence[str]], width: int) -> Iterator[list[Sequence[str]]]:
    """Columns in blocks of at most a width, each after the first one, which says what the lines are."""
    if not columns:
        return
    titles, *models = columns
    block = [titles]
    for column in models:
        if len(block) > 1 and sum(3 + max(map(len, one)) for one in (*block, column)) + 1 > width:
            yield block
            block = [titles]
        block.append(column)
    yield block
