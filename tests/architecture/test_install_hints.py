"""Every `pip install` that a reader may type, in documents and in messages, installs what it promises."""

import re
import tomllib
from pathlib import Path

import pytest

from aha.environment import DISTRIBUTION, install_command

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "Makefile",
    *sorted((ROOT / "docs/guides").glob("*.md")),
]
REQUIREMENT = re.compile(r"(?P<name>[\w.-]*)\[(?P<extras>[\w,-]+)\]")


def test_the_distribution_has_a_name_of_its_own() -> None:
    assert PROJECT["name"] == DISTRIBUTION == "aha-r1"


def test_messages_leave_the_command_to_the_one_function() -> None:
    typed = [path for path in (ROOT / "src").rglob("*.py") if "pip install" in path.read_text()]
    assert [path.name for path in typed] == ["environment.py"]
    asked = {
        extra
        for path in (ROOT / "src").rglob("*.py")
        for extra in re.findall(r"install_command\(['\"](\w+)['\"]\)", path.read_text())
    }
    assert asked
    assert asked <= PROJECT["optional-dependencies"].keys()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_install_from_the_clone_or_under_our_name(path: Path) -> None:
    for line in path.read_text().splitlines():
        if "pip install" not in line:
            continue
        for found in REQUIREMENT.finditer(line):
            assert found["name"] in (".", DISTRIBUTION), f"{path.name}: {line.strip()}"
            assert set(found["extras"].split(",")) <= PROJECT["optional-dependencies"].keys(), line
        assert not re.search(r"install[^\n]*\s'?aha(['\s`]|$)", line), f"{path.name}: somebody else's package: {line}"


def test_the_command_of_a_clone_names_this_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    assert install_command("serve").endswith("-m pip install -c constraints.txt -e '.[serve]'")
    monkeypatch.chdir(tmp_path)
    assert f"-e '{ROOT}[serve]'" in install_command("serve")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert install_command("serve").startswith("uv pip install --python ")
