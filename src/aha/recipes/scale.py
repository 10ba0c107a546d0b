"""`aha scale`: what more tokens at test time buy one model folder, as a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator
from rich.console import Console
from rich.table import Table

from aha import __version__
from aha.compute import ComputeConfig
from aha.configuration import override_config
from aha.errors import ConfigError
from aha.evals.file_tasks import FileTaskSettings
from aha.evals.resumable_log import PieceStore
from aha.evals.sample_store import content_of
from aha.evals.scaling import METHODS, Answered, curves_of, report
from aha.evals.scaling_rows import WITHOUT_REWARDS, ScalingSettings, answer, unfit_method
from aha.evals.scaling_stage import load_rewards
from aha.files import derive_seed, file_sha256, make_folder_of, write_atomic, write_json
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.placement import placement
from aha.models.reward_model import ABOUT, BACKBONE, HEAD
from aha.recipes.model_folders import refuse_reward_model
from aha.report.scaling import curves_figure, levels_table
from aha.report.sections import Table as Shown
from aha.stages.checkpoint import checkpoint_identity
from aha.tasks.datasets import is_dataset, make_dataset, need_judges
from aha.tasks.families import FAMILIES, GENERAL
from aha.test_time.candidates import Respondent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer
from aha.training.progress import Progress
from aha.types import Problem, SamplingParams

PROBLEMS_AT_ONCE = 32


class ModelScaling(ScalingSettings, FileTaskSettings):
    """What `aha scale` does; change it with --set. `reward_model` is a reward model's folder."""

    compute: ComputeConfig = Field(default_factory=ComputeConfig, description="device and numbers")
    engine_rows: int = Field(256, gt=0, description="samples decoded at once; each needs a cache of its longest length")

    @model_validator(mode="after")
    def _asks(self) -> Self:
        if not self.families and not self.tasks:
            raise ValueError("nothing is asked: name families or tasks")
        return self

    def problems(self) -> list[Problem]:
        """The held-out problems of the families, and the tests of the tasks."""
        return [*super().problems(), *(one for name in self.tasks for one in self.file_problems(name))]


def scale(
    checkpoint: Path,
    tasks: Sequence[str],
    style: PromptStyle,
    overrides: Sequence[str],
    out: Path | None,
    svg: Path | None,
    seed: int,
) -> None:
    """Measures the curves of a model folder and prints them.

    Args:
        checkpoint: a folder in Hugging Face layout.
        tasks: families and tasks that are asked; none for the default.
        style: in which it is asked. If it has no thinking, methods that need one are left out by default.
        overrides: ``a.b=c`` settings of `ModelScaling`.
        out: a JSON file for the results and all completions. Until they are all there, OUT.part keeps them, and the
            same command goes on from it.
        svg: a file for the figure.
        seed: of the problems and of the sampling.

    Raises:
        CheckpointError: the folder is not a model, or damaged.
        ConfigError: a setting is unknown or does not fit the prompt style.
    """
    config = settings_for(style, tasks, overrides, seed)
    refuse_reward_model(checkpoint)
    if svg is not None:
        make_folder_of(svg)
    settings = config.model_dump(mode="json", exclude={"compute": {"device"}, "engine_rows": True})
    asks = {"model": checkpoint_identity(str(checkpoint)), "style": style.name, "seed": seed, "settings": settings}
    asks |= {"problems": content_of(config.problems()), "aha": __version__}
    if config.reward_model:
        folder = Path(config.reward_model)
        beside = [folder / name for name in (HEAD, ABOUT)]
        asks["reward_model"] = [
            checkpoint_identity(str(folder / BACKBONE)),
            *(file_sha256(file) for file in beside if file.is_file()),
        ]
    part = None if out is None else out.with_name(f"{out.name}.part")
    with PieceStore(part, asks) as kept:
        rows = measure(checkpoint, config, style, seed, kept)
    subset_seed = derive_seed(seed, "subsets")
    curves = curves_of(rows, config.methods, config.max_completion_tokens, config.subsets, subset_seed)
    result = report(curves, config.compared_at)
    console = Console()
    console.print(_table(result, config, style))
    if (by_level := levels_table(result, f"asked as {style.name!r}")) is not None:
        console.print(_plain(by_level))
    if out is not None:
        about = {"model": str(checkpoint), "style": style.name, "seed": seed, "settings": config.model_dump()}
        write_json(out, {**about, "results": result, "answers": [asdict(row) for row in rows]})
        kept.done()
    if svg is not None:
        title = f"{checkpoint.parent.name if checkpoint.name == 'model' else checkpoint.name}, asked as {style.name}"
        write_atomic(svg, curves_figure(result, title) + "\n")


