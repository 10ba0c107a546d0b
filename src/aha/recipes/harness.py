"""Models of ours in EleutherAI's lm-evaluation-harness (extra `eval`): its tasks, our engine.

    import lm_eval
    from aha.recipes.harness import HarnessModel
    lm_eval.simple_evaluate(model=HarnessModel("runs/r1-tiny-seed0/r1/model"), tasks=["arc_easy"])

Text of a task is encoded as text, so it cannot become a control token; only where the harness applies the chat template
(`apply_chat_template=True`) does markup stand for itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from aha.compute import ComputeConfig
from aha.configuration import build_config
from aha.errors import ConfigError
from aha.inference.engine import Engine
from aha.models.checkpoint.hf import load_pretrained
from aha.models.placement import placement
from aha.text.templates import start
from aha.text.tokenizer import Tokenizer
from aha.types import FinishReason, Request, SamplingParams

MOST_GENERATED = 256
"""Tokens where a task does not say how many; the harness' own default."""


class HarnessModel(LM):
    """A model folder, as the harness sees models.

    Args:
        folder: in Hugging Face layout.
        max_context: prompt and completion tokens of one request; longer prompts lose their beginning.
        rows: samples decoded at once.
        device: where to compute: auto, cpu or cuda.
        dtype: auto, float32 or bfloat16.
        seed: of sampled generation.
    """

    def __init__(
        self,
        folder: str | Path,
        max_context: int = 2048,
        rows: int = 32,
        device: str = "auto",
        dtype: str = "auto",
        seed: int = 0,
    ) -> None:
        super().__init__()
        self._folder = Path(folder)
        self._model = load_pretrained(
            self._folder, **placement(build_config(ComputeConfig, {"device": device, "dtype": dtype}))
        )
        self._tokenizer = Tokenizer.load(self._folder)
        self._engine = Engine(self._model, max_rows=rows, max_context=max_context)
        self._max_context, self._seed = max_context, seed
        self._templated = False

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        """For each (context, continuation): the continuation's log-probability, and whether greedy decoding says it."""
        pairs = [self._split(*request.args) for request in requests]
        scores = self._engine.score(pairs)
        asked = [
            Request(tuple(prompt), SamplingParams(temperature=0.0, max_completion_tokens=len(completion)))
            for prompt, completion in pairs
        ]
        greedy = [completions[0].token_ids for completions in self._engine.generate(asked)]
        return [
            (sum(score), said == tuple(completion))
            for score, said, (_, completion) in zip(scores, greedy, pairs, strict=True)
        ]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """The log-probability of whole texts, in windows that follow one another, each after one token of the last."""
        totals = []
        for request in requests:
            ids = [self._first(), *self._tokenizer.encode(request.args[0])]
            step = self._max_context - 1
            windows = [(ids[at : at + 1], ids[at + 1 : at + 1 + step]) for at in range(0, len(ids) - 1, step)]
            totals.append(sum(sum(score) for score in self._engine.score(windows)))
        return totals

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Completions, cut before the first of the texts that end them."""
        asked, ends = [], []
        for number, request in enumerate(requests):
            context, settings = request.args
            until = settings.get("until") or []
            ends.append([until] if isinstance(until, str) else list(until))
            prompt, room = self._fitting(context, int(settings.get("max_gen_toks", MOST_GENERATED)))
            sampling = SamplingParams(
                temperature=float(settings.get("temperature", 0.0)) if settings.get("do_sample", False) else 0.0,
                top_p=float(settings.get("top_p", 1.0)),
                max_completion_tokens=room,
                stop_token_ids=self._tokenizer.eos_ids,
                seed=self._seed + number,
            )
            asked.append(Request(tuple(prompt), sampling))
        texts = []
        for (completion,), stops in zip(self._engine.generate(asked), ends, strict=True):
            ended = completion.finish_reason is FinishReason.STOP
            text = self._tokenizer.decode(completion.token_ids[:-1] if ended else completion.token_ids)
            cut = min((text.find(stop) for stop in stops if stop and stop in text), default=len(text))
            texts.append(text[:cut])
        return texts

    @property
    def tokenizer_name(self) -> str:
        """Names the tokenizer in the harness' caches."""
        return str(self._folder).replace("/", "__")

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template's source, for the harness' record."""
        return self._tokenizer.template.source if chat_template and self._tokenizer.template is not None else ""

    def apply_chat_template(self, chat_history: list[dict[str, Any]], add_generation_prompt: bool = True) -> str:
        """A conversation as the model was trained to see it; from then on contexts are read as markup.

        Raises:
            ConfigError: the model has no template.
        """
        if self._tokenizer.template is None:
            raise ConfigError(f"{self._folder} has no chat template: leave apply_chat_template off")
        self._templated = True
        return self._tokenizer.template.render(chat_history, add_generation_prompt)

    def _first(self) -> int:
        """A token to start from: the beginning of a text, or its end, where there is no such token."""
        bos = self._tokenizer.bos_id
        return self._tokenizer.eos_id if bos is None else bos

    def _context(self, text: str) -> list[int]:
        if self._templated:
            return self._tokenizer.encode_markup(text)
        return [*start(self._tokenizer), *self._tokenizer.encode(text)]

    def _fitting(self, text: str, room: int) -> tuple[Sequence[int], int]:
        """A prompt and the tokens that may follow it. The prompt goes first, up to three quarters of the context."""
        ids = self._context(text) or [self._first()]
        left = max(self._max_context - len(ids), self._max_context // 4, 1)
        if room > left:
            warnings.warn(
                f"a prompt of {len(ids)} tokens and a completion of {room} do not fit max_context = "
                f"{self._max_context}: completions may be cut off at {left} tokens; raise max_context",
                stacklevel=2,
            )
        room = min(room, left)
        return ids[-(self._max_context - room) :], room

    def _split(self, context: str, continuation: str) -> tuple[Sequence[int], Sequence[int]]:
        """Prompt and completion ids: encoded together, and parted where the context alone ends, as the harness does."""
        spaces = len(context) - len(context.rstrip())
        if spaces:
            context, continuation = context[:-spaces], context[-spaces:] + continuation
        before = self._context(context)
        whole = self._context(context + continuation)
        completion = whole[len(before) :] or whole[-1:]
        prompt = whole[: len(whole) - len(completion)] or [self._first()]
        completion = completion[-(self._max_context - 1) :]
        return prompt[-(self._max_context - len(completion)) :], completion
