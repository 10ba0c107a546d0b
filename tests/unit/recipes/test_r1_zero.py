"""The R1-Zero recipes: the graph of the arms, and what each arm changes."""

import pytest

from aha.errors import ConfigError
from aha.recipes.r1_zero_arms import ARMS, DENSE, r1_zero_arms
from aha.recipes.recipe import identities
from aha.recipes.registry import resolve


def test_every_arm_differs_from_the_main_one_in_one_thing() -> None:
    stages = {spec.name: spec for spec in r1_zero_arms().stages()}
    main, base = stages["r1-zero"].config.model_dump(), stages["pretrain"].config.model_dump()
    changed = {
        "random-reward": {"rubric"},
        "format-only": {"rubric"},
        "together": {"loss"},
        "no-easy": {"prompts"},
        "fixed-cap": {"sampling"},
        "short-pays": {"prompts"},
        "bias-off": {"loss"},
    }
    for arm, keys in changed.items():
        other = stages[arm].config.model_dump()
        # Where the form, or a short answer, is all that pays, there comes a step from which no group has a signal.
        assert {name for name in main if main[name] != other[name]} - {"patience"} == keys
        assert stages[arm].parents == ("pretrain",)
    corpora = {"corpus", "first_corpus"}
    bases = {
        "no-long": corpora,
        "mistakes-only": corpora,
        "no-state": corpora,
        "no-gaps": {"position_gaps"},
        "large-steps": {"rows_per_step", "steps"},
        "dense": {"model"},
    }
    for arm, keys in bases.items():
        other = stages[f"pretrain-{arm}"].config.model_dump()
        assert {name for name in base if base[name] != other[name]} == keys
        if arm != "dense":
            assert stages[arm].config == stages["r1-zero"].config
            assert stages[f"thinking-{arm}"].parents == (f"pretrain-{arm}", arm)
    assert changed.keys() | bases.keys() == set(ARMS)


def test_large_steps_read_as_many_tokens() -> None:
    stages = {spec.name: spec.config.model_dump() for spec in r1_zero_arms().stages()}
    small, large = (stages[name] for name in ("pretrain", "pretrain-large-steps"))
    tokens = [one["rows_per_step"] * one["row_tokens"] * one["steps"] for one in (small, large)]
    assert tokens[1] == pytest.approx(tokens[0], rel=0.01)


def test_the_dense_arm_has_as_many_active_parameters() -> None:
    from aha.models.config.parameter_count import describe
    from aha.models.config.presets import tiny

    experts, dense = describe(tiny(640)), describe(tiny(640, **DENSE))
    assert dense.active_parameters == pytest.approx(experts.active_parameters, rel=0.01)
    assert experts.total_parameters > 2 * dense.total_parameters


def test_adding_an_arm_redoes_nothing() -> None:
    few = identities(resolve("r1-zero-arms", ["arms=[]"]))
    many = identities(resolve("r1-zero-arms"))
    assert few.items() <= many.items()
    assert identities(resolve("r1-zero-tiny")) == few, "the main recipe's run is the arms' first part"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "evaluation.suites=[{stage: pretrain}, {stage: r1zero}]",
            r"evaluation.suites.1.stage = 'r1zero': no stage of that name before 'evaluation' \(did you mean 'r1-zero'",
        ),
        ("evaluation.problems=[stored]", "evaluation.problems.0 = 'stored': no stage of that name"),
        (
            "rl.prompts.stage=evaluation",
            "rl.prompts.stage = 'evaluation': no stage of that name before 'r1-zero'; there are: pretr",
        ),
        (
            "rl.general={helpful: helpful-rm, harmless: harmless-rm}",
            "rl.general.helpful = 'helpful-rm': no stage of that name",
        ),
        (
            "rl.general={helpful: pretrain, harmless: harmless-rm}",
            "rl.general.helpful = 'pretrain': a stage of kind 'pretrain'; expected 'reward_model'",
        ),
    ],
)
def test_settings_that_name_no_stage_are_refused_before_anything_starts(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        identities(resolve("r1-zero-tiny", [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "rl.prompts.families=[boxes, summs]",
            "^rl.prompts.families.1 = 'summs': unknown reasoning family 'summs' ",
        ),
        ("rl.prompts.families=[facts]", "known: boxes, cups, program, pulses, rules, sums$"),
        ("pretrain.corpus.families=[facts]", "^pretrain.corpus.families.0 = 'facts': unknown reasoning family"),
        ("evaluation.general=[boxes]", "^evaluation.general.0 = 'boxes': unknown general family 'boxes'"),
        ("evaluation.levels=[15]", "^evaluation.levels.0 = 15: levels are 1 to 14"),
    ],
)
def test_a_wrong_family_is_named_with_its_setting_and_what_may_stand_there(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve("r1-zero-tiny", [override])


def test_an_unknown_arm_is_refused() -> None:
    with pytest.raises(ConfigError, match="arms"):
        resolve("r1-zero-arms", ["arms=[foo]"])


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("pretrain.model.preset=tiy", "did you mean 'tiny'"),
        ("pretrain.model.changes={n_group: 7}", "n_group must divide"),
        ("pretrain.model.changes={heads: 7}", "unknown field 'heads'"),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_before_anything_is_touched(setting: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve("r1-zero-tiny", [setting])
