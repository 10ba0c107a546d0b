"""`aha compare`: one table for any runs and checkpoints."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from aha.configuration import override_config
from aha.errors import ConfigError
from aha.files import write_atomic
from aha.report.comparison import ModelRow, as_json, markdown, measured, rows_of, text
from aha.report.reading import read_run
from aha.text.elicitation import ELICITATIONS

Format = Literal["table", "markdown", "json"]
FORMATS: tuple[Format, ...] = ("table", "markdown", "json")


def compare(
    paths: Sequence[Path], asked: str, overrides: Sequence[str], form: str, out: Path | None, seed: int
) -> None:
    """Prints the table of all models that the paths hold.

    Args:
        paths: run folders, whose evaluations are read, or model folders, which are evaluated now.
        asked: how model folders are asked.
        overrides: settings of that evaluation.
        form: "table", "markdown" or "json".
        out: a file to write it to as well.
        seed: of the evaluation.

    Raises:
        ConfigError: a path is neither a run nor a model, or the form is unknown.
    """
    if form not in FORMATS:
        raise ConfigError(f"format {form!r}: expected one of {', '.join(FORMATS)}")
    rows: list[ModelRow] = []
    for path in paths:
        if (path / "lineage.json").is_file():
            prefix = f"{path.name}/" if len(paths) > 1 else ""
            found = rows_of(read_run(path))
            if not found:
                raise ConfigError(f"{str(path)!r} has no finished evaluation yet: let `aha run` finish it first")
            rows += [ModelRow(prefix + row.model, row.asked, row.results) for row in found]
        elif (path / "config.json").is_file():
            rows.append(_evaluated(path, asked, overrides, seed))
        else:
            raise ConfigError(f"{str(path)!r} is neither a run folder (lineage.json) nor a model folder (config.json)")
    written = markdown(rows) if form == "markdown" else json.dumps(as_json(rows), indent=2, ensure_ascii=False)
    if form == "table":
        Console().print(_table(rows))
    else:
        print(written)
    if out is not None:
        write_atomic(out, (markdown(rows) if form == "table" else written) + "\n")


def _evaluated(path: Path, asked: str, overrides: Sequence[str], seed: int) -> ModelRow:
    """Measures a model folder now."""
    from aha.recipes.evaluate import ModelEvaluation, measure

    way = next((known for known in ELICITATIONS if known == asked), None)
    if way is None:
        raise ConfigError(f"--asked {asked!r}: expected one of {', '.join(ELICITATIONS)}")
    config = override_config(ModelEvaluation(suite_seed=seed), {}, overrides)
    results: dict[str, Any] = measure(path, config, way, seed)[0]
    name = path.parent.name if path.name == "model" and path.parent.name else path.name
    return ModelRow(name, asked, results)


def _table(rows: Sequence[ModelRow]) -> Table:
    """Figures down, models across."""
    table = Table(title="percent, unless it says otherwise; the trained levels of the held-out problems")
    table.add_column("")
    for row in rows:
        table.add_column(row.model, justify="right")
    table.add_row("asked", *(row.asked for row in rows))
    for column in measured(rows):
        table.add_row(column.title, *(text(row, column) for row in rows))
    return table
