"""LaTeX and Markdown as the page draws them: the structure of what models write, and the source of what is unknown."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from aha.serve.app import create_app
from aha.serve.config import ServeConfig

pytestmark = pytest.mark.slow

OUTLINE = """(node) => {
  const outline = (one) => {
    if (one.nodeType === 3) return one.data;
    const inside = [...one.childNodes].map(outline).join("");
    return one.localName === "mrow" && !one.hasAttribute("class") ? inside : `<${one.localName}>${inside}</>`;
  };
  return [...node.childNodes].map(outline).join("");
}"""
FORMULAS = {
    r"\frac{a}{2}": "<mfrac><mi>a</><mn>2</></>",
    r"\dfrac12": "<mfrac><mn>1</><mn>2</></>",
    r"x^{2}_1": "<msubsup><mi>x</><mn>1</><mn>2</></>",
    r"\sqrt{x}+\sqrt[3]{8}": "<msqrt><mi>x</></><mo>+</><mroot><mn>8</><mn>3</></>",
    r"\boxed{42}": "<mrow><mn>42</></>",
    r"a \cdot b \le \pi": "<mi>a</><mo>⋅</><mi>b</><mo>≤</><mi>π</>",
    r"3.14-1": "<mn>3.14</><mo>−</><mn>1</>",
    r"\sum_{i=1}^n i": "<munderover><mo>∑</><mi>i</><mo>=</><mn>1</><mi>n</></><mi>i</>",
    r"\int_0^1 x": "<msubsup><mo>∫</><mn>0</><mn>1</></><mi>x</>",
    r"\text{if } x": "<mtext>if\u00a0</><mi>x</>",
    r"2^10": "<msup><mn>2</><mn>1</></><mn>0</>",
    r"\left(x\right)": "<mo>(</><mi>x</><mo>)</>",
    r"\begin{pmatrix}1&2\\3&4\end{pmatrix}": (
        "<mo>(</><mtable><mtr><mtd><mn>1</></><mtd><mn>2</></></><mtr><mtd><mn>3</></><mtd><mn>4</></></></><mo>)</>"
    ),
    r"f'(x)": "<msup><mi>f</><mo>′</></><mo>(</><mi>x</><mo>)</>",
    r"\{1,2\}": "<mo>{</><mn>1</><mo>,</><mn>2</><mo>}</>",
    r"\binom{5}{2}": "<mo>(</><mfrac><mn>5</><mn>2</></><mo>)</>",
    r"\vec{v}": "<mover><mi>v</><mo>→</></>",
}
UNKNOWN = [
    r"\constructor",
    r"\toString",
    r"\foo{1}",
    r"\frac{1}",
    r"\frac{1}{2",
    "x^",
    r"\left(x",
    r"\begin{tikz}\end{tikz}",
    "}",
    r"\href{a}{b}",
]
MARKDOWN = {
    "4*6*2 and 2*3": "<p>4*6*2 and 2*3</>",
    "*a* **b** `c*d*`": "<p><em>a</> <strong>b</> <code>c*d*</></>",
    "one\ntwo\n\nthree": "<p>one<br></>two</><p>three</>",
    "# T\n- a\n- b": "<h3>T</><ul><li>a</><li>b</></>",
    "3. a\n4. b": "<ol><li>a</><li>b</></>",
    "```py\nx = '<b>'\n```": "<pre><code>x = '<b>'</></>",
    "> a\n> > b": "<blockquote><p>a</><blockquote><p>b</></></>",
    "|a|b|\n|-|:-:|\n|1|2|": (
        "<div><table><thead><tr><th>a</><th>b</></></><tbody><tr><td>1</><td>2</></></></></>"
    ),
    "[x](https://example.com/a)": "<p><a>x</></>",
    "[x](javascript:1) ![y](https://e.com/i.png)": "<p>[x](javascript:1) ![y](https://e.com/i.png)</>",
    "costs $5 and $6": "<p>costs $5 and $6</>",
    "$x$ is": "<p><math><mi>x</></> is</>",
    r"\[x\]": "<p><math><mi>x</></></>",
    "$$\nx\n$$": "<p><math><mi>x</></></>",
    r"\boxed{7}": "<p><math><mrow><mn>7</></></></>",
    r"$\foo$": r"<p>$\foo$</>",
    "<b>x</b>": "<p><b>x</b></>",
}  # fmt: skip


@pytest.fixture(scope="module")
def drawn(chromium: Any, listening: Any) -> Iterator[Callable[[str, str], str]]:
    """Called with the name of a function of the page's scripts and a text: the outline of what it makes of it."""
    with listening(create_app([], ServeConfig())) as port:
        page = chromium.new_context().new_page()
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator(".family").first.wait_for()
        draw = f"""async ([name, text]) => {{
            const scripts = {{ ...(await import("/web/math.js")), ...(await import("/web/markdown.js")) }};
            const node = document.createElement("div");
            node.append(...[scripts[name](text)].flat());
            return ({OUTLINE})(node);
        }}"""
        yield lambda name, text: page.evaluate(draw, [name, text])
        page.context.close()


@pytest.mark.parametrize("source", FORMULAS)
def test_formulas(drawn: Callable[[str, str], str], source: str) -> None:
    assert drawn("math", source) == f"<math>{FORMULAS[source]}</>"


@pytest.mark.parametrize("source", UNKNOWN)
def test_what_is_unknown_is_refused_so_that_its_source_is_shown(drawn: Callable[[str, str], str], source: str) -> None:
    with pytest.raises(Exception, match=r"(?i)error"):
        drawn("math", source)
    assert source in drawn("markdown", rf"\({source}\)")


@pytest.mark.parametrize("text", MARKDOWN)
def test_markdown(drawn: Callable[[str, str], str], text: str) -> None:
    assert drawn("markdown", text) == MARKDOWN[text]
