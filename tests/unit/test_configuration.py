"""Configuration: YAML and overrides in, one-line messages out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import pytest
from pydantic import model_validator

from aha.configuration import (
    Config,
    Field,
    StageName,
    apply_overrides,
    build_config,
    changed_settings,
    dump_config,
    load_config,
    merge,
    named_stages,
    override_config,
    parse_override,
    read_yaml,
)
from aha.errors import ConfigError


class Optimizer(Config):
    """A section."""

    lr: float = Field(1e-3, gt=0, le=1, description="Peak learning rate.")
    kind: Literal["adamw", "muon"] = "adamw"


class Phase(Config):
    """An element of a list."""

    steps: int = Field(ge=1)


class Job(Config):
    """A whole job."""

    name: str = "job"
    optimizer: Optimizer = Optimizer()
    phases: tuple[Phase, ...] = (Phase(steps=1), Phase(steps=2))
    arms: dict[str, Optimizer] = {}
    weights: dict[str, float] = {"accuracy": 1.0, "format": 0.5}
    limit: int | None = None


def message(data: dict) -> str:
    with pytest.raises(ConfigError) as caught:
        build_config(Job, data)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_changed_copy_is_validated_and_the_original_stays() -> None:
    job = Job()
    changed = job.changed(limit=3, optimizer=job.optimizer.changed(lr=0.5))
    assert (changed.limit, changed.optimizer.lr, changed.phases) == (3, 0.5, job.phases)
    assert job == Job()
    with pytest.raises(ConfigError, match=r"unknown key 'limmit' \(did you mean 'limit'\?\)"):
        job.changed(limmit=3)
    with pytest.raises(ConfigError, match=r"lr = -1\.0: must be greater than 0"):
        job.optimizer.changed(lr=-1.0)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["optimizer.lr=0.001"],
        ["optimizer.kind=adamw", "limit=null"],
        ["phases=[{steps: 1}, {steps: 2}]", "weights={}"],
        ["arms={a: {lr: 0.001}}", "name=job"],
    ],
)
def test_the_changed_settings_make_the_configuration_again(overrides: list[str]) -> None:
    """Also where a setting was put back to its class's default, away from what the recipe has."""
    start = Job(optimizer=Optimizer(lr=0.2, kind="muon"), phases=(Phase(steps=9),), limit=7, name="start")
    config = override_config(start, {}, overrides)
    changed = changed_settings(config, start)
    assert override_config(start, changed) == config
    assert changed_settings(Job(), None) == {}
    assert "weights" not in changed_settings(start, start)


def test_unknown_keys_name_the_path_and_the_nearest_spelling() -> None:
    assert "unknown key 'optimiser' (did you mean 'optimizer'?)" in message({"optimiser": {}})
    assert message({"optimizer": {"lrr": 1}}) == (
        "unknown key 'optimizer.lrr' (did you mean 'lr'?); known keys: lr, kind"
    )
    assert "unknown key 'phases.1.step' (did you mean 'steps'?)" in message({"phases": [{"steps": 1}, {"step": 2}]})
    assert "unknown key 'arms.a.kinds' (did you mean 'kind'?)" in message({"arms": {"a": {"kinds": 1}}})


def test_bounds_name_field_bound_and_value() -> None:
    assert message({"optimizer": {"lr": 0}}) == "optimizer.lr = 0: must be greater than 0"
    assert message({"phases": [{"steps": 0}]}) == "phases.0.steps = 0: must be greater than or equal to 1"
    assert "optimizer.kind = 'sgd': must be 'adamw' or 'muon'" in message({"optimizer": {"kind": "sgd"}})
    assert "phases.0.steps is missing" in message({"phases": [{}]})
    assert "optimizer.lr = nan: must be a finite number" in message({"optimizer": {"lr": float("nan")}})


class Suite(Config):
    """What is asked."""

    stage: StageName = ""
    words: str = "stage"


class Reads(Config):
    """Settings that name stages in every way."""

    judge: StageName
    against: tuple[StageName, ...] = ()
    suites: tuple[Suite, ...] = ()
    one: Suite | None = None
    words: tuple[str, ...] = ("no stage",)


def test_the_stages_that_settings_name() -> None:
    config = Reads(judge="v3", against=("a", "b"), suites=(Suite(), Suite(stage="c")), one=Suite(stage="d"))
    assert [(stage.path, stage.name) for stage in named_stages(config, "top")] == [
        ("top.judge", "v3"),
        ("top.against.0", "a"),
        ("top.against.1", "b"),
        ("top.suites.1.stage", "c"),
        ("top.one.stage", "d"),
    ]
    assert list(named_stages(Reads(judge=""))) == []


