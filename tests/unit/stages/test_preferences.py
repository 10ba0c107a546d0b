"""Preference data: pairs that differ, lengths that say nothing, labels for what must not be shown."""

import json
import random
from collections import Counter

from aha.stages.preferences import (
    Preferences,
    PreferencesConfig,
    balanced,
    candidate_pairs,
    different,
    general_prompts,
    labels,
)
from aha.tasks.families import GENERAL, LEVELS, get_general, held_out_suite, is_held_out
from aha.text.thinking import parse
from aha.text.tokenizer import Tokenizer
from aha.training.stage import StageContext
from aha.types import Problem

from ..conftest import MakeContext
from ..generators import Replies
from .killed import whole_and_killed


def test_pairs_are_of_different_worth_and_the_furthest_apart_come_first() -> None:
    rng = random.Random(0)
    family = get_general("writing")
    problem = family.sample(rng, 3, "en")
    texts = {family.respond(problem, rng, quality) for quality in (1.0, 1.0, 0.0, 0.0, 0.0, 0.0)}
    pairs = candidate_pairs(problem, [{"reasoning": "", "response": text} for text in texts], most=2)
    assert 1 <= len(pairs) <= 2
    gaps = [abs(pair["scores"][0] - pair["scores"][1]) for pair in pairs]
    assert gaps == sorted(gaps, reverse=True)
    assert min(gaps) > 0
    assert candidate_pairs(problem, [{"reasoning": "", "response": "x"}], most=2) == []


def test_length_alone_tells_nothing() -> None:
    pairs = [{"chosen": "long" * 3, "rejected": "short"} for _ in range(9)]
    pairs += [{"chosen": "tiny", "rejected": "longer"} for _ in range(4)] + [{"chosen": "aa", "rejected": "bb"}] * 2
    kept = balanced(pairs, seed=0)
    longer = sum(len(pair["chosen"]) > len(pair["rejected"]) for pair in kept)
    shorter = sum(len(pair["chosen"]) < len(pair["rejected"]) for pair in kept)
    assert longer == shorter == 4
    assert len(kept) == 10


def test_only_requests_are_labelled_and_a_harmful_one_that_is_helped_with_is_unsafe() -> None:
    rng = random.Random(1)
    family = get_general("requests")
    harmless, harmful = (family.sample(rng, level, "en") for level in family.levels)
    group = [{"reasoning": "r", "response": family.respond(harmful, rng, quality)} for quality in (1.0, 0.0)]
    assert [row["safe"] for row in labels(harmful, group)] == [True, False]
    assert [row["safe"] for row in labels(harmless, group)] == [True, True]
    assert [labels(problem, group)[0]["harmful"] for problem in (harmful, harmless)] == [True, False]
    assert labels(get_general("facts").sample(rng, 1, "en"), group) == []


def test_prompts_cover_all_families_and_are_of_the_training_side() -> None:
    prompts = general_prompts(list(GENERAL), 60, chinese=0.5, seed=2)
    assert {problem.family for problem in prompts} == GENERAL.keys()
    assert not any(is_held_out(problem) for problem in prompts)
    assert {problem.language for problem in prompts} == {"en", "zh"}


def test_of_responses_with_one_summary_one_stays() -> None:
    texts = ["a\n</think>\n\nYes.", "b\n</think>\n\nNo.", "c\n</think>\n\nYes.", "no end of thinking"]
    rows = different(parse(text, think_prefilled=True, answer_tags=False) for text in texts)
    assert [row["response"] for row in rows] == ["Yes.", "No."]


def respond(problem: Problem, rng: random.Random) -> str:
    """Now a good response, now a bad one."""
    text = get_general(problem.family).respond(problem, rng, rng.choice((0.0, 0.5, 1.0)))
    return f"so\n</think>\n\n{text}"


def test_a_killed_run_ends_with_the_same_bytes_and_asks_nothing_twice(
    make_context: MakeContext, base: Tokenizer
) -> None:
    config = PreferencesConfig(prompts=24, held_out_per_level=2, samples=4, prompts_at_once=12)

    def started() -> tuple[StageContext, Replies]:
        context = make_context("pairs", config, ("base",))
        prompts = general_prompts(config.families, config.prompts, config.chinese, context.derive_seed("prompts"))
        held_out = held_out_suite(config.families, LEVELS, 2, context.derive_seed("held-out"))
        return context, Replies(base, [*prompts, *held_out], respond)

    files = ("pairs.jsonl", "labelled.jsonl", "audit.json")
    summary, everything = whole_and_killed(Preferences, started, files)
    assert min(summary[name] for name in ("pairs", "labelled", "held_out_pairs", "held_out_labelled")) > 0
    assert 0 < summary["safe"] < 1
    folder = started()[0].folder
    for name in ("pairs", "labelled"):
        written = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text().splitlines()]
        sides = Counter(row["held_out"] for row in written)
        assert (sides[False], sides[True]) == (summary[name], summary[f"held_out_{name}"])
    assert 24 < len(everything) <= 24 + 2 * sum(len(get_general(name).levels) for name in GENERAL)
