"""`aha scale`: what more tokens at test time buy one model folder, as a table, a JSON file and a figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from rich.console import Console
from rich.table import Table

from aha.configuration import override_config
from aha.errors import ConfigError
from aha.evals.scaling import METHODS, Answered, curves_of, report
from aha.evals.scaling_rows import WITHOUT_REWARDS, ScalingSettings, answer, unfit_method
from aha.evals.scaling_stage import load_rewards
from aha.evals.stage import LONGEST_PROMPT
from aha.files import derive_seed, write_atomic, write_json
from aha.inference.engine import Engine
from aha.models.hf import load_pretrained
from aha.report.scaling import curves_figure, levels_table
from aha.report.sections import Table as Shown
from aha.test_time.candidates import Respondent
from aha.text.elicitation import ELICITATIONS, Elicitation
from aha.text.tokenizer import Tokenizer
from aha.training.progress import Progress

PROBLEMS_AT_ONCE = 32


class ModelScaling(ScalingSettings):
    """What `aha scale` does; change it with --set. `reward_model` is a reward model's folder."""

    device: Literal["cpu", "cuda"] = Field("cpu", description="where to compute")


def scale(
    checkpoint: Path,
    families: Sequence[str],
    asked: str,
    overrides: Sequence[str],
    out: Path | None,
    svg: Path | None,
    seed: int,
) -> None:
    """Measures the curves of a model folder and prints them.

    Args:
        checkpoint: a folder in Hugging Face layout.
        families: what is asked; none for the default.
        asked: the way of asking. Where it has no thinking, methods that take hold of one are left out by default.
        overrides: ``a.b=c`` settings of `ModelScaling`.
        out: a JSON file for the results and all completions.
        svg: a file for the figure.
        seed: of the problems and of the sampling.

    Raises:
        CheckpointError: the folder is not a model, or damaged.
        ConfigError: a setting or the way of asking is unknown or does not fit the methods.
    """
    elicitation = next((known for known in ELICITATIONS if known == asked), None)
    if elicitation is None:
        raise ConfigError(f"--asked {asked!r}: expected one of {', '.join(ELICITATIONS)}")
    config = settings_for(elicitation, families, overrides, seed)
    rows = measure(checkpoint, config, elicitation, seed)
    subset_seed = derive_seed(seed, "subsets")
    curves = curves_of(rows, config.methods, config.max_completion_tokens, config.subsets, subset_seed)
    result = report(curves, config.compared_at)
    console = Console()
    console.print(_table(result, config, elicitation))
    if (by_level := levels_table(result, f"asked as {elicitation!r}")) is not None:
        console.print(_plain(by_level))
    if svg is not None:
        title = f"{checkpoint.parent.name if checkpoint.name == 'model' else checkpoint.name}, asked as {asked}"
        write_atomic(svg, curves_figure(result, title) + "\n")
    if out is not None:
        about = {"model": str(checkpoint), "asked": asked, "seed": seed, "settings": config.model_dump()}
        write_json(out, {**about, "results": result, "answers": [asdict(row) for row in rows]})


def settings_for(
    elicitation: Elicitation, families: Sequence[str], overrides: Sequence[str], seed: int
) -> ModelScaling:
    """The settings of one measurement.

    Raises:
        ConfigError: a setting is unknown, out of bounds, or does not fit the way of asking.
    """
    default = tuple(method for method in WITHOUT_REWARDS if unfit_method([method], elicitation) is None)
    data: dict[str, Any] = {"methods": list(default), "suite_seed": seed}
    if families:
        data["families"] = list(families)
    config = override_config(ModelScaling(), data, overrides)
    if unfit := unfit_method(config.methods, elicitation):
        raise ConfigError(
            f"methods: {unfit} needs a model that thinks between tags; asked as {elicitation!r} it does not: use "
            "--asked chat or zero, or leave it out"
        )
    return config


def measure(checkpoint: Path, config: ModelScaling, elicitation: Elicitation, seed: int) -> list[Answered]:
    """Samples everything that the methods need, with progress.

    Raises:
        CheckpointError: the folder is not a model, or damaged; or the reward model's.
    """
    model, tokenizer = load_pretrained(checkpoint, device=config.device), Tokenizer.load(checkpoint)
    respondent = Respondent(
        Engine(model, max_rows=256, max_context=LONGEST_PROMPT + config.room),
        tokenizer,
        elicitation,
        config.max_completion_tokens,
        config.room,
        seed,
        config.temperature,
        config.top_p,
    )
    rewards = load_rewards(Path(config.reward_model), config.device) if config.reward_model else None
    problems, jobs = config.problems(), config.jobs()
    rows: list[Answered] = []
    with Progress().task(f"asked as {elicitation!r}", len(jobs) * len(problems)) as task:
        for number, job in enumerate(jobs):
            for start in range(0, len(problems), PROBLEMS_AT_ONCE):
                some = problems[start : start + PROBLEMS_AT_ONCE]
                rows += answer(job, respondent, some, config, rewards)
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


def _table(result: dict[str, Any], config: ModelScaling, elicitation: Elicitation) -> Table:
    """All points of all curves, in order of what they cost."""
    table = Table(
        title=f"asked as {elicitation!r}: accuracy against tokens per question, {', '.join(config.families)}",
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
        f"{problems} held-out problems, levels {', '.join(map(str, config.levels))}; {config.samples} samples each at "
        f"temperature {config.temperature}; tokens per question; an adaptive vote has so many samples on average"
    )
    return table
