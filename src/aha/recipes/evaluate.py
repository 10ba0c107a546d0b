"""`aha eval`: models on tasks under sampling settings, every completion kept, a table at the end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field, PositiveInt, model_validator
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from aha import __version__
from aha.compute import ComputeConfig
from aha.configuration import override_config
from aha.errors import UnknownNameError
from aha.evals.file_tasks import FileTaskSettings
from aha.evals.runner import Sample, evaluate
from aha.evals.sample_store import RESULTS, SampleStore, content_of, identity
from aha.evals.stage import EvaluationSettings, question_sets, report
from aha.files import fingerprint, names_of, write_json
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.placement import placement
from aha.recipes.model_folders import refuse_reward_model
from aha.stages.checkpoint import checkpoint_identity
from aha.tasks.datasets import DATASETS, is_dataset
from aha.tasks.families import FAMILIES, GENERAL
from aha.tasks.stored import read_stored
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle, StyleName
from aha.text.tokenizer import Tokenizer
from aha.training.progress import Progress
from aha.types import Problem

PROBLEMS_AT_ONCE = 32
PAPER_SAMPLES = {"math": 16, "choice": 64, "humaneval": 8}
"""Samples a problem by the paper's benchmark that is nearest: MATH-500, GPQA, LiveCodeBench (R1, appendix D.1)."""
PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"temperature": 0.6, "top_p": 0.95, "samples": 16, "samples_by_task": PAPER_SAMPLES},
    "greedy": {"temperature": 0.0, "samples": 1},
}
"""Sampling settings by name. Greedy decoding repeats itself and varies between checkpoints (R1, section 3)."""


def _known(name: str) -> str:
    if name not in FAMILIES and name not in GENERAL and not is_dataset(name):
        raise UnknownNameError("family or task", name, [*DATASETS, *FAMILIES, *GENERAL])
    return name


class ModelEvaluation(EvaluationSettings, FileTaskSettings):
    """What `aha eval` does; change it with --set."""

    styles: tuple[StyleName, ...] = Field(("zero",), min_length=1, description="prompt styles")
    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="device and numbers")
    samples_by_task: dict[Annotated[str, AfterValidator(_known)], PositiveInt] = Field(
        default_factory=dict, description="samples where they differ, by family or task"
    )
    held_out: tuple[str, ...] = Field((), description="files of held-out problems from runs that are asked as well")

    @model_validator(mode="after")
    def _asks(self) -> ModelEvaluation:
        if not self.tasks and not self.families and not self.general and not self.held_out:
            raise ValueError("nothing is asked: name families, tasks or general families")
        return self


def evaluate_models(
    checkpoints: Sequence[Path],
    tasks: Sequence[str],
    styles: Sequence[str],
    preset: str,
    overrides: Sequence[str],
    out: Path | None,
    seed: int,
) -> None:
    """Evaluates model folders and prints pass@1, cons@k and pass@k by task.

    Args:
        checkpoints: folders in Hugging Face layout.
        tasks: families, general ones too, and tasks that are asked; empty: all families of reasoning.
        styles: prompt styles; empty: R1-Zero's template.
        preset: of sampling settings, or several with commas between, each measured; empty: none.
        overrides: ``a.b=c`` settings of `ModelEvaluation`, applied last.
        out: the folder of the completions and results; where one is there already, it is completed.
        seed: of the problems and of the sampling.

    Raises:
        CheckpointError: a folder is not a model, or damaged.
        ConfigError: a setting is unknown or out of bounds.
        RunFolderError: the folder holds another evaluation.
    """
    configs = _configs(tasks, styles, preset, overrides, seed)
    dumps = {
        name: config.model_dump(mode="json", exclude={"compute": {"device"}, "engine_rows": True})
        for name, config in configs.items()
    }
    for path in checkpoints:
        refuse_reward_model(path)
    names = names_of(checkpoints)
    settings = {
        "models": {name: checkpoint_identity(str(path)) for name, path in zip(names, checkpoints, strict=True)},
        "seed": seed,
        "problems": {
            name: content_of(one for problems, _ in _questions(config) for one in problems)
            for name, config in configs.items()
        },
        "aha": __version__,  # which grades
        **(next(iter(dumps.values())) if len(dumps) == 1 else {"presets": dumps}),
    }
    folder = out or Path("evaluations") / f"{'-'.join(names)[:60]}-{fingerprint(settings)[:10]}"
    results: dict[str, dict[str, Any]] = {}
    with SampleStore(folder, settings) as kept:
        for name, path in zip(names, checkpoints, strict=True):
            for label, config in configs.items():
                for style in config.styles:
                    heading = f"{style}, {label}" if len(configs) > 1 else style
                    work = Measurement(path, name, heading, PromptStyle.named(style), config, seed)
                    results.setdefault(name, {})[heading] = _by_task(_measure(work, kept), config)
        write_json(folder / RESULTS, results)
    Console().print(_table(results, configs))
    print(f"completions and results: {folder}")


def _configs(
    tasks: Sequence[str], styles: Sequence[str], preset: str, overrides: Sequence[str], seed: int
) -> dict[str, ModelEvaluation]:
    """What is to be measured, by the name of the preset; see `evaluate_models`."""
    presets = [name.strip() for name in preset.split(",")]
    for name in filter(None, presets):
        if name not in PRESETS:
            raise UnknownNameError("preset of sampling settings", name, PRESETS)
    chosen: dict[str, Any] = {}
    for name in tasks:
        _known(name)
    if tasks:
        chosen["families"] = [name for name in tasks if name in FAMILIES]
        chosen["general"] = [name for name in tasks if name in GENERAL]
        chosen["tasks"] = [name for name in tasks if is_dataset(name)]
    if styles:
        chosen["styles"] = [PromptStyle.named(name).name for name in styles]
    base = ModelEvaluation(suite_seed=seed)
    return {name: override_config(base, {**PRESETS.get(name, {}), **chosen}, overrides) for name in presets}


