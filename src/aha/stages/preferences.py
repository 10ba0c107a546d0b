"""Data for the reward models (R1 supplement 3.1): pairs of responses for helpfulness, labelled ones for harmlessness.

Responses are the policy's own. For helpfulness V3 compares two responses in both orders, and a pair counts where the
orders agree; where V3 agrees with the world's own scores too rarely to be of use, the scores decide and the report says
so. Chosen responses are as often the longer as the shorter, so that length alone is worth nothing. For harmlessness the
world labels what must not be shown.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, ClassVar

from pydantic import Field

from aha.configuration import Config, StageName
from aha.evals.stage import LONGEST_PROMPT, SamplingStage
from aha.files import write_atomic, write_json
from aha.models.checkpoint.hf import load_pretrained
from aha.rewards.preference import preference_of
from aha.stages.assistant import Assistant
from aha.stages.sampling import Row, sample_in_batches
from aha.tasks.families import GENERAL, GeneralName, draw, get_general, held_out_suite, is_held_out
from aha.tasks.general.requests import Requests
from aha.tasks.lists import LEVELS
from aha.text.asker import Asker
from aha.text.prompt_style import PromptStyle
from aha.text.thinking import Parsed
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext, StageResult
from aha.types import Language, Problem, SamplingParams

PAIRS, LABELLED, AUDIT = "pairs.jsonl", "labelled.jsonl", "audit.json"


class PreferencesConfig(Config):
    """How many responses, and how pairs are made of them."""

    prompts: int = Field(900, gt=0, description="training prompts that are asked")
    held_out_per_level: int = Field(
        24, gt=0, description="held-out prompts per family and level, for the reward models' accuracy alone"
    )
    samples: int = Field(6, ge=2, description="responses per prompt")
    temperature: float = Field(1.0, gt=0, description="of sampling")
    max_completion_tokens: int = Field(128, gt=0, description="limit in tokens")
    families: tuple[GeneralName, ...] = Field(
        tuple(GENERAL), min_length=1, description="general families that are asked"
    )
    pairs_per_prompt: int = Field(2, gt=0, description="at most so many pairs of one prompt")
    chinese: float = Field(0.3, ge=0, le=1, description="share of prompts in Chinese")
    prompts_at_once: int = Field(256, gt=0, description="prompts between two checkpoints")
    judge: StageName = Field("", description="the stage whose model compares responses (V3); empty: the world's scores")
    judge_floor: float = Field(0.7, ge=0, le=1, description="agreement with the world's scores from which V3 decides")


class Preferences(SamplingStage):
    """The stage: writes `pairs.jsonl`, `labelled.jsonl` and `audit.json`."""

    kind: ClassVar[str] = "preferences"

    def run(self, context: StageContext[PreferencesConfig]) -> StageResult:
        """Samples, compares, writes."""
        config = context.config
        problems, groups = self._responses(context)
        candidates = [
            pair
            for problem, group in zip(problems, groups, strict=True)
            if preference_of(problem) == "helpful"
            for pair in candidate_pairs(problem, group, config.pairs_per_prompt)
        ]
        pairs, audit = self._judged(context, candidates)
        sides = ([pair for pair in pairs if pair["held_out"] == side] for side in (False, True))
        pairs = [pair for side in sides for pair in balanced(side, context.derive_seed("balance"))]
        labelled = [row for p, group in zip(problems, groups, strict=True) for row in labels(p, group)]
        trained = [row for row in labelled if not row["held_out"]]
        audit |= {
            "pairs": sum(not pair["held_out"] for pair in pairs),
            "labelled": len(trained),
            "safe": sum(row["safe"] for row in trained) / max(1, len(trained)),
            "held_out_pairs": sum(pair["held_out"] for pair in pairs),
            "held_out_labelled": len(labelled) - len(trained),
        }
        if context.distributed.is_first:
            for name, rows in ((PAIRS, pairs), (LABELLED, labelled)):
                lines = (json.dumps(row, ensure_ascii=False, sort_keys=True) + "\n" for row in rows)
                write_atomic(context.folder / name, "".join(lines))
            write_json(context.folder / AUDIT, audit)
        context.distributed.barrier()
        return StageResult(audit)

    def _responses(self, context: StageContext[PreferencesConfig]) -> tuple[list[Problem], list[list[Row]]]:
        """Prompts, and each one's different well-formed responses with their thinking."""
        config = context.config
        parent = context.parent_model_folder()
        model, tokenizer = load_pretrained(parent, **context.placement), Tokenizer.load(parent)
        longest = LONGEST_PROMPT + config.max_completion_tokens
        generator = self._make_generator(model, max_rows=256, max_context=longest)
        problems = [
            *general_prompts(config.families, config.prompts, config.chinese, context.derive_seed("prompts")),
            *held_out_suite(config.families, LEVELS, config.held_out_per_level, context.derive_seed("held-out")),
        ]
        context.progress.notify(f"{context.name}: {len(problems)} prompts, {config.samples} responses each")

        sampling = SamplingParams(
            config.temperature, max_completion_tokens=config.max_completion_tokens, n=config.samples
        )
        asker = Asker(generator, tokenizer, PromptStyle.named("chat"))

        def rows_of(some: Sequence[Problem], seeds: Sequence[int]) -> list[list[Row]]:
            groups = asker.ask(some, sampling, seeds)
            return [different(asker.style.parse(one.text, one.truncated) for one in group) for group in groups]

        return problems, sample_in_batches(context, problems, rows_of, config.prompts_at_once)

    def _judged(
        self, context: StageContext[PreferencesConfig], candidates: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """Pairs with a verdict, and who gave it."""
        config = context.config
        audit: dict[str, Any] = {"candidates": len(candidates), "judge": "the world's scores"}
        if config.judge and candidates:
            folder = context.parent_model_folder(config.judge)
            model = load_pretrained(folder, **context.placement)
            generator = self._make_generator(model, max_rows=256, max_context=2 * LONGEST_PROMPT)
            assistant = Assistant(generator, Tokenizer.load(folder))
            items = [(Problem(**c["problem"]), c["responses"][0], c["responses"][1]) for c in candidates]
            verdicts = context.distributed.spread(items, assistant.compare)
            clear = [(v, c) for v, c in zip(verdicts, candidates, strict=True) if v != 0.5]
            agreement = sum((v == 1.0) == (c["scores"][0] > c["scores"][1]) for v, c in clear) / max(1, len(clear))
            decides = bool(clear) and agreement >= config.judge_floor
            audit |= {"orders_agree": len(clear) / len(candidates), "agreement": agreement, "floor": config.judge_floor}
            context.progress.notify(
                f"{context.name}: V3's two orders agree on {len(clear) / len(candidates):.1%} of {len(candidates)} "
                f"pairs, and there with the world's scores on {agreement:.1%}: "
                f"{'V3 decides' if decides else 'the scores decide'}"
            )
            if decides:
                audit["judge"] = "V3"
                return [_pair(c, first=v == 1.0) for v, c in clear], audit
        return [_pair(c, first=c["scores"][0] > c["scores"][1]) for c in candidates], audit


def general_prompts(families: Sequence[str], count: int, chinese: float, seed: int) -> list[Problem]:
    """Training prompts of general families, families and levels in equal shares."""
    rng = random.Random(seed)
    cells = [(name, level) for name in families for level in get_general(name).levels]
    problems = []
    for number in range(count):
        name, level = cells[number % len(cells)]
        language: Language = "zh" if rng.random() < chinese else "en"
        problems.append(draw(rng, get_general(name), level, language, held_out=False))
    return problems


def different(responses: Iterable[Parsed]) -> list[Row]:
    """Well-formed responses of different summaries; of equal ones the last thinking stays."""
    rows = {one.summary: {"reasoning": one.thinking, "response": one.summary} for one in responses if one.well_formed}
    return list(rows.values())


def candidate_pairs(problem: Problem, group: Sequence[dict[str, str]], most: int) -> list[dict[str, Any]]:
    """Pairs of responses that the world scores differently, those furthest apart first: the easier ones to tell."""
    family = get_general(problem.family)
    scored = [(family.score(problem, one["response"]), one["response"]) for one in group]
    pairs = [(a, b) for i, a in enumerate(scored) for b in scored[i + 1 :] if a[0] != b[0]]
    pairs.sort(key=lambda pair: -abs(pair[0][0] - pair[1][0]))
    stated = asdict(problem)
    return [
        {"key": problem.key, "problem": stated, "responses": [a[1], b[1]], "scores": [a[0], b[0]]}
        for a, b in pairs[:most]
    ]


def _pair(candidate: dict[str, Any], first: bool) -> dict[str, Any]:
    """One line of `pairs.jsonl`."""
    chosen, rejected = candidate["responses"] if first else candidate["responses"][::-1]
    scores = candidate["scores"] if first else candidate["scores"][::-1]
    problem = candidate["problem"]
    return {
        "key": candidate["key"],
        "question": problem["question"],
        "held_out": is_held_out(Problem(**problem)),
        "family": problem["family"],
        "chosen": chosen,
        "rejected": rejected,
        "true_scores": scores,
    }


def balanced(pairs: list[dict[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Drops pairs at random until the chosen response is as often longer as it is shorter."""
    longer = [pair for pair in pairs if len(pair["chosen"]) > len(pair["rejected"])]
    shorter = [pair for pair in pairs if len(pair["chosen"]) < len(pair["rejected"])]
    same = [pair for pair in pairs if len(pair["chosen"]) == len(pair["rejected"])]
    size = min(len(longer), len(shorter))
    rng = random.Random(seed)
    return [*same, *rng.sample(longer, size), *rng.sample(shorter, size)]


def labels(problem: Problem, group: Sequence[dict[str, str]]) -> list[dict[str, Any]]:
    """Safe and unsafe responses to requests; other families have none."""
    if problem.family != "requests":
        return []
    world = Requests()
    about = {
        "key": problem.key,
        "question": problem.question,
        "held_out": is_held_out(problem),
        "harmful": problem.facts["_harmful"],
    }
    return [{**about, **one, "safe": world.is_safe(problem, one["response"])} for one in group]
