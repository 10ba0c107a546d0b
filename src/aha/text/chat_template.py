"""A checkpoint's own chat template, rendered in a sandbox within limits of time, memory and length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aha.errors import CheckpointError
from aha.model_folder import read_model_json
from aha.workers import KillableWorker

SECONDS = 10.0
TEMPLATE, SETTINGS = "chat_template.jinja", "tokenizer_config.json"
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")


class ChatTemplate:
    """Conversations as the text that a model was trained to see.

    What somebody wrote in a conversation may spell control tokens, and the rendered text has them as they are: check
    it before it is encoded as markup.

    Args:
        source: Jinja.
        special: special tokens by name (`bos_token`, ...), which templates print.
        seconds: limit for one conversation; then the process is killed, and a new one starts for the next.
    """

    def __init__(self, source: str, special: Mapping[str, str] | None = None, seconds: float = SECONDS) -> None:
        self.source = source
        self.special = dict(special or {})
        self._worker = KillableWorker("aha.text.template_sandbox:render", seconds)

    @classmethod
    def load(cls, folder: Path) -> ChatTemplate | None:
        """The template of a checkpoint: `chat_template.jinja`, or the key of older `tokenizer_config.json`; or None.

        Raises:
            CheckpointError: a file is not readable.
        """
        settings = read_model_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
        source = settings.get("chat_template")
        if isinstance(source, list):  # several by name
            source = {entry["name"]: entry["template"] for entry in source}.get("default")
        if (folder / TEMPLATE).is_file():
            source = (folder / TEMPLATE).read_text(encoding="utf-8")
        if not source:
            return None
        tokens = {name: settings.get(name) for name in SPECIAL}
        texts = {name: token["content"] if isinstance(token, dict) else token for name, token in tokens.items()}
        return cls(str(source), {name: text for name, text in texts.items() if text is not None})

    def render(
        self, messages: Sequence[Mapping[str, Any]], add_generation_prompt: bool = True, **variables: Any
    ) -> str:
        """The text of a conversation.

        Args:
            messages: with `role` and `content`, and whatever else the template knows.
            add_generation_prompt: end where the assistant's next turn begins.
            variables: what the template asks for besides, such as `tools` or `enable_thinking`.

        Raises:
            CheckpointError: the template refuses the conversation, fails, takes too long, or makes too much; the
                message says which, in the template's own words where it refuses.
        """
        given = {
            **self.special,
            **variables,
            "messages": list(messages),
            "add_generation_prompt": add_generation_prompt,
        }
        (result,) = self._worker.grade([(self.source, given)])
        if result is None:
            raise CheckpointError(
                f"the chat template took more than {self._worker.seconds_per_item:g} s and was stopped: use another one"
            )
        if "refusal" in result:
            words = _printable(result["refusal"]) or "it does not say why"
            raise CheckpointError(f"the chat template refuses the conversation: {words}")
        if "error" in result:
            raise CheckpointError(f"the chat template cannot be used: {_printable(result['error'])}")
        return str(result["text"])

    def close(self) -> None:
        """Ends the process."""
        self._worker.close()

    def __enter__(self) -> ChatTemplate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _printable(words: str) -> str:
    """A stranger's words on one line, without characters that could steer a terminal."""
    return " ".join("".join(character if character.isprintable() else " " for character in words).split())
