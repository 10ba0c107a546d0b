"""`protocols.Generator` over rollout servers."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from aha.errors import GenerationError
from aha.inference.engine import Engine
from aha.inference.remote.dialects import DIALECTS
from aha.inference.remote.http_json import call
from aha.inference.remote.refit import REFITS
from aha.models.language_model import LanguageModel
from aha.rollout_servers import RolloutServersConfig
from aha.types import Completion, FinishReason, Request

PROBE_TOKENS = 24
CLOSE = 0.01
"""Mean difference, in nats, that engines' numerics make by themselves."""


class RemoteGenerator:
    """Samples on servers. After every change of weights a probe compares what they compute with the trainer.

    Args:
        config: where they are.
        model: the policy: what the servers must hold, and what the probe is compared with.
        max_context: prompt and completion tokens of one sample, at most.
        is_first: whether this process brings the weights to the servers; the others wait at `barrier`.
        barrier: returns when all processes of the trainer have called it.
        weights_version: of the weights that the model holds now; they are sent at once.

    Raises:
        GenerationError: a server cannot be reached, or does not take the weights.
    """

    def __init__(
        self,
        config: RolloutServersConfig,
        model: LanguageModel,
        max_context: int,
        is_first: bool = True,
        barrier: Callable[[], None] = lambda: None,
        weights_version: int = 0,
    ) -> None:
        self._config, self._model, self._max_context = config, model, max_context
        self._is_first, self._barrier = is_first, barrier
        self._dialect = DIALECTS[config.kind]
        self._refit = REFITS[config.refit](config)
        self._cancelled: set[str] = set()
        self._lock = threading.Lock()
        self._next = 0
        self._temperature_checked = False
        self._version = weights_version
        self._send(weights_version)

    @property
    def weights_version(self) -> int:
        """The version that the servers were told to hold."""
        return self._version

    def generate(self, requests: Sequence[Request]) -> list[list[Completion]]:
        """Completes every request; result[i][j] is sample j of request i.

        Raises:
            GenerationError: a server failed for good, or answered with something else than was asked, such as ids
                that are no tokens of the model.
        """
        for request in requests:
            length = len(request.prompt_token_ids)
            if length == 0 or length + request.sampling.max_completion_tokens > self._max_context:
                raise GenerationError(
                    f"{length} prompt tokens and max_completion_tokens={request.sampling.max_completion_tokens}: at "
                    f"least one prompt token, and at most {self._max_context} together"
                )
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            completions = list(pool.map(self._complete, requests))
        if not self._temperature_checked:
            self._check_temperature(requests, completions)
        return completions

    def stream(self, request: Request) -> Iterator[tuple[int, float]]:
        """Yields one sample's tokens, all at once when the server has made them: rollouts have no reader to please."""
        ((completion,),) = self.generate([request])
        yield from zip(completion.token_ids, completion.logprobs, strict=True)

    def cancel(self, request_id: str) -> None:
        """A request that is not on its way yet ends empty; one that is ends by itself."""
        with self._lock:
            self._cancelled.add(request_id)

    def score(self, sequences: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probabilities of given completions, as the servers compute them."""
        with ThreadPoolExecutor(self._config.concurrency) as pool:
            return list(pool.map(self._score, sequences))

    def load_weights(self, weights: Mapping[str, Any], version: int) -> None:
        """Takes new weights into the model, if they are not its own, and brings them to the servers.

        Raises:
            GenerationError: a server did not take them, or still computes with others.
        """
        own = self._model.state_dict()
        with torch.no_grad():
            for name, tensor in own.items():
                given: Tensor = weights[name]
                if given.data_ptr() != tensor.data_ptr():
                    tensor.copy_(given)
        self._send(version)

    def _send(self, version: int) -> None:
        if self._is_first:
            self._refit.send(self._model, version)
        self._version = version
        self._barrier()
        if self._is_first:
            self._probe()

    def _probe(self) -> None:
        """Compares log-probabilities of random tokens, on every server."""
        rng = random.Random(self._version)
        ids = [rng.randrange(self._model.num_tokens) for _ in range(PROBE_TOKENS)]
        pair = (ids[:4], ids[4:])
        (own,) = Engine(self._model, 1, PROBE_TOKENS).score([pair])
        for url in self._config.urls:
            gap = sum(abs(a - b) for a, b in zip(own, self._score(pair, url), strict=True)) / len(own)
            if gap > self._config.probe_gap:
                raise GenerationError(
                    f"{url} computes with other weights than version {self._version}: its log-probabilities are "
                    f"{gap:.2f} nats off in the mean (probe_gap = {self._config.probe_gap:g})"
                )

    def _check_temperature(self, requests: Sequence[Request], completions: Sequence[list[Completion]]) -> None:
        """Refuses log-probabilities of temperature 1 where those of the sampling's were asked for; looks once.

        Raises:
            GenerationError: they are nearer to the model's own at temperature 1.
        """
        for request, samples in zip(requests, completions, strict=True):
            sampling = request.sampling
            made = [one for one in samples if one.token_ids]
            if not made or not sampling.processed_logprobs or sampling.temperature in (0.0, 1.0):
                continue
            engine, pairs = Engine(self._model, 1, 1), [(request.prompt_token_ids, one.token_ids) for one in made]
            raw, processed = (_distance(made, engine.score(pairs, t)) for t in (1.0, sampling.temperature))
            if processed > max(2 * raw, CLOSE):
                raise GenerationError(
                    f"the servers report log-probabilities of temperature 1 ({raw:.2g} nats from the trainer's), and "
                    f"those of temperature {sampling.temperature:g}, at which they sample, are needed ({processed:.2g} "
                    f"nats away): start them {self._dialect.processed_logprobs}, or sample at temperature 1"
                )
            self._temperature_checked = True
            return

    def _complete(self, request: Request) -> list[Completion]:
        with self._lock:
            cancelled = request.request_id in self._cancelled and bool(request.request_id)
        if cancelled:
            return [Completion((), (), FinishReason.CANCELLED, self._version)] * request.sampling.n
        body, url = self._dialect.ask(request, self._config.served_model), self._next_url()
        answer = self._post(body, url)
        with _answer_of(url):
            completions = self._dialect.read(answer, request, self._version)
        self._refuse_strange(completions, url)
        return completions

    def _refuse_strange(self, completions: Sequence[Completion], url: str) -> None:
        """Raises GenerationError for a token id that is none of the model's: there is no log-probability of it."""
        tokens = range(self._model.num_tokens)
        for completion in completions:
            for token in completion.token_ids:
                if token not in tokens:
                    raise GenerationError(
                        f"{url} sampled the token id {token}, but the model's tokens are 0 to {tokens[-1]}: does it "
                        "serve this model, with this vocabulary? Rows that pad a vocabulary must never be sampled"
                    )

    def _score(self, pair: tuple[Sequence[int], Sequence[int]], url: str | None = None) -> list[float]:
        prompt, completion = pair
        if not prompt:
            raise GenerationError("a prompt to score after is empty; it needs at least one token")
        body = self._dialect.ask_score(prompt, completion, self._config.served_model)
        url = url or self._next_url()
        answer = self._post(body, url)
        with _answer_of(url):
            return self._dialect.read_score(answer, prompt, completion)

    def _next_url(self) -> str:
        """The servers in turn."""
        with self._lock:
            self._next += 1
            return self._config.urls[self._next % len(self._config.urls)]

    def _post(self, body: Any, url: str) -> Any:
        return call(url + self._dialect.generate_route, body, self._config.seconds, self._config.retries)


def _distance(completions: Sequence[Completion], scores: Sequence[Sequence[float]]) -> float:
    """Mean absolute difference between reported and own log-probabilities, in nats."""
    pairs = [
        abs(reported - own)
        for one, row in zip(completions, scores, strict=True)
        for reported, own in zip(one.logprobs, row, strict=True)
    ]
    return sum(pairs) / len(pairs)


@contextmanager
def _answer_of(url: str) -> Iterator[None]:
    """Names the server in what is wrong with its answer."""
    try:
        yield
    except GenerationError as error:
        raise GenerationError(f"{url}: {error}") from error
