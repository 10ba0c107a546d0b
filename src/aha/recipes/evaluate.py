"""`aha eval`: one model folder, measured on held-out problems and printed as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import Field
from rich.console import Console
from rich.table import Table

from aha.configuration import override_config
from aha.evals.runner import Sample, evaluate
from aha.evals.stage import LONGEST_PROMPT, EvaluationSettings, question_sets, report
from aha.files import write_json
from aha.inference.engine import Engine
from aha.models.hf import load_pretrained
from aha.text.elicitation import Elicitation
from aha.text.tokenizer import Tokenizer
from aha.training.progress import Progress

PROBLEMS_AT_ONCE = 32


class ModelEvaluation(EvaluationSettings):
    """What `aha eval` does; change it with --set."""

    elicitations: tuple[Elicitation, ...] = Field(("zero",), min_length=1, description="ways of asking")
    device: str = Field("cpu", description="where to compute: cpu or cuda")


def evaluate_model(checkpoint: Path, overrides: Sequence[str], out: Path | None, seed: int) -> None:
    """Evaluates a model folder and prints pass@1 by family and level.

    Args:
        checkpoint: a folder in Hugging Face layout.
        overrides: ``a.b=c`` settings of `ModelEvaluation`.
        out: a JSON file for the results and all completions.
        seed: of the problems and of the sampling.

    Raises:
        CheckpointError: the folder is not a model, or damaged.
        ConfigError: a setting is unknown or out of bounds.
    """
    config = override_config(ModelEvaluation(suite_seed=seed), {}, overrides)
    results: dict[str, Any] = {}
    kept: list[dict[str, Any]] = []
    for elicitation in config.elicitations:
        results[elicitation], samples = measure(checkpoint, config, elicitation, seed)
        kept += [{"elicitation": elicitation, **asdict(sample)} for sample in samples]
        Console().print(_table(elicitation, results[elicitation], config))
    if out is not None:
        write_json(
            out, {"model": str(checkpoint), "settings": config.model_dump(), "results": results, "samples": kept}
        )


def measure(
    checkpoint: Path, config: ModelEvaluation, elicitation: Elicitation, seed: int
) -> tuple[dict[str, Any], list[Sample]]:
    """Asks a model folder all held-out questions in one way, with progress.

    Returns:
        The numbers (see `aha.evals.stage.report`), and all graded completions.
    """
    model, tokenizer = load_pretrained(checkpoint, device=config.device), Tokenizer.load(checkpoint)
    engine = Engine(model, max_rows=256, max_context=LONGEST_PROMPT + config.max_completion_tokens)
    sets = question_sets(config)
    samples: list[Sample] = []
    with Progress().task(f"asked as {elicitation!r}", sum(len(problems) for problems, _ in sets)) as task:
        done = 0
        for problems, count in sets:
            for start in range(0, len(problems), PROBLEMS_AT_ONCE):
                some = problems[start : start + PROBLEMS_AT_ONCE]
                samples += evaluate(
                    engine,
                    tokenizer,
                    some,
                    elicitation,
                    count,
                    seed,
                    config.max_completion_tokens,
                    config.temperature,
                    config.top_p,
                )
                done += len(some)
                task.update(done)
    return report(samples, config), samples


def _table(elicitation: str, result: dict[str, Any], config: ModelEvaluation) -> Table:
    """Families by levels, and the mean of the trained levels with its interval."""
    headline = result["trained_levels"]["pass_at_1"]
    interval = f"{headline['mean']:.1%} [{headline['low']:.1%}, {headline['high']:.1%}]"
    levels = ", ".join(map(str, config.trained_levels))
    title = f"{elicitation}: pass@1 {interval} on {headline['problems']} held-out problems, levels {levels}"
    table = Table(title=title, title_justify="left", caption_justify="left")
    table.caption = (
        f"{config.samples} samples a problem at temperature {config.temperature}; well formed "
        f"{result['all_levels']['format_rate']:.1%}; {result['all_levels']['mean_completion_tokens']:.1f} tokens"
        + (f"; general tasks {result['general']['score']:.1%}" if "general" in result else "")
    )
    table.add_column("family")
    for level in config.levels:
        table.add_column(f"level {level}", justify="right")
    for family, cells in result["all_levels"]["by_family"].items():
        table.add_row(family, *(f"{cells[str(level)]:.1%}" for level in config.levels))
    return table
