"""Files and functions that can be read at once: at most 400 lines a file and 60 a function."""

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


def test_no_file_is_longer_than_400_lines() -> None:
    lengths = {path.relative_to(SOURCE).as_posix(): len(path.read_text().splitlines()) for path in SOURCE.rglob("*.py")}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_no_function_is_longer_than_60_lines() -> None:
    long = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}")
    assert long == []