def measure(checkpoint: Path, name: str, config: ModelEvaluation, style: PromptStyle, seed: int) -> dict[str, Any]:
    """The numbers (see `aha.evals.stage.report`) of a model folder in one prompt style, with progress.

    Nothing is kept on disk.
    """
    return report(_measure(Measurement(checkpoint, name, style.name, style, config, seed), None), config)


@dataclass(frozen=True)
class Measurement:
    """A model, asked in one prompt style under one sampling setting."""

    checkpoint: Path
    name: str
    heading: str
    """The name of the style, with that of the preset if there are several."""
    style: PromptStyle
    config: ModelEvaluation
    seed: int


def _measure(work: Measurement, kept: SampleStore | None) -> list[Sample]:
    """All samples: those that are kept, and those that were missing."""
    sets = _questions(work.config)
    found = dict(kept.of(work.name, work.heading)) if kept else {}
    missing = [
        ([one for one in problems if any((one.family, one.question, i) not in found for i in range(count))], count)
        for problems, count in sets
    ]
    if any(problems for problems, _ in missing):
        total = sum(len(problems) for problems, _ in sets)
        for new in _new_samples(work, missing, total):
            if kept:
                kept.add(work.name, work.heading, new)
            found.update({identity(sample): sample for sample in new})
    return [
        found[problem.family, problem.question, index]
        for problems, count in sets
        for problem in problems
        for index in range(count)
    ]


def _new_samples(work: Measurement, missing: Sequence[tuple[list[Problem], int]], total: int) -> Iterator[list[Sample]]:
    """Makes samples, some problems at a time, with progress out of the total number of problems."""
    config = work.config
    model, tokenizer = load_pretrained(work.checkpoint, **placement(config.compute)), Tokenizer.load(work.checkpoint)
    longest = work.style.longest_prompt(tokenizer, [one for problems, _ in missing for one in problems])
    engine = Engine(model, max_rows=config.engine_rows, max_context=longest + config.max_completion_tokens)
    asker = Asker(engine, tokenizer, work.style)
    finished = total - sum(len(problems) for problems, _ in missing)
    console = Console(stderr=True, highlight=False)  # what is printed may be read by a program
    with Progress(console=console).task(f"{work.name}, asked as {work.heading!r}", total, finished) as task:
        for problems, count in missing:
            for start in range(0, len(problems), PROBLEMS_AT_ONCE):
                some = problems[start : start + PROBLEMS_AT_ONCE]
                yield evaluate(asker, some, config.sampling(count), work.seed)
                finished += len(some)
                task.update(finished)


def _questions(config: ModelEvaluation) -> list[tuple[list[Problem], int]]:
    """Generated and general problems, and each file task's, with the samples of each."""
    limit = config.problems_limit or None
    stored = [problem for path in config.held_out for problem in read_stored(Path(path))[:limit]]
    of_tasks = [(config.file_problems(name), config.samples) for name in config.tasks]
    return [
        (list(some), count)
        for problems, default in (*question_sets(config, stored), *of_tasks)
        for count, some in groupby(problems, partial(_samples_of, config, default))
    ]


def _samples_of(config: ModelEvaluation, default: int, problem: Problem) -> int:
    return config.samples_by_task.get(problem.family, default)


def _by_task(samples: Sequence[Sample], config: ModelEvaluation) -> dict[str, Any]:
    """The numbers of each family and task, and of all together."""
    together = report(list(samples), config)
    own = {
        name: report([sample for sample in samples if sample.family == name], config)["all_levels"]
        for name in (*config.families, *config.tasks)
    }
    return {**together, "by_task": own}


def _table(results: dict[str, dict[str, Any]], configs: dict[str, ModelEvaluation]) -> Table:
    """For each model, prompt style and task: pass@1 with its interval over problems, votes, k, n problems, tokens."""
    sampling = "; ".join(
        f"{label}: temperature {one.temperature:g}, top-p {one.top_p:g}".removeprefix(": ")
        for label, one in configs.items()
    )
    title = f"held-out problems; {sampling}; 95% intervals over problems"
    config = next(iter(configs.values()))
    table = Table(title=title, title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("model", "style", "task"):
        table.add_column(column)
    for column in ("pass@1", "95%", "cons@k", "pass@k", "k", "n", "form", "tokens"):
        table.add_column(column, justify="right", no_wrap=True)
    for model, by_style in results.items():
        for style, result in by_style.items():
            for name in (*config.families, *config.tasks):
                table.add_row(model, style, name, *_cells(result["by_task"][name]))
            scores = result["general"]["by_family"] if "general" in result else {}
            for name, score in scores.items():
                table.add_row(model, style, name, _percent(score))
            if len(scores) > 1:
                table.add_row(model, style, "general", _percent(result["general"]["score"]))
    return table


def _cells(result: dict[str, Any]) -> list[str]:
    interval, k = result["pass_at_1"], result["pass_at_1"]["samples"]
    consensus = next(iter(result["cons_at_k"].values()), None)
    ever = result["pass_at_k"].get(str(k))
    return [
        _percent(interval["mean"]),
        f"{_percent(interval['low'])}-{_percent(interval['high'])}",
        _percent(consensus),
        _percent(ever if k > 1 else None),
        str(k),
        str(interval["problems"]),
        _percent(result["format_rate"]),
        f"{result['mean_completion_tokens'] or 0.0:.1f}",
    ]


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
