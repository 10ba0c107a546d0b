"""A run folder for the run page: stages and how far they are, curves, and rollouts to browse, as plain JSON values.

It reads the run folder only, whenever it is asked, so a run that is still being written shows what it has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aha.files import read_json
from aha.report.curves import Panel, chosen, everything
from aha.report.reading import Row, read_run
from aha.report.rollouts import Entry, RolloutLog
from aha.runs import RunFolder
from aha.tasks.words import REFLECTION

MOST_POINTS = 600
"""Of one curve; longer ones are thinned evenly."""
EFFORTS = {"budget": "end_thinking", "least": "wait"}
"""The page's settings of thinking, and the methods of test-time scaling that measure them."""


class RunBrowser:
    """One run folder.

    Args:
        folder: of the run.
        name: what it is called.

    Raises:
        RunFolderError: it is not a run folder.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._run = RunFolder.open(folder)
        self.name = name
        self._logs: dict[str, RolloutLog] = {}

    def overview(self) -> dict[str, Any]:
        """The run and its stages, with how far each is."""
        lineage = self._run.json("lineage") or {}
        steps = {row["stage"]: row["step"] for row in self._run.rows("metrics")}
        live = self._run.in_use()
        return {
            "name": self.name,
            "recipe": lineage.get("recipe"),
            "seed": lineage.get("seed"),
            "live": live,
            "stages": [
                {
                    "name": stage["name"],
                    "kind": stage["kind"],
                    "parents": stage["parents"],
                    "state": self._state(stage, live),
                    "step": steps.get(stage["name"]),
                    "curves": stage["name"] in steps,
                    "rollouts": self._rollouts_size(stage["name"]),
                }
                for stage in lineage.get("stages", [])
            ],
            "effort": self._effort(lineage.get("stages", [])),
        }

    def panels(self, stage: str) -> list[dict[str, Any]]:
        """The curves of a stage: those to look at first, then one for every number that it logs.

        Raises:
            LookupError: there is no such stage.
        """
        kind = self._kind(stage)
        run = read_run(self._run.path)
        drawn = [_panel(panel, first=True) for panel in chosen(run, stage, kind)]
        drawn += [_panel(panel, first=False) for panel in everything(run, stage)]
        return [panel for panel in drawn if panel["series"]]

    def search(self, stage: str, filters: dict[str, Any], offset: int, limit: int) -> dict[str, Any]:
        """Groups of rollouts that pass the filters, newest first, and what there is to filter by.

        Raises:
            LookupError: there is no such stage.
        """
        log = self._log(stage)
        found = list(log.search(filters))[::-1]
        every = log.entries()
        return {
            "total": len(found),
            "of": len(every),
            "families": sorted({entry.family for entry in every}),
            "levels": sorted({entry.level for entry in every}),
            "models": sorted({entry.model for entry in every if entry.model is not None}),
            "groups": [_line(entry) for entry in found[offset : offset + limit]],
        }

    def group(self, stage: str, at: int) -> dict[str, Any]:
        """One group: every completion in pieces of (text, kind of reflection or None).

        Raises:
            LookupError: there is no such stage, or no group at that place.
        """
        group = self._log(stage).group(at)
        return {**group, "completions": [{**one, "pieces": pieces(one["text"])} for one in group["completions"]]}

    def _kind(self, stage: str) -> str:
        stages = (self._run.json("lineage") or {}).get("stages", [])
        kind = next((known["kind"] for known in stages if known["name"] == stage), None)
        if kind is None:
            raise LookupError(f"no stage {stage!r}")
        return str(kind)

    def _effort(self, stages: Iterable[Row]) -> dict[str, Row]:
        """What thinking costs and brings each model, as far as the run has measured it.

        By model: `free`, thinking as long as it likes, at most a `budget`, at `least` so many tokens, each a list of
        points with `tokens` and the share `right`; and `longer`, what one more pass does to answers.
        """
        found: dict[str, Row] = {}
        for stage in stages:
            path = self._run.stage_folder(stage["name"]) / f"{stage['kind']}.json"
            if not stage["done"]:
                continue
            if stage["kind"] == "thinking":
                for model, about in read_json(path).items():
                    own = about["trained_levels"]
                    free = [{"tokens": own["thinking_tokens"], "right": own["accuracy"]["mean"]}]
                    measured = {"free": free if own["thinking_tokens"] else [], "longer": about["think_longer"]}
                    found[model] = {**measured, **found.get(model, {})}
            if stage["kind"] == "scaling":
                for model, by_style in read_json(path).items():
                    curves = next(iter(by_style.values()))["curves"]
                    points = {name: curves.get(method, ()) for name, method in EFFORTS.items()}
                    found[model] = {**found.get(model, {}), **{name: _points(own) for name, own in points.items()}}
        return found

    def _log(self, stage: str) -> RolloutLog:
        self._kind(stage)
        return self._logs.setdefault(stage, RolloutLog(self._run.stage_folder(stage) / "rollouts.jsonl"))

    def _state(self, stage: dict[str, Any], live: bool) -> str:
        if stage["done"]:
            return "done"
        if not self._run.stage_folder(stage["name"]).is_dir():
            return "waiting"
        return "running" if live else "stopped"

    def _rollouts_size(self, stage: str) -> int:
        """Bytes of a stage's rollouts: where they grow, there are more of them."""
        path = self._run.stage_folder(stage) / "rollouts.jsonl"
        return path.stat().st_size if path.is_file() else 0


def pieces(text: str) -> list[tuple[str, str | None]]:
    """A text cut at its words of reflection, each with its kind; joined, the text again."""
    cut: list[tuple[str, str | None]] = []
    at = 0
    for match in REFLECTION.finditer(text):
        cut += [(text[at : match.start()], None), (match[0], match.lastgroup)]
        at = match.end()
    return [piece for piece in [*cut, (text[at:], None)] if piece[0]]


def _points(curve: Iterable[Row]) -> list[Row]:
    """A curve of test-time scaling in order of its setting."""
    ordered = sorted(curve, key=lambda point: point["setting"])
    return [{"setting": p["setting"], "tokens": p["tokens"], "right": p["accuracy"]["mean"]} for p in ordered]


def _panel(panel: Panel, first: bool) -> dict[str, Any]:
    series = {name: _thinned(points) for name, points in panel.series.items() if points}
    return {"title": panel.title, "percent": panel.percent, "first": first, "series": series}


def _thinned(points: Any) -> list[tuple[float, float]]:
    every = -(-len(points) // MOST_POINTS)
    return [point for number, point in enumerate(points) if number % every == 0 or number == len(points) - 1]


def _line(entry: Entry) -> dict[str, Any]:
    facts = asdict(entry)
    return {"at": facts.pop("start"), **{name: fact for name, fact in facts.items() if name != "end"}}