def settings_for(style: PromptStyle, tasks: Sequence[str], overrides: Sequence[str], seed: int) -> ModelScaling:
    """The settings of one measurement.

    Raises:
        ConfigError: a setting is unknown, out of bounds, or does not fit the prompt style.
    """
    default = tuple(method for method in WITHOUT_REWARDS if unfit_method([method], style) is None)
    data: dict[str, Any] = {"methods": list(default), "suite_seed": seed}
    for name in tasks:
        if name not in FAMILIES and name not in GENERAL:
            make_dataset(name)  # says which tasks and families there are
    if tasks:
        data["families"] = [name for name in tasks if not is_dataset(name)]
        data["tasks"] = [name for name in tasks if is_dataset(name)]
    config = override_config(ModelScaling(), data, overrides)
    if unfit := unfit_method(config.methods, style):
        raise ConfigError(
            f"methods: {unfit} needs a model that thinks between tags; asked as {style.name!r} it does not: use "
            "--style chat or zero, or leave it out"
        )
    return config


def measure(checkpoint: Path, config: ModelScaling, style: PromptStyle, seed: int, kept: PieceStore) -> list[Answered]:
    """Samples everything that the methods need, with progress; pieces of work that are kept are not done again.

    Raises:
        CheckpointError: the folder is not a model, or damaged; or the reward model's.
    """
    model, tokenizer = load_pretrained(checkpoint, **placement(config.compute)), Tokenizer.load(checkpoint)
    problems, jobs = config.problems(), config.jobs()
    need_judges(problem.family for problem in problems)
    longest = style.longest_prompt(tokenizer, problems)
    respondent = Respondent(
        Engine(model, max_rows=config.engine_rows, max_context=longest + config.room),
        tokenizer,
        style,
        SamplingParams(config.temperature, config.top_p, config.max_completion_tokens),
        config.room,
        seed,
    )
    rewards = (
        load_rewards(Path(config.reward_model), placement(config.compute)["device"]) if config.reward_model else None
    )
    rows: list[Answered] = []
    with Progress().task(f"asked as {style.name!r}", len(jobs) * len(problems)) as task:
        for number, job in enumerate(jobs):
            for start in range(0, len(problems), PROBLEMS_AT_ONCE):
                some = problems[start : start + PROBLEMS_AT_ONCE]
                piece = f"{job.source} {job.setting}, from {start}"
                own = kept.get(piece)
                if own is None:
                    own = [asdict(row) for row in answer(job, respondent, some, config, rewards)]
                    kept.add(piece, own)
                rows += [Answered(**row) for row in own]
                task.update(number * len(problems) + start + len(some), {job.source: job.setting})
    return rows


def _plain(shown: Shown) -> Table:
    """A table of the report in the terminal."""
    table = Table(title=shown.note, title_justify="left")
    for place, head in enumerate(shown.head):
        table.add_column(head, justify="right" if place else "left", no_wrap=True)
    for row in shown.rows:
        table.add_row(*row)
    return table


def _table(result: dict[str, Any], config: ModelScaling, style: PromptStyle) -> Table:
    """All points of all curves, in order of what they cost."""
    table = Table(
        title=f"asked as {style.name!r}: accuracy against tokens per question, "
        + ", ".join((*config.families, *config.tasks)),
        title_justify="left",
        caption_justify="left",
    )
    table.add_column("method", no_wrap=True)
    for head in ("setting", "tokens", "put in", "accuracy, 95% interval"):
        table.add_column(head, justify="right", no_wrap=True)
    problems = 0
    for method, points in result["curves"].items():
        about = METHODS[method]
        for place, point in enumerate(points):
            accuracy, problems = point["accuracy"], point["problems"]
            table.add_row(
                about.title if place == 0 else "",
                f"{point['setting']} {about.setting.removesuffix('s') if point['setting'] == 1 else about.setting}",
                f"{point['tokens']:.1f}",
                f"{point['forced_tokens']:.1f}" if point["forced_tokens"] else "",
                f"{accuracy['mean']:.1%} [{accuracy['low']:.1%}, {accuracy['high']:.1%}]",
                end_section=place == len(points) - 1,
            )
    table.caption = (
        f"{problems} held-out problems; {config.samples} samples each at "
        f"temperature {config.temperature}; tokens per question; an adaptive vote has so many samples on average"
    )
    return table
