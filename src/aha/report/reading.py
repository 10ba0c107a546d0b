"""A finished or unfinished run folder as the report sees it: plain values, no torch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aha.errors import AhaError
from aha.models.config.load import load_config
from aha.models.config.parameter_count import describe
from aha.runs import RunFolder

Row = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """What a run folder says."""

    folder: Path
    config: Row
    summary: Row
    lineage: Row
    environment: Row
    metrics: list[Row]
    timings: list[Row]
    results: dict[str, dict[str, Row]]
    """Held-out results: model, then prompt style, then `trained_levels` and `all_levels`."""
    experts: dict[str, Row]
    """Expert loads of a model, where they were measured."""
    audits: dict[str, Row]
    """What data stages counted: `audit.json` by stage."""
    settings: dict[str, dict[str, Row]]
    """What the held-out results were measured with: model, then prompt style, then the evaluation's settings."""
    scaling: dict[str, dict[str, Row]]
    """Curves of test-time scaling: model, then prompt style, then `curves` and `at_equal_tokens`."""
    thinking: dict[str, Row]
    """What was measured of each model's thinking, by the first stage that did; empty where none did."""
    sizes: dict[str, Row]
    """Parameters of the models of the finished stages: see `model_sizes`."""

    def stage(self, name: str) -> Row:
        """A stage's row of the summary, or an empty one."""
        return next((row for row in self.summary.get("stages", []) if row["name"] == name), {})

    def rows(self, stage: str, key: str) -> list[tuple[float, Any]]:
        """(step, value) of a metric of a stage, where it was logged and is a number or a table."""
        return [
            (row["step"], row[key])
            for row in self.metrics
            if row.get("stage") == stage and row.get(key) is not None and row["step"] >= 0
        ]

    def samples(self) -> Iterator[Row]:
        """All graded completions of the held-out evaluations."""
        for stage in self.lineage.get("stages", []):
            if stage["kind"] == "evaluation":
                yield from self.rollouts(stage["name"])

    def rollouts(self, stage: str) -> Iterator[Row]:
        """What a stage logged of its samples, in the order in which it did."""
        return RunFolder.open(self.folder).rows("rollouts", stage)

    def stages_of_kind(self, kind: str) -> list[str]:
        """Names of the finished stages of a kind, in order."""
        return [s["name"] for s in self.lineage.get("stages", []) if s["kind"] == kind and s["done"]]


def read_run(folder: Path) -> Run:
    """Reads a run folder.

    Raises:
        RunFolderError: it is not one.
    """
    run = RunFolder.open(folder)
    lineage = run.json("lineage") or {}
    results: dict[str, dict[str, Row]] = {}
    experts: dict[str, Row] = {}
    audits: dict[str, Row] = {}
    scaling: dict[str, dict[str, Row]] = {}
    thinking: dict[str, Row] = {}
    for stage in lineage.get("stages", []):
        if stage["kind"] == "evaluation" and stage["done"]:
            for model, ways in (_json(run, stage["name"], "results.json") or {}).items():
                results.setdefault(model, {}).update(ways)
            experts.update(_json(run, stage["name"], "experts.json") or {})
        if stage["kind"] == "scaling" and stage["done"]:
            for model, ways in (_json(run, stage["name"], "scaling.json") or {}).items():
                scaling.setdefault(model, {}).update(ways)
        if stage["kind"] == "thinking" and stage["done"]:
            for model, about in (_json(run, stage["name"], "thinking.json") or {}).items():
                thinking.setdefault(model, about)
        if stage["done"] and (audit := _json(run, stage["name"], "audit.json")):
            audits[stage["name"]] = audit
    return Run(
        folder,
        run.config(),
        run.json("summary") or {},
        lineage,
        run.json("environment") or {},
        run.metrics(),
        list(run.rows("timings")),
        results,
        experts,
        audits,
        evaluation_settings(folder),
        scaling,
        thinking,
        {s["name"]: model_sizes(folder / s["name"] / "model") for s in lineage.get("stages", []) if s["done"]},
    )


def model_sizes(folder: Path) -> Row:
    """A model folder's `parameters`, and those that are `active` for one token; empty where there is no model of ours.

    Embedding and head are included, prediction modules are not.
    """
    if not (folder / "config.json").is_file():
        return {}
    try:
        sizes = describe(load_config(folder))
    except AhaError:
        return {}
    return {"parameters": sizes.total_parameters, "active": sizes.active_parameters}


def evaluation_settings(folder: Path) -> dict[str, dict[str, Row]]:
    """How a run's evaluations, finished or begun, ask its models: model, then prompt style, then the settings.

    Raises:
        RunFolderError: the folder is not a run.
    """
    run = RunFolder.open(folder)
    settings: dict[str, dict[str, Row]] = {}
    for stage in (run.json("lineage") or {}).get("stages", []):
        if stage["kind"] != "evaluation":
            continue
        config = (_json(run, stage["name"], "stage.json") or {}).get("config", {})
        for suite in config.get("suites", ()):
            levels = config["trained_levels" if suite["trained_levels_only"] else "levels"]
            for style in suite["styles"]:
                settings.setdefault(suite["stage"], {})[style] = {**config, "levels": levels}
    return settings


def _json(run: RunFolder, stage: str, name: str) -> Any:
    path = run.path / stage / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