class Window(Config):
    """Settings that must go together."""

    low: int = 0
    high: int = 1

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low = {self.low} is above high = {self.high}")
        return self


class Framed(Config):
    """With a section of that kind."""

    window: Window = Window()


def test_a_section_whose_settings_do_not_go_together_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^window: low = 2 is above high = 1$"):
        build_config(Framed, {"window": {"low": 2}})


def test_all_faults_are_in_one_line() -> None:
    text = message({"nam": 1, "optimizer": {"lr": 7}})
    assert "'nam'" in text
    assert "optimizer.lr = 7" in text


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("a=1", ("a",), 1),
        ("a.b=1e-4", ("a", "b"), 1e-4),
        ("a.b=-2E3", ("a", "b"), -2000.0),
        ("a=true", ("a",), True),
        ("a=null", ("a",), None),
        ("a=", ("a",), None),
        ("a=[1, x]", ("a",), [1, "x"]),
        ("a={x: 1}", ("a",), {"x": 1}),
        ("a=b=c", ("a",), "b=c"),
        ("a=1e", ("a",), "1e"),
    ],
)
def test_overrides_are_read_as_yaml(text: str, path: tuple[str, ...], value: object) -> None:
    assert parse_override(text) == (path, value)


@pytest.mark.parametrize("text", ["a", "=1", "a..b=1", ".a=1", "a=[1", "a={x: 1, x: 2}"])
def test_malformed_overrides_say_so(text: str) -> None:
    with pytest.raises(ConfigError, match="--set"):
        parse_override(text)


def test_overrides_enter_sections_and_lists_and_leave_the_original_alone() -> None:
    data = {"a": {"b": [1, {"c": 2}]}}
    assert apply_overrides(data, ["a.b.1.c=3", "a.b.0=9", "x.y=1"]) == {"a": {"b": [9, {"c": 3}]}, "x": {"y": 1}}
    assert data == {"a": {"b": [1, {"c": 2}]}}
    for bad in ("a.b.2=1", "a.b.x=1", "a.b.0.z=1"):
        with pytest.raises(ConfigError, match=r"a\.b"):
            apply_overrides(data, [bad])


def test_merge_goes_into_sections_and_replaces_the_rest() -> None:
    merged = merge(Job(), {"optimizer": {"lr": 0.1}, "weights": {"accuracy": 2.0}})
    job = build_config(Job, merged)
    assert job.optimizer == Optimizer(lr=0.1)
    assert job.weights == {"accuracy": 2.0}
    assert merge(Job(), {"optimizer": {"kind": "muon"}})["optimizer"] == {"kind": "muon"}


def test_override_config_applies_settings_then_overrides() -> None:
    job = override_config(Job(), {"optimizer": {"lr": 0.1}}, ["optimizer.lr=0.2", "weights.format=0", "limit=3"])
    assert job.optimizer.lr == 0.2
    assert job.weights == {"accuracy": 1.0, "format": 0.0}
    assert job.limit == 3


def test_the_resolved_file_reads_back_to_the_same_values_and_bytes(tmp_path: Path) -> None:
    job = override_config(Job(), {}, ["optimizer.lr=3e-5", "name=三", "arms={x: {lr: 0.5}}"])
    path = tmp_path / "config.yaml"
    path.write_text(dump_config(job))
    assert load_config(Job, path) == job
    assert dump_config(load_config(Job, path)) == dump_config(job)
    assert load_config(Job, path, ["limit=4"]).limit == 4


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    with pytest.raises(ConfigError, match=r"bad\.yaml.*No such file"):
        read_yaml(path)
    for text, expected in [
        ("a: [1", "not valid YAML: line"),
        ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
        ("- 1", "expected a mapping"),
        ("", "found nothing"),
        ("!!python/object/apply:os.system [true]", "not valid YAML"),
    ]:
        path.write_text(text)
        with pytest.raises(ConfigError, match=expected):
            read_yaml(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_yaml(path)
    path.write_text("optimizer: {lr: 5}")
    with pytest.raises(ConfigError, match=r"bad\.yaml: optimizer\.lr = 5: must be less than or equal to 1"):
        load_config(Job, path)


def test_a_list_with_a_wrong_item_is_not_called_too_short_as_well() -> None:
    class Asked(Config):
        ways: tuple[Literal["a", "b"], ...] = Field(("a",), min_length=1, description="ways")

    with pytest.raises(ConfigError) as caught:
        build_config(Asked, {"ways": ["c"]})
    assert "ways.0 = 'c'" in str(caught.value) and ";" not in str(caught.value)
    with pytest.raises(ConfigError, match="ways = a list"):
        build_config(Asked, {"ways": []})
