"""The structure that the documents promise: layers, docstrings, names, and what stays out of memory."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "aha"
MODULES = sorted(SOURCE.rglob("*.py"))
WITHOUT_TORCH = (
    "cli", "configuration", "environment", "errors", "files", "protocols", "runs", "types",
    "text", "grading", "rewards", "tasks", "test_time", "report", "serve",
    "evals.metrics", "evals.scaling", "evals.scaling_rows", "evals.growth", "evals.probe", "evals.probe_summary",
    "recipes.registry", "recipes.recipe", "recipes.run", "training.launch", "training.interrupts",
)  # fmt: skip


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")


def test_imports_point_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    finished = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout + finished.stderr


def test_the_layers_are_those_of_the_document() -> None:
    told = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8").split("```")[1]
    shown = [set(re.split(r" \| ", line.split("   ")[0])) for line in told.strip().splitlines()]
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    layers = next(one["layers"] for one in contracts["contracts"] if one["type"] == "layers")
    held = [{name.strip("()") for name in layer.split(" | ")} for layer in layers]
    there = {path.stem for path in SOURCE.iterdir()}
    assert shown == [layer & there for layer in held], "what is optional and not there is in no document"


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that one names anywhere: in functions and for type checkers too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports by a relative path"
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= (full & modules) or {str(node.module)}
    return (found & modules) - {dotted(path)}


def cycle(graph: dict[str, set[str]]) -> list[str]:
    """Modules that import one another in a circle, the first again at the end; none where there is no circle."""
    done: set[str] = set()

    def search(module: str, way: list[str]) -> list[str]:
        if module in way:
            return [*way[way.index(module) :], module]
        for other in sorted(graph[module] - done):
            if found := search(other, [*way, module]):
                return found
        done.add(module)
        return []

    return next((found for module in sorted(graph) if (found := search(module, []))), [])


def test_circles_are_found() -> None:
    assert cycle({"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set()}) == ["b", "c", "b"]
    assert cycle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_import_one_another_in_a_circle() -> None:
    modules = {dotted(path) for path in MODULES}
    graph = {dotted(path): imported(path, modules) for path in MODULES}
    assert sum(map(len, graph.values())) > 800
    assert " -> ".join(cycle(graph)) == ""


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{path} lacks a docstring"


def test_no_file_is_named_for_nothing_in_particular() -> None:
    names = {path.stem for folder in ("src", "tests", "bench", "experiments") for path in (ROOT / folder).rglob("*.py")}
    assert not names & {"utils", "util", "helpers", "helper", "common", "misc", "tools", "stuff"}


def test_no_work_is_left_as_a_note() -> None:
    pattern = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    assert not [dotted(path) for path in MODULES if pattern.search(path.read_text(encoding="utf-8"))]


def loaded_after(code: str) -> set[str]:
    """The top-level packages that a fresh interpreter holds after running some code."""
    report = "\nimport sys; print('LOADED', *{name.partition('.')[0] for name in sys.modules})"
    finished = subprocess.run([sys.executable, "-c", code + report], capture_output=True, text=True, check=True)
    return set(finished.stdout.partition("LOADED")[2].split())


def test_what_needs_no_torch_loads_none() -> None:
    names = [dotted(path) for path in MODULES]
    wanted = [
        name
        for name in names
        if any(name == f"aha.{part}" or name.startswith(f"aha.{part}.") for part in WITHOUT_TORCH)
    ]
    assert len(wanted) > 15
    assert not loaded_after("import " + ", ".join(wanted)) & {"torch", "transformers", "pandas"}


HEAVY = {"torch", "transformers", "matplotlib", "numpy", "yaml", "jinja2", "tokenizers"}


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["--version"], *([verb, "--help"] for verb in ("run", "report", "grade", "scale", "serve"))],
)
def test_help_loads_only_the_command_line(arguments: list[str]) -> None:
    command = f"import sys; sys.argv = ['aha', *{arguments!r}]; import aha.cli"
    loaded = loaded_after(f"{command}\ntry: aha.cli.main()\nexcept SystemExit: pass")
    assert "typer" in loaded
    assert not loaded & HEAVY


def test_configurations_are_copied_through_validation() -> None:
    """`Config.changed` validates; pydantic's own copy does not."""
    assert not [path for path in MODULES if "model_copy(" in path.read_text(encoding="utf-8")]
