"""Questions of reinforcement learning: which levels are trained on, and which are measured."""

import json
from pathlib import Path

from aha.data.sources import Source
from aha.rl.config import GRPOConfig
from aha.rl.prompts import make_prompts
from aha.stages.problems import Problems, ProblemsConfig
from aha.tasks.stored import TRAIN, read_stored
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import Tokenizer

from ..conftest import MakeContext, nested


def rows(path: Path, first: int) -> Source:
    """Ten problems of each level from 1 to 3, all of the first level's longer."""
    numbers = [(level, 100 * level + first + i) for level in (1, 2, 3) for i in range(10)]
    said = [
        {"question": f"What is {n} + 1{' + 0' * 9 if level == 1 else ''}?", "answer": str(n + 1), "level": level}
        for level, n in numbers
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in said))
    return Source(path=str(path))


def test_stored_problems_are_trained_on_and_measured_by_at_the_levels_asked_for(
    make_context: MakeContext, base: Tokenizer, tmp_path: Path
) -> None:
    sources = {name: rows(tmp_path / f"{name}.jsonl", first) for name, first in (("train", 0), ("held_out", 50))}
    Problems().run(make_context("problems", ProblemsConfig(task="rows", **sources)))
    config = GRPOConfig(
        **nested(
            {
                "prompts.stage": "problems",
                "prompts.levels": (2,),
                "held_out.levels": (2, 3),
                "held_out.problems_per_level": 4,
            }
        )
    )
    prompts = make_prompts(config, base, make_context("grpo", config, ("problems",)))
    assert [level for _, level in prompts.cells] == [2]
    assert [problem.level for problem in prompts.held_out()] == [2] * 4 + [3] * 4


def test_what_is_too_long_is_neither_trained_on_nor_measured_by(
    make_context: MakeContext, base: Tokenizer, tmp_path: Path
) -> None:
    sources = {name: rows(tmp_path / f"{name}.jsonl", first) for name, first in (("train", 0), ("held_out", 50))}
    context = make_context("problems", ProblemsConfig(task="rows", **sources))
    Problems().run(context)
    longest = max(
        len(PromptStyle.named("zero").prompt(base, p)) for p in read_stored(context.folder / TRAIN) if p.level > 1
    )
    config = GRPOConfig(
        **nested({"prompts.stage": "problems", "prompts.levels": (1, 2, 3), "prompts.max_tokens": longest})
    )
    prompts = make_prompts(config, base, make_context("grpo", config, ("problems",)))
    assert [level for _, level in prompts.cells] == [2, 3]
    assert {problem.level for problem in prompts.held_out()} == {2, 3}
