"""From what is typed after `aha run` to a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from aha.configuration import Config, Field, dump_config
from aha.errors import AhaError, ConfigError, UnknownNameError
from aha.recipes import registry
from aha.recipes.recipe import RecipeConfig


class Inner(Config):
    """A section."""

    size: int = Field(4, ge=1)


class Small(RecipeConfig):
    """A recipe."""

    inner: Inner = Inner()


def small() -> Small:
    """The small one.

    More about it.
    """
    return Small(recipe="small")


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("recipes_of_this_test")
    module.small = small  # type: ignore[attr-defined]
    module.broken = lambda: 3  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(registry, "RECIPES", {"small": "recipes_of_this_test:small"})
    monkeypatch.setattr(registry, "STAGES", {"known": "pathlib:Path"})


def test_a_name_with_overrides_and_seed() -> None:
    config = registry.resolve("small", ["inner.size=8", "seed=1"], seed=5)
    assert isinstance(config, Small)
    assert (config.inner.size, config.seed, config.recipe) == (8, 5, "small")


def test_a_reference_of_ones_own() -> None:
    config = registry.resolve("recipes_of_this_test:small")
    assert config.recipe == "recipes_of_this_test:small"
    assert config.run_name == "small-seed0"


def test_a_file_changes_what_it_names_and_gives_the_run_its_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("recipe: small\ninner: {size: 9}\n")
    config = registry.resolve(str(path), ["seed=2"])
    assert isinstance(config, Small)
    assert (config.inner.size, config.run_name) == (9, "mine-seed2")


def test_the_resolved_file_of_a_run_resolves_to_itself(tmp_path: Path) -> None:
    config = registry.resolve("small", ["inner.size=8"], seed=5)
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(config))
    assert registry.resolve(str(path)) == config


@pytest.mark.parametrize(
    ("what", "overrides", "expected"),
    [
        ("smal", [], r"unknown recipe 'smal' \(did you mean 'small'\?\); known: small"),
        ("no.such.module:x", [], "no module named 'no'"),
        ("recipes_of_this_test:x", [], "has no 'x'"),
        ("recipes_of_this_test:broken", [], "expected a function that returns a RecipeConfig"),
        ("none.yaml", [], "No such file"),
        ("small", ["inner.sise=1"], r"unknown key 'inner.sise' \(did you mean 'size'\?\)"),
        ("small", ["inner.size=0"], "inner.size = 0: must be greater than or equal to 1"),
        ("small", ["recipe=other"], "cannot be changed"),
        ("small", ["seed"], "expected a.b=value"),
    ],
)
def test_mistakes_are_named(what: str, overrides: list[str], expected: str) -> None:
    with pytest.raises(AhaError, match=expected):
        registry.resolve(what, overrides)


def test_a_file_without_a_recipe_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text("inner: {size: 9}\n")
    with pytest.raises(ConfigError, match=r"x\.yml: expected a line `recipe: NAME`; known recipes: small"):
        registry.resolve(str(path))


def test_kinds_of_stages_are_looked_up() -> None:
    assert registry.make_stage("known") == Path()
    assert registry.make_stage("pathlib:Path") == Path()
    with pytest.raises(UnknownNameError, match="unknown kind of stage 'nown'"):
        registry.make_stage("nown")


def test_recipes_are_described_by_their_first_line() -> None:
    assert registry.describe() == {"small": "The small one."}
