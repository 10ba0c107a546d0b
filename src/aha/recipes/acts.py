"""The acts of the command line other than `run`: where their parts meet. Each imports only what it needs."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import random
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aha.errors import ConfigError, GradingError
from aha.files import write_atomic
from aha.references import load_reference
from aha.training.launch import WORKER_SETTINGS
from aha.types import Language

if TYPE_CHECKING:
    from aha.grading.sandbox.outcome import SandboxConfig
    from aha.rewards.completions import Graded

REPORT = "aha.report.page:make_report"
"""`module:function`, called with (run folder, output path or None), returns the path of the page it wrote."""

EVALUATION = "aha.recipes.evaluate:evaluate_models"
"""`module:function`, called with (model folders, tasks, ways of asking, preset, overrides, folder or None, seed)."""

SCALING = "aha.recipes.scale:scale"
"""`module:function`, called with (model folder, families, way of asking, overrides, JSON path, SVG path, seed)."""

COMPARISON = "aha.recipes.compare:compare"
"""`module:function`, called with (paths, way of asking, overrides, format, output path or None, seed)."""

SERVING = "aha.recipes.serve:serve"
"""`module:function`, called with (paths, host, port, key or None, way of asking, overrides); serves until stopped."""

CHAT = "aha.recipes.chat:chat"
"""`module:function`, called with (paths, name of a model, way of asking, overrides); talks until the user leaves."""


def make_report(run_folder: Path, out: Path | None) -> Path:
    """Makes the HTML page of a run and returns its path."""
    path: Path = _act(REPORT, "report")(run_folder, out)
    return path


def evaluate_models(
    checkpoints: Sequence[Path],
    tasks: Sequence[str],
    asked: Sequence[str],
    preset: str,
    overrides: Sequence[str],
    out: Path | None,
    seed: int,
) -> None:
    """Measures models and prints the results."""
    _act(EVALUATION, "eval")(checkpoints, tasks, asked, preset, overrides, out, seed)


def compare(
    paths: Sequence[Path], asked: str, overrides: Sequence[str], form: str, out: Path | None, seed: int
) -> None:
    """Prints one table of the models of runs and model folders."""
    _act(COMPARISON, "compare")(paths, asked, overrides, form, out, seed)


def scale(
    checkpoint: Path,
    families: Sequence[str],
    asked: str,
    overrides: Sequence[str],
    out: Path | None,
    svg: Path | None,
    seed: int,
) -> None:
    """Draws the curves of test-time scaling of a model folder and prints them as a table."""
    _act(SCALING, "scale")(checkpoint, families, asked, overrides, out, svg, seed)


def serve(
    paths: Sequence[Path], host: str, port: int, api_key: str | None, asked: str, overrides: Sequence[str]
) -> None:
    """Serves the models of runs and model folders until stopped.

    Raises:
        ConfigError: a package that the server needs is not installed.
    """
    missing = [package for package in ("starlette", "uvicorn") if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(f"`aha serve` needs {' and '.join(missing)}: pip install 'aha[serve]'")
    _act(SERVING, "serve")(paths, host, port, api_key, asked, overrides)


def chat(paths: Sequence[Path], model: str, asked: str, overrides: Sequence[str]) -> None:
    """Talks to the models of runs and model folders in the terminal."""
    _act(CHAT, "chat")(paths, model, asked, overrides)


def _act(reference: str, verb: str) -> Any:
    """The function that does an act, with the environment set as workers have it, before torch is imported."""
    for name, value in WORKER_SETTINGS.items():
        os.environ.setdefault(name, value)
    if not reference:
        raise ConfigError(f"`aha {verb}` is not part of this version")
    return load_reference(reference)


def show_task(
    name: str, level: int | None, count: int, language: str, seed: int, data: Path | None, sandbox: str | None
) -> None:
    """Prints problems of a family with their answers; of a dataset task, with the scores of right and wrong ones too.

    Raises:
        UnknownNameError: no such family or task.
        ConfigError: the family has no such level, the language is not one of en and zh, or the data are not there.
        GradingError: a gold answer does not score 1, or grading is not possible here.
    """
    from aha.tasks.families import FAMILIES

    if name not in FAMILIES:
        _show_dataset(name, count, seed, data, sandbox)
        return
    family = FAMILIES[name]
    if language not in ("en", "zh"):
        raise ConfigError(f"language = {language!r}: must be 'en' or 'zh'")
    if level is not None and level not in family.levels:
        raise ConfigError(f"level = {level}: family {name!r} has levels {', '.join(map(str, family.levels))}")
    chosen_language: Language = "en" if language == "en" else "zh"
    for chosen in family.levels if level is None else (level,):
        rng = random.Random(f"show {seed} {name} {chosen}")
        for _ in range(count):
            problem = family.sample(rng, chosen, chosen_language)
            print(f"[{problem.domain}, level {chosen}] {problem.question}\n    answer: {problem.answer}\n")


def _show_dataset(name: str, count: int, seed: int, data: Path | None, sandbox: str | None) -> None:
    from aha.tasks.datasets import load_dataset, open_dataset

    with open_dataset(name, _sandbox_config(sandbox)) as task:
        problems = load_dataset(task, data)
        task.prepare()
        wrong_paid = 0
        for problem in random.Random(f"show {seed} {name}").sample(problems, min(count, len(problems))):
            gold = task.gold(problem)
            asked = problem.told(task.instruction).question
            print(f"[{problem.domain}, {problem.facts['_id']}] {asked}")
            if gold is None:
                print("    no one gold answer is known; of wrong ones:")
            elif task.verify(problem, gold):
                print(f"    answer: {gold}\n    the gold answer scores 1")
            else:
                raise GradingError(f"the gold answer {gold!r} of {problem.facts['_id']} scores 0: the task is broken")
            for wrong in task.wrong_answers(problem):
                score = int(task.verify(problem, wrong))
                wrong_paid += score
                print(f"    {wrong!r} scores {score}")
            print()
        print(f"{len(problems):,} problems; wrong answers that scored 1 above: {wrong_paid}")


def grade_completions(
    file: Path, name: str, data: Path | None, out: Path | None, strict: bool, sandbox: str | None
) -> None:
    """Grades the completions of a file: a JSON line each to `out` or standard output, and a summary.

    Raises:
        UnknownNameError: no such task or family.
        ConfigError: a row of the file is not as expected; the message names file and line.
        GradingError: the task cannot be graded here.
    """
    from aha.rewards.completions import grade_file
    from aha.tasks.datasets import open_dataset
    from aha.tasks.families import FAMILIES

    with contextlib.ExitStack() as stack:
        task = None if name in FAMILIES else stack.enter_context(open_dataset(name, _sandbox_config(sandbox)))
        if task is not None:
            task.prepare()
        graded = []
        lines = []
        for result in grade_file(file, name, task, data, strict):
            graded.append(result)
            lines.append(json.dumps(asdict(result), ensure_ascii=False))
            if out is None:
                print(lines[-1], flush=True)
    if out is not None:
        write_atomic(out, "".join(f"{line}\n" for line in lines))
    print(_summary(graded), file=sys.stderr if out is None else sys.stdout)


def _summary(graded: Sequence[Graded]) -> str:
    judged = [result for result in graded if result.reward is not None]
    parts = [f"{len(graded)} rows", f"{len(graded) - len(judged)} without a verdict"]
    if judged:
        for part in judged[0].rewards:
            parts.append(f"{part} {sum(result.rewards[part] for result in judged) / len(judged):.1%}")
        parts.append(f"mean reward {sum(result.reward or 0.0 for result in judged) / len(judged):.4f}")
    return ", ".join(parts)


def _sandbox_config(url: str | None) -> SandboxConfig:
    from aha.grading.sandbox.outcome import SandboxConfig

    return SandboxConfig(url=url)
