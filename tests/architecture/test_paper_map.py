"""docs/reference/paper_map.md names existing files, and covers every equation that the source cites."""

import re
from pathlib import Path

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


def test_every_row_points_at_files_and_its_code_cites_the_paper() -> None:
    rows = re.findall(
        r"^\| ((?:V3|R1) Eqs?\. [^|]+) \|[^|]+\| `([^`]+)` \| `([^`]+)` \|$",
        (ROOT / "docs/reference/paper_map.md").read_text(encoding="utf-8"),
        re.MULTILINE,
    )
    assert len(rows) >= 9
    for _, code, test in rows:
        assert (ROOT / code).is_file(), code
        assert (ROOT / test).is_file(), test
    for equation, code, _ in rows:
        if code != "src/aha/models/decode.py":
            assert numbers(equation) & numbers((ROOT / code).read_text(encoding="utf-8")), (equation, code)
