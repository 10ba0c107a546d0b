"""The built-in engine: continuous batching over the rows of a cache, for any `LanguageModel`.

The life of a request: `add` queues its n samples; `step` admits waiting samples to free cache rows (one prefill per
prompt, its cache entries copied to the sibling rows), decodes one token for every running row, and retires the finished
ones, so that others can enter. Rows in use are contiguous. What a sample draws depends on (seed, sample number,
position) alone. With speculation a step verifies drafts and makes up to one token more than was drafted, the same ones:
see `speculation.py`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from aha.errors import GenerationError
from aha.inference.decoding.cache import DraftCache, RowCache
from aha.inference.runner import Runner
from aha.inference.sampler import RowSettings, reported_temperature, sample, uniforms
from aha.inference.scheduler import Sample, Scheduler
from aha.inference.speculation import DraftCounts, check_speculation, window_ids, with_forced
from aha.models.language_model import LanguageModel
from aha.models.layouts import Ragged
from aha.types import Completion, Request

SCORE_TOKENS = 16_384
"""Tokens scored in one forward pass."""


class Engine:
    """Generates with a model; implements `protocols.Generator` and, step by step, `protocols.BatchGenerator`.

    Args:
        model: may be shared with a trainer that changes it in place between calls.
        max_rows: samples decoded at once.
        max_context: prompt and completion tokens of one sample, at most.
        weights_version: of the weights the model holds now.
        speculative_tokens: tokens drafted in a step, at most the model's prediction modules; 0 decodes plainly.

    Attributes:
        drafts: how many drafted tokens were accepted.

    Raises:
        GenerationError: the model cannot draft so many tokens.
    """

    def __init__(
        self,
        model: LanguageModel,
        max_rows: int = 256,
        max_context: int = 512,
        weights_version: int = 0,
        speculative_tokens: int = 0,
    ) -> None:
        check_speculation(model, speculative_tokens)
        self.model, self.runner = model, Runner(model)
        self.speculative_tokens = speculative_tokens
        self.drafts = DraftCounts()
        self.max_rows = max_rows
        self.max_context = max_context
        self._version = weights_version
        self._scheduler = Scheduler(max_rows)
        self._cache: RowCache | None = None
        self._settings: RowSettings | None = None
        self._tickets = itertools.count()

    @property
    def weights_version(self) -> int:
        """The version of the weights in use."""
        return self._version

    @torch.no_grad()
    def load_weights(self, weights: Mapping[str, Tensor], version: int) -> None:
        """Takes weights, the routers' biases included; tensors that are the model's own already are not copied.

        Raises:
            GenerationError: while requests are running, or where names or shapes are not the model's.
        """
        if self._scheduler.running or self._scheduler.waiting:
            raise GenerationError("weights cannot change while requests are running; wait for them or cancel them")
        own = self.model.state_dict()
        if own.keys() != weights.keys():
            odd = sorted(own.keys() ^ weights.keys())
            raise GenerationError(f"weights do not fit the model: {len(odd)} names differ, such as {odd[0]!r}")
        for name, tensor in own.items():
            if tensor.shape != weights[name].shape:
                raise GenerationError(f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}")
            if tensor.data_ptr() != weights[name].data_ptr():
                tensor.copy_(weights[name])
        self._version = version

    def add(self, request: Request) -> list[Sample]:
        """Queues a request; its samples fill up as `step` is called.

        Raises:
            GenerationError: an empty prompt, or more tokens than the engine's context.
        """
        length, sampling = len(request.prompt_token_ids), request.sampling
        if length == 0:
            raise GenerationError("the prompt is empty; it needs at least one token")
        if sampling.n < 1 or sampling.max_completion_tokens < 1:
            raise GenerationError(
                f"n={sampling.n} and max_completion_tokens={sampling.max_completion_tokens}: both must be at least 1"
            )
        if length + sampling.max_completion_tokens > self.max_context:
            raise GenerationError(
                f"{length} prompt tokens and max_completion_tokens={sampling.max_completion_tokens} exceed the "
                "context of "
                f"{self.max_context}; shorten one of them or raise the engine's max_context"
            )
        return self._scheduler.add(next(self._tickets), request)

    def cancel(self, request_id: str) -> None:
        """Ends a request; its samples keep what they have."""
        self._scheduler.cancel(request_id)

    @torch.inference_mode()
    def step(self) -> bool:
        """Advances every running sample by at least one token; returns whether there is anything left to do."""
        cache = self._ensure_cache()
        scheduler = self._scheduler
        changed = self._retire(cache)
        groups = scheduler.admit()
        if groups:
            self._prefill(groups, cache)
            changed = self._retire(cache) or changed
        if scheduler.running:
            if changed or self._settings is None:
                self._settings = None
            if self.speculative_tokens:
                self._speculate(scheduler.running, cache)
            else:
                last = torch.tensor([item.last for item in scheduler.running], device=cache.device)
                if self._take(scheduler.running, *self._decode(last, cache)):
                    _forget(scheduler.running, 0, cache)
            self._retire(cache)
        return bool(scheduler.running or scheduler.waiting)

    def _ensure_cache(self) -> RowCache:
        if self._cache is None:
            self._cache = self.runner.new_cache(self.max_rows, self.max_context, self.speculative_tokens)
        return self._cache

    def _prefill(self, groups: list[list[Sample]], cache: RowCache) -> None:
        """Fills the cache for newly admitted samples and draws their first tokens."""
        row = first_row = len(self._scheduler.running) - sum(map(len, groups))
        prompts, rows, siblings = [], [], []
        for group in groups:
            prompts.append(list(group[0].request.prompt_token_ids))
            rows.append(row)
            siblings.append(list(range(row + 1, row + len(group))))
            row += len(group)
        with self._watched_experts([group[0] for group in groups]) as chosen:
            logits_PV = self.runner.prefill(prompts, cache, rows)
        start = 0
        for group, prompt in zip(groups, prompts, strict=True):
            if chosen and group[0].request.sampling.report_experts:
                experts = _as_array(chosen)[start : start + len(prompt)]
                for item in group:
                    item.prompt_experts = experts
            start += len(prompt)
        for source, targets in zip(rows, siblings, strict=True):
            if targets:
                cache.fork(source, targets)
        repeats = torch.tensor([len(group) for group in groups], device=logits_PV.device)
        self._settings = None
        samples = [item for group in groups for item in group]
        if self._take(samples, logits_PV.repeat_interleave(repeats, 0)):
            _forget(samples, first_row, cache)
        self._settings = None

    def _speculate(self, samples: Sequence[Sample], cache: RowCache) -> None:
        """Drafts tokens for each sample, verifies them in one pass of the model, and takes those that are right."""
        assert isinstance(cache, DraftCache)
        window_BW = torch.tensor(window_ids(samples, cache.window), device=cache.device)
        drafts = with_forced(samples, self.runner.draft(window_BW, cache).tolist())
        known = [min(len(item.forced), self.speculative_tokens) for item in samples]
        lengths = [len(item.tokens) for item in samples]
        ids = [[item.last, *draft] for item, draft in zip(samples, drafts, strict=True)]
        self._take(samples, *self._decode(torch.tensor(ids, device=cache.device), cache), drafts)
        for row, (item, forced, length) in enumerate(zip(samples, known, lengths, strict=True)):
            cache.truncate(row, item.held)
            accepted = len(item.tokens) - length - 1
            self.drafts.add(self.speculative_tokens - forced, max(0, accepted - forced))

    def _decode(self, token_ids: Tensor, cache: RowCache) -> tuple[Tensor, NDArray[np.int16] | None]:
        """Logits after some more tokens of the running samples, and the tokens' experts [N, L, A] if any wants them."""
        with self._watched_experts(self._scheduler.running) as chosen:
            logits_NV = self.runner.decode(token_ids, cache)
        return logits_NV, _as_array(chosen) if chosen else None

    def _watched_experts(self, samples: Sequence[Sample]) -> AbstractContextManager[list[Tensor]]:
        """Collects the routers' choices where a sample's request asks for them; else nothing."""
        asked = any(item.request.sampling.report_experts for item in samples)
        return self.runner.watched_experts() if asked else nullcontext([])

    def _take(
        self,
        samples: Sequence[Sample],
        logits_NV: Tensor,
        experts_NLA: NDArray[np.int16] | None = None,
        drafts: Sequence[Sequence[int]] = (),
    ) -> bool:
        """Draws the next token of each sample, and accepts draft tokens while they match what was drawn.

        Args:
            samples: B of them.
            logits_NV: of each sample one row for every token of its draft and one more.
            experts_NLA: that the tokens went through which these rows come after.
            drafts: of each sample; none of them in plain decoding.

        Returns:
            True if a sample's watcher removed tokens (a stop string matched).
        """
        width = logits_NV.shape[0] // len(samples)
        if self._settings is None:
            settings = [item.request.sampling for item in samples for _ in range(width)]
            self._settings = RowSettings.of(settings, logits_NV.device)
        keys = np.repeat(np.array([item.key for item in samples], dtype=np.uint64), width)
        positions = np.add.outer([len(item.tokens) for item in samples], np.arange(width)).ravel()
        tokens_N, logprobs_N = sample(logits_NV, self._settings, uniforms(keys, positions))
        tokens, logprobs = tokens_N.tolist(), logprobs_N.tolist()
        shortened = False
        for row, item in enumerate(samples):
            for index in range(row * width, (row + 1) * width):
                token, logprob = tokens[index], logprobs[index]
                if item.forced or item.request.sampling.top_logprobs:
                    token, logprob = self._look_closer(item, token, logprob, logits_NV[index])
                length, place = len(item.tokens) + 1, index - row * width
                if experts_NLA is not None and item.prompt_experts is not None:
                    item.experts.append(experts_NLA[index])
                item.append(token, logprob)
                if len(item.tokens) < length:
                    shortened = True
                    break
                if item.finish_reason is not None or place + 1 == width or token != drafts[row][place]:
                    break
        return shortened

    def _look_closer(self, item: Sample, token: int, logprob: float, logits_V: Tensor) -> tuple[int, float]:
        """Replaces a drawn token by a forced one, and keeps the most likely tokens where the request wants them."""
        logprobs_V = torch.log_softmax(logits_V.float() / reported_temperature(item.request.sampling), dim=-1)
        if item.forced:
            token = item.forced.popleft()
            logprob = float(logprobs_V[token])
        if count := item.request.sampling.top_logprobs:
            values, ids = logprobs_V.topk(min(count, logprobs_V.numel()))
            item.top_logprobs.append(tuple(zip(ids.tolist(), values.tolist(), strict=True)))
        return token, logprob

    def _retire(self, cache: RowCache) -> bool:
        before = len(self._scheduler.running)
        moves = self._scheduler.retire()
        for source, target in moves:
            cache.move(source, target)
        if len(self._scheduler.running) == before:
            return False
        self._settings = None
        return True

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completes every request; result[i][j] is sample j of request i."""
        samples = [self.add(request) for request in requests]
        try:
            while any(item.finish_reason is None for group in samples for item in group):
                self.step()
        except BaseException:
            self.reset()
            raise
        return [[item.completion(self._version) for item in group] for group in samples]

    def reset(self) -> None:
        """Forgets everything in flight after an interrupt, so that the engine can be used again."""
        self._scheduler = Scheduler(self.max_rows)
        self._cache = None
        self._settings = None

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        """Yields (token id, log-probability) of the request's first sample as they are made."""
        (item, *others) = self.add(request)
        if others:
            self._scheduler.cancel(request.request_id)
            raise GenerationError(f"a stream carries one sample, not n={request.sampling.n}; send one request each")
        sent = 0
        try:
            while item.finish_reason is None or sent < len(item.tokens):
                if sent == len(item.tokens):
                    self.step()
                    continue
                yield item.tokens[sent], item.logprobs[sent]
                sent += 1
        finally:
            if item.finish_reason is None:
                self.cancel(request.request_id)

    @torch.inference_mode()
    def score(
        self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-probabilities of given completions after given prompts, by the trainer's own forward pass."""
        scores: list[list[float]] = []
        for batch in _batches(sequences):
            lengths = [len(prompt) + len(completion) for prompt, completion in batch]
            ids = [token for prompt, completion in batch for token in (*prompt, *completion)]
            device = next(self.model.parameters()).device
            token_ids_N = torch.tensor(ids, device=device)
            hidden_ND = self.model(token_ids_N, Ragged(lengths, device)).hidden_ND
            start = 0
            for (prompt, _completion), length in zip(batch, lengths, strict=True):
                first, stop = start + len(prompt), start + length
                logits_NV = self.model.logits(hidden_ND[first - 1 : stop - 1]).float() / temperature
                chosen = torch.log_softmax(logits_NV, -1).gather(-1, token_ids_N[first:stop, None])
                scores.append(chosen.squeeze(-1).tolist())
                start = stop
        return scores


def _as_array(chosen: Sequence[Tensor]) -> NDArray[np.int16]:
    """Experts [N, L, A] from those of each layer."""
    return torch.stack(list(chosen), dim=1).to("cpu", torch.int16).numpy()


def _forget(samples: Sequence[Sample], first_row: int, cache: RowCache) -> None:
    """Cuts the rows of samples, the first in `first_row`, back to the tokens that they still have."""
    for row, item in enumerate(samples, first_row):
        cache.truncate(row, item.held)


def _batches(
    sequences: Sequence[tuple[Sequence[int], Sequence[int]]],
) -> Iterator[list[tuple[Sequence[int], Sequence[int]]]]:
    """Cuts sequences into batches of about `SCORE_TOKENS`."""
    batch: list[tuple[Sequence[int], Sequence[int]]] = []
    size = 0
    for prompt, completion in sequences:
        if not prompt:
            raise GenerationError("a prompt to score after is empty; it needs at least one token")
        batch.append((prompt, completion))
        size += len(prompt) + len(completion)
        if size >= SCORE_TOKENS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
