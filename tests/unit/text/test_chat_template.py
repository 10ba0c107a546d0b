"""Chat templates: transformers' text for honest ones, and for hostile ones nothing but a refusal, in time."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from aha.errors import CheckpointError
from aha.text.chat_template import ChatTemplate
from aha.text.templates import CHAT_TEMPLATE
from aha.text.tokenizer import Tokenizer

MESSAGES = [
    {"role": "system", "content": "Be brief.\n"},
    {"role": "user", "content": "What is 2 < 3 & 'x'?\n  "},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nTrue."},
    {"role": "user", "content": "再说一遍"},
]
QWEN = """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- for tool in tools %}{{ tool | tojson }}{% endfor %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last=-1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if message.role == "user" and ns.last < 0 %}{%- set ns.last = index %}{% break %}{%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- '<|im_start|>assistant\\n' }}
        {%- generation %}{{- message.content.split('</think>')[-1].lstrip('\\n') }}{%- endgeneration %}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content|trim }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{{ ns.last }}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""
LLAMA = """{{- bos_token }}
{%- if not date_string is defined %}
    {%- if strftime_now is defined and false %}{%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- endif %}
{{- "Today: " + date_string + "\\n" }}
{%- for message in messages %}{{ message['role'] }}: {{ message['content'] }}{{ eos_token }}
{% endfor %}"""


@pytest.mark.parametrize("source", [QWEN, LLAMA, CHAT_TEMPLATE], ids=["qwen", "llama", "ours"])
@pytest.mark.parametrize("more", [{}, {"enable_thinking": False, "tools": [{"名": "<a>", "n": [1, None]}]}])
def test_honest_templates_give_the_text_of_transformers(source: str, more: dict[str, object], tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["2+2"] * 9, 280, source)
    for name, content in tokenizer.files().items():
        (tmp_path / name).write_text(content)
    theirs = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    template = ChatTemplate.load(tmp_path)
    assert template is not None
    with template:
        for prompt in (True, False):
            expected = theirs.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt, **more)
            assert template.render(MESSAGES, add_generation_prompt=prompt, **more) == expected


def test_where_templates_are_found(tmp_path: Path) -> None:
    assert ChatTemplate.load(tmp_path) is None
    special = {"bos_token": {"content": "<s>", "special": True}, "eos_token": None}
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D{{ bos_token }}"}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(special | {"chat_template": several}))
    loaded = ChatTemplate.load(tmp_path)
    assert loaded is not None
    with loaded as template:
        assert template.render([]) == "D<s>"
    (tmp_path / "chat_template.jinja").write_text("J")
    loaded = ChatTemplate.load(tmp_path)
    assert loaded is not None
    assert loaded.source == "J"


HOSTILE = {
    "classes": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "classes by filter": "{{ ((''|attr('__class__'))|attr('__mro__'))[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['__builtins__'] }}",
    "globals of namespace": "{{ namespace.__init__.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "lipsum": "{{ lipsum.__globals__['os'].system('touch CANARY') }}",
    "self": "{{ self._TemplateReference__context.environment }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(raise_exception) }}",
    "format_map": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "include": "{% include '/etc/passwd' %}",
    "import": "{% import '/etc/passwd' as p %}{{ p }}",
    "changes its input": "{{ messages.append(1) }}",
    "endless loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "long range": "{% for a in range(10**9) %}{% endfor %}",
    "endless recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "power": "{{ 9 ** (9 ** (9 ** 9)) }}",
    "product": "{{ ('x' * 10**11) | length }}",
    "padding": "{{ 'x'.center(10**11) }}",
    "format width": "{{ '%099999999999d' % 1 }}",
    "much output": "{% for a in range(99999) %}{{ 'x' * 9999 }}{% endfor %}",
    "one long output": "{{ 'x' * 200000000 }}",
    "long source": "{# " + "x" * 1_000_001 + " #}",
    "nested source": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "not Jinja": "{% for %}",
    "refuses": "{{ raise_exception('roles must alternate') }}",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[ChatTemplate]:
    """One process for all, with a short limit; it must survive or be replaced each time."""
    with ChatTemplate("", seconds=1.5) as template:
        yield template


@pytest.mark.parametrize("source", HOSTILE.values(), ids=HOSTILE.keys())
def test_hostile_templates_are_refused_and_the_next_one_is_served(
    source: str, worker: ChatTemplate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    worker.source = source
    with pytest.raises(CheckpointError, match=r"^the chat template (cannot be used|took more than|refuses)") as caught:
        worker.render(MESSAGES)
    assert "root:" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    worker.source = "{{ messages|length }}"
    assert worker.render(MESSAGES) == "4"


def test_threads_get_their_own_conversations_back() -> None:
    """A server renders for several clients at once: none may see another's prompt."""
    with ChatTemplate("{{ messages[0].content }}") as template:

        def render(number: int) -> bool:
            texts = [f"{number} {turn}" for turn in range(150)]
            return texts == [template.render([{"role": "user", "content": text}]) for text in texts]

        with ThreadPoolExecutor(6) as threads:
            assert all(threads.map(render, range(6)))
