"""The graph of R1's recipe: who is trained on what, and names that lead nowhere are refused before anything starts."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from aha.cli import app
from aha.errors import ConfigError
from aha.recipes.recipe import identities
from aha.recipes.registry import resolve
from aha.stages.pretrain import PretrainConfig

RECIPES = ("r1-tiny", "r1-smoke", "r1-arms")


@pytest.mark.parametrize("name", RECIPES)
def test_every_graph_is_in_order_and_its_file_runs_again(name: str) -> None:
    config = resolve(name)
    assert len(identities(config)) == len(config.stages())
    assert type(config).model_validate(config.model_dump()) == config


@pytest.mark.parametrize("name", ["r1-tiny", "r1-smoke", "r1-arms", "r1-zero-arms"])
@pytest.mark.parametrize("overrides", [[], ["pretrain.steps=2000"]])
def test_a_printed_configuration_is_short_and_makes_the_same_stages(
    name: str, overrides: list[str], tmp_path: Path
) -> None:
    settings = [word for override in overrides for word in ("--set", override)]
    printed, everything = (
        CliRunner().invoke(app, ["run", name, *settings, option]).stdout
        for option in ("--print-config", "--print-config=all")
    )
    assert len(printed) < len(everything) / 2
    assert name != "r1-tiny" or len(printed.splitlines()) <= 150
    for text in (printed, everything):
        (tmp_path / "config.yaml").write_text(text, encoding="utf-8")
        assert identities(resolve(str(tmp_path / "config.yaml"))) == identities(resolve(name, overrides))


def test_what_is_printed_is_nothing_or_all() -> None:
    result = CliRunner().invoke(app, ["run", "r1-tiny", "--print-config=some"])
    assert isinstance(result.exception, ConfigError) and "--print-config=all" in str(result.exception)


def test_who_is_trained_on_what() -> None:
    parents = {spec.name: spec.parents for spec in resolve("r1-tiny").stages()}
    assert parents["dev1"] == ("pretrain", "cold-start-data"), "the cold start trains the base"
    assert parents["dev3"] == ("pretrain", "dev3-data", "general-data"), "the base again, not Dev2"
    assert parents["cold-start-data"] == ("r1-zero", "v3")
    assert parents["dev3-data"] == ("dev2", "v3")
    assert parents["r1"] == ("dev3", "helpful-rm", "harmless-rm")
    assert parents["qwen3"] == ("qwen3-base", "distillation-data", "general-data")
    assert parents["evaluation"] == ("pretrain", "v3", "r1-zero", "dev1", "dev2", "dev3", "r1", "qwen3", "llama")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("final_rl.general.helpful=helpful", "did you mean 'helpful-rm'"),
        ("sft.sources=[{stage: dev3-dat}]", "did you mean 'dev3-data'"),
        ("cold_start_data.assistant=v4", "no stage of that name before 'cold-start-data'"),
        ("preferences.judge=v5", "preferences.judge = 'v5': no stage of that name"),
        ("rejection_sampling.problems=gsm8k", "rejection_sampling.problems = 'gsm8k': no stage of that name"),
        ("helpful.data=preference", "did you mean 'preferences'"),
        ("harmless.data=v3-data", "harmless.data = 'v3-data': a stage of kind 'instructions'; expected 'preferences'"),
        ("final_rl.general.helpful=dev1", "helpful = 'dev1': a stage of kind 'sft'; expected 'reward_model'"),
        ("final_rl.general.helpful=harmless-rm", "the preference of that stage is 'harmless'; expected 'helpful'"),
        ("helpful.preference=harmless", "helpful = 'helpful-rm': the preference of that stage is 'harmless'; expected"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_at_once(override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        identities(resolve("r1-tiny", [override]))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("cold_start_data.levels=[0]", "cold_start_data.levels.0 = 0: levels are 1 to 14"),
        ("v3_data.levels=[15]", "v3_data.levels.0 = 15: levels are 1 to 14"),
        ("rejection_sampling.families=[boxes, writing]", "unknown reasoning family 'writing'"),
        ("evaluation.suites=[{stage: r1}]", "evaluation.suites: every model is asked in the form"),
    ],
)
@pytest.mark.parametrize("name", ["r1-tiny", "r1-arms", "r1-smoke"])
def test_what_would_fail_late_or_do_nothing_is_refused_at_once(name: str, override: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        resolve(name, [override])


def test_students_follow_the_teachers_web() -> None:
    before, after = identities(resolve("r1-tiny")), identities(resolve("r1-tiny", ["pretrain.corpus.mixed=0.1"]))
    assert before["qwen3-base"] != after["qwen3-base"]
    specs = {spec.name: spec.config for spec in resolve("r1-tiny").stages()}
    teacher, student = specs["pretrain"].model_dump(), specs["qwen3-base"].model_dump()
    assert {name for name in teacher if teacher[name] != student[name]} == {"model", "steps"}


def test_changing_a_late_setting_keeps_what_comes_before() -> None:
    before, after = identities(resolve("r1-tiny")), identities(resolve("r1-tiny", ["distillation.epochs=1"]))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"qwen3", "llama", "evaluation"}


def test_without_an_assistant_rules_alone_decide() -> None:
    config = resolve("r1-tiny", ["cold_start_data.assistant=''"])
    assert {spec.name: spec.parents for spec in config.stages()}["cold-start-data"] == ("r1-zero",)


def test_the_longer_student_differs_in_its_pretraining_alone() -> None:
    specs = {spec.name: spec for spec in resolve("r1-arms").stages()}
    base, longer = (specs[f"{name}-base"].config for name in ("qwen3", "qwen3-longer"))
    assert isinstance(base, PretrainConfig)
    assert longer == base.changed(steps=4 * base.steps)
    assert specs["qwen3-longer"].config == specs["qwen3"].config
    assert specs["qwen3-longer-rl"].config == specs["qwen3-rl"].config
    assert specs["qwen3-longer-rl"].parents[0] == "qwen3-longer-base"
    assert specs["evaluation-longer-base"].parents == ("qwen3-longer-base", "qwen3-longer", "qwen3-longer-rl")


def test_the_curves_are_an_arm_of_the_published_comparison() -> None:
    parents = {spec.name: spec.parents for spec in resolve("r1-arms").stages()}
    assert parents["scaling"] == ("pretrain", "r1-zero", "r1", "qwen3")
    without = {spec.name for spec in resolve("r1-arms", ["arms=[mini]"]).stages()}
    assert "scaling" not in without
    assert "qwen3-mini" in without
