"""docs/reference/paper_map.md names existing code and its tests, and covers every equation that the source cites."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CITATION = re.compile(r"\b(V3|R1) Eqs?\. (\d+)(?:-(\d+))?")


def numbers(text: str) -> set[tuple[str, int]]:
    return {
        (paper, number)
        for paper, first, last in CITATION.findall(text)
        for number in range(int(first), int(last or first) + 1)
    }


def test_every_cited_equation_is_mapped() -> None:
    table = (ROOT / "docs/reference/paper_map.md").read_text(encoding="utf-8")
    cited = set().union(*(numbers(path.read_text(encoding="utf-8")) for path in (ROOT / "src").rglob("*.py")))
    assert cited - numbers(table) == set()
    assert len(cited) > 20


def defined(source: str) -> set[str]:
    """Functions and classes of a module, and the methods of its classes as `Class.method`."""
    kinds = (ast.FunctionDef, ast.ClassDef)
    tops = [node for node in ast.parse(source).body if isinstance(node, kinds)]
    methods = {
        f"{top.name}.{node.name}"
        for top in tops
        if isinstance(top, ast.ClassDef)
        for node in top.body
        if isinstance(node, kinds)
    }
    return {top.name for top in tops} | methods


def rows() -> list[tuple[str, list[tuple[str, str]], str]]:
    """Each row's equations, its code as files and names, and its test."""
    table = (ROOT / "docs/reference/paper_map.md").read_text(encoding="utf-8")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines() if line[:1] == "|"]
    quoted = re.compile(r"`([^`:]+):([^`]+)`")
    return [(equation, quoted.findall(code), test.strip("`")) for equation, _, code, test in lines[2:]]


@pytest.mark.parametrize(("equation", "code", "test"), rows())
def test_every_row_points_at_code_that_is_there_and_at_a_test_of_it(
    equation: str, code: list[tuple[str, str]], test: str
) -> None:
    tested = (ROOT / test).read_text(encoding="utf-8")
    assert code
    for file, name in code:
        source = (ROOT / file).read_text(encoding="utf-8")
        assert name in defined(source), f"{file} defines no {name}"
        assert not numbers(equation) or numbers(equation) & numbers(source), f"{file} does not cite {equation}"
    named = any(re.search(rf"\b{name.rpartition('.')[2]}\b", tested) for _, name in code)
    assert named or numbers(equation) & numbers(tested), f"{test} mentions neither {code} nor {equation}"


def test_the_table_is_read() -> None:
    assert len(rows()) >= 12
