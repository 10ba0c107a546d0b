"""Byte-level BPE with digits one by one and DeepSeek-style control tokens.

Two ways in: `encode` for text of users and data, which can never produce a control token whatever it contains, and
`encode_markup` for this package's own templates and documents, where control tokens are meant.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from aha.errors import CheckpointError
from aha.model_folder import TEXT_FILES, read_model_json
from aha.text.chat_template import ChatTemplate

BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
PAD = "<｜▁pad▁｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
CONTROL_TOKENS = (BOS, EOS, PAD, USER, ASSISTANT, THINK, END_THINK, ANSWER, END_ANSWER)
"""In id order from 0."""


TAGS = (THINK, END_THINK, ANSWER, END_ANSWER)
"""What a completion may hold; the other control tokens stand in prompts, or end a completion."""


class Tokenizer:
    """Text to token ids and back: our own tokenizer, or that of a checkpoint of somebody else's.

    Args:
        backend: a `tokenizers` tokenizer.
        template: the chat template. Ours is there for other software only: with our own control tokens, this package
            renders in `aha.text.templates`.
        bos: the token that starts a text, if there is one.
        eos: the tokens that end a completion; the first of them ends the texts that are trained on.
        files: the files that the tokenizer was loaded from, to be written again as they are; none makes new ones.

    Raises:
        CheckpointError: a token of these is not in the vocabulary.
    """

    def __init__(
        self,
        backend: Backend,
        template: ChatTemplate | None = None,
        bos: str | None = BOS,
        eos: Sequence[str] = (EOS,),
        files: Mapping[str, str] | None = None,
    ) -> None:
        self._markup = backend
        self._plain = _without_control(backend)
        self._files = files
        self.template = template
        self.bos_id = None if bos is None else self.control_id(bos)
        self.eos_ids = tuple(self.control_id(token) for token in eos)
        self.eos_id = self.eos_ids[0]

    @property
    def is_own(self) -> bool:
        """Whether it has this package's control tokens, and with them DeepSeek-R1's chat format."""
        return all(self._markup.token_to_id(token) is not None for token in CONTROL_TOKENS)

    @functools.cached_property
    def control_tokens(self) -> Mapping[str, int]:
        """All tokens that no text of a user becomes, by text."""
        return {token.content: token_id for token_id, token in sorted(self._markup.get_added_tokens_decoder().items())}

    @functools.cached_property
    def boundary_ids(self) -> tuple[int, ...]:
        """The control tokens that no completion goes on after: those that end it or stand in prompts only."""
        special = {id_ for id_, token in self._markup.get_added_tokens_decoder().items() if token.special}
        tags = {self.control_tokens[tag] for tag in TAGS if tag in self.control_tokens}
        return tuple(dict.fromkeys((*self.eos_ids, *sorted(special - tags))))

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
        return cls(backend, ChatTemplate(chat_template) if chat_template else None)

    @property
    def vocab_size(self) -> int:
        """Number of token ids in use."""
        return int(self._markup.get_vocab_size())

    def control_id(self, token: str) -> int:
        """The id of a control token.

        Raises:
            CheckpointError: the vocabulary does not have it.
        """
        token_id = self._markup.token_to_id(token)
        if token_id is None:
            raise CheckpointError(f"the tokenizer has no token {token!r}, which is needed here")
        return int(token_id)

    def encode(self, text: str) -> list[int]:
        """Encodes text of a user or a data set: no control token can come out."""
        return list(self._plain.encode(text, add_special_tokens=False).ids)

    def encode_markup(self, text: str) -> list[int]:
        """Encodes text of our own in which control tokens stand for themselves."""
        return list(self._markup.encode(text, add_special_tokens=False).ids)

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
        if self._files is not None:
            return dict(self._files)
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
        if self.template is not None:
            files["chat_template.jinja"] = self.template.source
        return files

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Loads a model folder's tokenizer: what `files` wrote, or that of any checkpoint with a tokenizer.json.

        Raises:
            CheckpointError: the folder has no readable tokenizer.json, it is SentencePiece's, or nothing says what ends
                a text.
        """
        path = folder / "tokenizer.json"
        try:
            backend = Backend.from_str(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; expected a model folder in Hugging Face layout") from None
        except Exception as error:  # noqa: BLE001 - the library raises bare Exception for a damaged file
            raise CheckpointError(f"{path} is damaged ({error}); restore it or train again") from None
        model = json.loads(backend.to_str())["model"]
        if model.get("byte_fallback") or model.get("type") == "Unigram":
            raise CheckpointError(
                f"{path} is of SentencePiece's kind; expected byte-level BPE, as DeepSeek, Qwen and Llama 3 have it"
            )
        files = {name: (folder / name).read_text(encoding="utf-8") for name in TEXT_FILES if (folder / name).is_file()}
        settings = folder / "tokenizer_config.json"
        config = read_model_json(settings) if settings.is_file() else {}
        bos = _token_text(config.get("bos_token")) if config.get("add_bos_token", True) else None
        return cls(backend, ChatTemplate.load(folder), bos, _ends(folder, config, backend), files)


def _without_control(backend: Backend) -> Backend:
    """The same tokenizer for text in which no token is more than text, not even one that is merely "added"."""
    data = json.loads(backend.to_str())
    for token in data.get("added_tokens", ()):
        token["special"] = True
    plain = Backend.from_str(json.dumps(data))
    plain.encode_special_tokens = True
    return plain


def _token_text(token: Any) -> str | None:
    """A token as configurations name it: its text, or an object with it, or nothing."""
    text = token.get("content") if isinstance(token, dict) else token
    return text if isinstance(text, str) else None


def _ends(folder: Path, config: Mapping[str, Any], backend: Backend) -> tuple[str, ...]:
    """The tokens that end a completion: the tokenizer's own first, then those of the generation settings."""
    ends = [_token_text(config.get("eos_token"))]
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        if path.is_file():
            ids = read_model_json(path).get("eos_token_id")
            ends += [backend.id_to_token(one) for one in (ids if isinstance(ids, list) else [ids]) if one is not None]
    found = tuple(dict.fromkeys(token for token in ends if token))
    if not found:
        raise CheckpointError(
            f"{folder}: neither tokenizer_config.json (eos_token) nor generation_config.json (eos_token_id) says what "
            "ends a text"
        )
    return found


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
