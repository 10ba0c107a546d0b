"""What a run folder says of the sizes of its models."""

import json
from pathlib import Path

import pytest

from aha.models.config.presets import preset
from aha.report.page import _parameters
from aha.report.reading import model_sizes


@pytest.mark.parametrize(
    ("name", "said"),
    [("v3", "671.0B params, 37.6B active"), ("qwen3-tiny", "0.44M parameters")],
)
def test_a_models_parameters_are_counted_from_its_configuration(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(preset(name).to_hf_dict()), encoding="utf-8")
    assert _parameters(model_sizes(tmp_path)) == [said]


def test_a_stage_without_a_model_of_ours_has_no_size(tmp_path: Path) -> None:
    assert model_sizes(tmp_path) == {} and _parameters({}) == []
    (tmp_path / "config.json").write_text('{"model_type": "mamba"}', encoding="utf-8")
    assert model_sizes(tmp_path) == {}
