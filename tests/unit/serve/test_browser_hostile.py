"""What models write stays text: no script runs, only known elements appear, nothing is asked of another server."""

from __future__ import annotations

from typing import Any

import pytest

from aha.serve.app import create_app
from aha.serve.config import ServeConfig
from aha.serve.served import ServedModel
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import END_THINK, Tokenizer

pytestmark = pytest.mark.slow

EVIL = "http://evil.example"
HOSTILE = [
    "<script>document.title='pwned'</script>",
    "<img src=x onerror=\"document.title='pwned'\">",
    f"<img src='{EVIL}/a.png'>",
    "<svg onload=\"document.title='pwned'\"><script>document.title='pwned'</script></svg>",
    f"<iframe src='{EVIL}'></iframe><object data='{EVIL}'></object><embed src='{EVIL}'>",
    "<a href=\"javascript:document.title='pwned'\">x</a>",
    "[x](javascript:document.title='pwned')",
    "[x](JaVaScRiPt:document.title='pwned')",
    "[x](data:text/html,<script>document.title='pwned'</script>)",
    "[x](vbscript:x) [y](file:///etc/passwd) [z](//evil.example/x)",
    f"![x]({EVIL}/b.png) ![x](<{EVIL}/c.png>)",
    f"[![x]({EVIL}/d.png)]({EVIL})",
    f"<{EVIL}/e>",
    f"[x]: {EVIL}/f.png\n![y][x]",
    f"<style>@import url({EVIL}/g.css);</style><link rel=stylesheet href={EVIL}/h.css>",
    f"<base href='{EVIL}'><meta http-equiv=refresh content='0;url={EVIL}'>",
    f"<form action='{EVIL}'><input autofocus onfocus=\"document.title='pwned'\"></form>",
    "<details open ontoggle=\"document.title='pwned'\">x</details>",
    "<math><mtext><img src=x onerror=\"document.title='pwned'\"></mtext></math>",
    r"$\text{<img src=x onerror=document.title='pwned'>}$ \(\href{javascript:document.title='pwned'}{x}\)",
    r"$$\begin{matrix}<script>document.title='pwned'</script>&1\\2&3\end{matrix}$$ $\unicode{0}$ $\require{html}$",
    "```html\n<script>document.title='pwned'</script>\n```\n`<b onclick=x>`",
    "```\"><script>document.title='pwned'</script>\nx\n```",
    "| <img src=x onerror=\"document.title='pwned'\"> | b |\n|---|---|\n| </td><script>x</script> | c |",
    "# <b>heading</b>\n> <i>quote</i>\n- <u>item</u>\n1. <s>one</s>",
    "</div></main><script>document.title='pwned'</script>",
    "{{constructor.constructor('document.title=1')()}} ${document.title='pwned'}",
    "\u202e<script>\u2066 \x00 &lt;script&gt; &#x3c;script&#x3e; %3Cscript%3E",
    "__proto__ constructor toString hasOwnProperty [constructor](https://example.com/constructor)",
    ">" * 900 + " deep",
    "$" * 300 + r"\[" * 300 + "**" * 300 + "[" * 300 + "`" * 300,
    r"$" + r"\frac{" * 200 + "1" + "}" * 200 + "$ $" + "{" * 500 + "$",
]
ALLOWED = {
    "a", "article", "b", "blockquote", "br", "button", "code", "details", "div", "em", "h3", "header", "hr", "li",
    "math", "mfrac", "mi", "mn", "mo", "mrow", "mspace", "msub", "msup", "mtable", "mtd", "mtext", "mtr", "ol", "p",
    "pre", "section", "span", "strong", "summary", "table", "tbody", "td", "th", "thead", "tr", "ul",
}  # fmt: skip


def test_model_output_runs_no_script_and_asks_no_other_server(
    chromium: Any, tokenizer: Tokenizer, listening: Any, scripted_generator: Any
) -> None:
    said = [tokenizer.encode(text) for text in HOSTILE]
    chosen: dict[str, list[int]] = {}

    def script(request: Any, index: int) -> list[int]:
        if request.request_id not in chosen:
            chosen[request.request_id] = said[len(chosen)]
        tokens = chosen[request.request_id]
        return [*tokens, tokenizer.control_id(END_THINK), *tokens, tokenizer.eos_id]

    model = ServedModel("m", tokenizer, scripted_generator(script, max_context=20_000), PromptStyle.named("chat"))
    with listening(create_app([model], ServeConfig(context_tokens=20_000))) as port:
        page = chromium.new_context().new_page()
        page.set_default_timeout(20_000)
        asked: list[str] = []
        faults: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append("dialog"))
        page.on("popup", lambda popup: faults.append("popup"))
        page.goto(f"http://127.0.0.1:{port}/")
        for number, text in enumerate(HOSTILE):
            page.fill("#question", text)  # a question is as hostile
            page.keyboard.press("Enter")
            turn = page.locator(".turn").nth(number)
            turn.locator('.answer[data-status="done"]').wait_for()
            if "$" not in text and "\\" not in text:  # where there is no formula, thinking is shown as it is
                assert turn.locator(".thought").text_content() == text.strip()
        names = page.locator("#turns *").evaluate_all("nodes => [...new Set(nodes.map(node => node.localName))]")
        assert set(names) <= ALLOWED, set(names) - ALLOWED
        attributes = page.locator("#turns *").evaluate_all(
            "nodes => [...new Set(nodes.flatMap(node => node.getAttributeNames()))]"
        )
        assert not {
            name for name in attributes if name.startswith("on") or name in ("src", "srcset", "action", "xlink:href")
        }
        links = page.locator("#turns a").evaluate_all("nodes => nodes.map(node => node.protocol)")
        assert links and set(links) <= {"http:", "https:"}
        assert page.title() == "aha" and not faults
        assert {url.split("/")[2] for url in asked} == {f"127.0.0.1:{port}"}
        page.reload()  # and what was kept is as harmless
        page.locator(".turn").nth(len(HOSTILE) - 1).wait_for()
        assert page.title() == "aha" and not faults
        page.context.close()


def test_the_policy_stops_what_a_fault_of_ours_would_let_in(
    chromium: Any, models: list[ServedModel], listening: Any
) -> None:
    with listening(create_app(models, ServeConfig())) as port:
        page = chromium.new_context().new_page()
        blocked: dict[str, str] = {}
        page.on("requestfailed", lambda request: blocked.update({request.url: request.failure}))
        page.goto(f"http://127.0.0.1:{port}/")
        page.locator(".family").first.wait_for()
        refused = """() => {
            const tries = [
              () => { document.body.innerHTML = "<p>x</p>"; },
              () => { document.createElement("script").text = "document.title = 'pwned'"; },
              () => { setTimeout("document.title = 'pwned'", 0); },
            ];
            return tries.map((attempt) => { try { attempt(); return false; } catch { return true; } });
        }"""
        assert page.evaluate(refused) == [True] * 3
        page.evaluate(f"() => {{ const i = new Image(); i.src = '{EVIL}/x.png'; fetch('{EVIL}/y').catch(() => 0); }}")
        page.wait_for_timeout(200)
        assert page.title() == "aha"
        assert blocked.pop(f"{EVIL}/x.png") == "csp" and set(blocked.values()) <= {"csp"}
        page.context.close()
