"""What is built: the wheel alone, in an environment of its own, runs; the source distribution has what it should."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("build", reason="build is not installed: install the extra dev")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of both distributions."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.slow
def test_the_distributions_hold_the_package_and_no_tests(built: Path) -> None:
    (wheel,), (source,) = built.glob("aha_r1-*.whl"), built.glob("aha_r1-*.tar.gz")
    files = zipfile.ZipFile(wheel).namelist()
    assert {"aha/cli/entry.py", "aha/serve/web/chat.html"} <= set(files)
    assert {name.split("/")[0] for name in files} == {"aha", next(n for n in files if "dist-info" in n).split("/")[0]}
    with tarfile.open(source) as archive:
        folders = {name.split("/")[1] for name in archive.getnames() if name.count("/") > 1}
    assert "src" in folders
    assert not folders & {"tests", "runs", ".git", ".venv"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_wheel_alone_runs_a_recipe_and_has_the_server(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("aha_r1-*.whl")
    place = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    python = place / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--constraint", ROOT / "constraints.txt"]
    subprocess.run([*pip, f"{wheel}[serve]"], check=True, cwd=tmp_path)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def aha(*arguments: str) -> str:
        command = [place / "bin" / "aha", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout

    assert "run" in aha("--help")
    assert "--port" in aha("serve", "--help")
    aha("run", "r1-zero-smoke", "--out", "run")
    assert (tmp_path / "run" / "summary.json").is_file()
    assert (tmp_path / "run" / "report.html").is_file()
