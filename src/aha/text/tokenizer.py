"""Byte-level BPE with digits one by one and DeepSeek-style control tokens.

Two ways in: `encode` for text of users and data, which can never produce a control token whatever it contains, and
`encode_markup` for this package's own templates and documents, where control tokens are meant.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from aha.errors import CheckpointError

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
CONTROL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT, THINK, END_THINK, ANSWER, END_ANSWER)
"""In id order from 0."""


class Tokenizer:
    """Text to token ids and back.

    Args:
        backend: a `tokenizers` tokenizer that knows all of `CONTROL_TOKENS`.
        chat_template: Jinja source saved beside it for other software; this package renders in `aha.text.templates`.
    """

    def __init__(self, backend: Backend, chat_template: str = "") -> None:
        missing = [token for token in CONTROL_TOKENS if backend.token_to_id(token) is None]
        if missing:
            raise CheckpointError(f"the tokenizer lacks the control tokens {missing}; train one with `Tokenizer.train`")
        self._markup = backend
        self._plain = Backend.from_str(backend.to_str())
        self._plain.encode_special_tokens = True
        self.chat_template = chat_template
        self.bos_id, self.eos_id, self.pad_id = (self.control_id(token) for token in (BOS, EOS, PAD))

    @classmethod
    def train(cls, documents: Iterable[str], vocab_size: int, chat_template: str = "") -> Tokenizer:
        """Trains a tokenizer; `vocab_size` counts the control tokens and the 256 bytes."""
        backend = Backend(models.BPE())
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        backend.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[AddedToken(token, special=True, normalized=False) for token in CONTROL_TOKENS],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        backend.train_from_iterator(documents, trainer)
        return cls(backend, chat_template)

    @property
    def vocab_size(self) -> int:
        """Number of token ids in use."""
        return int(self._markup.get_vocab_size())

    def control_id(self, token: str) -> int:
        """The id of a control token."""
        token_id = self._markup.token_to_id(token)
        assert token_id is not None, f"{token} is not a control token"
        return int(token_id)

    def encode(self, text: str) -> list[int]:
        """Encodes text of a user or a data set: no control token can come out."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_markup(self, text: str) -> list[int]:
        """Encodes text of our own in which control tokens stand for themselves."""
        return list(self._markup.encode(text, add_special_tokens=False).ids)

    def encode_markup_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode_markup` of many texts."""
        return [
            list(encoding.ids) for encoding in self._markup.encode_batch_fast(list(texts), add_special_tokens=False)
        ]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Decodes token ids; control tokens appear as their text, invalid bytes as U+FFFD."""
        return str(self._markup.decode(list(token_ids), skip_special_tokens=False))

    @functools.cached_property
    def token_bytes(self) -> tuple[bytes, ...]:
        """The bytes of each token, by id: joined and read as UTF-8 they are what `decode` returns.

        A single token may be a part of a character, so text that arrives token by token is put together from these.
        """
        count = max(self._markup.get_vocab(with_added_tokens=True).values()) + 1
        return tuple(_bytes_of(self._markup.id_to_token(token_id) or "") for token_id in range(count))

    def files(self) -> dict[str, str]:
        """The files by which this and other software load the tokenizer: name to content."""
        config = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "pad_token": PAD,
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1_000_000,
        }
        files = {
            "tokenizer.json": self._markup.to_str(pretty=True) + "\n",
            "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False) + "\n",
        }
        if self.chat_template:
            files["chat_template.jinja"] = self.chat_template
        return files

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Loads what `files` describes.

        Raises:
            CheckpointError: the folder has no readable tokenizer.json, or it lacks a control token.
        """
        path = folder / "tokenizer.json"
        try:
            backend = Backend.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; expected a model folder written by `aha run`") from None
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for a damaged file
            raise CheckpointError(f"{path} is damaged ({error}); restore it or train again") from None
        template = folder / "chat_template.jinja"
        return cls(backend, template.read_text(encoding="utf-8") if template.exists() else "")


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE's letters: printable bytes stand for themselves, the others for characters from U+0100 on."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    letters = {chr(byte): byte for byte in printable}
    return letters | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTES = _byte_alphabet()


def _bytes_of(token: str) -> bytes:
    """A token's bytes; a control token with letters outside of the alphabet is its own text."""
    if all(letter in _BYTES for letter in token):
        return bytes(_BYTES[letter] for letter in token)
    return token.encode()
