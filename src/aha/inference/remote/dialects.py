"""What the two servers want to be asked and how they answer, as pure functions between our types and JSON.

Both report the log-probabilities of the tokens that they sampled. At other temperatures than 1 it is the server's own
start that says of which temperature they are, and no request can: vLLM's are of temperature 1 by default, and of the
sampling's with `--logprobs-mode processed_logprobs`; SGLang's are of the sampling's, and of temperature 1 with
SGLANG_RETURN_ORIGINAL_LOGPROB=1. Requests that ask for processed ones need the sampling's; `generator.py` checks that.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aha.errors import GenerationError
from aha.inference.sampler import stream_key
from aha.types import Completion, FinishReason, Request

NEUTRAL = {
    "top_k": -1,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}
"""All that would cut or bend the model's distribution, switched off. Servers fill in what a request leaves out (vLLM
from generation_config.json, SGLang from --preferred-sampling-params), and their log-probabilities do not show it."""
FINISHES = {"stop": FinishReason.STOP, "length": FinishReason.LENGTH, "abort": FinishReason.CANCELLED}


class Dialect(Protocol):
    """One server's way of speaking."""

    generate_route: str
    """Where completions and scores are asked for."""
    processed_logprobs: str
    """How a server must be started to report log-probabilities of the sampling's temperature."""

    def ask(self, request: Request, model: str) -> dict[str, Any]:
        """The body that asks for a request's samples."""
        ...

    def read(self, answer: Any, request: Request, version: int) -> list[Completion]:
        """The samples of an answer. Raises GenerationError where it is not as it must be."""
        ...

    def ask_score(self, prompt: Sequence[int], completion: Sequence[int], model: str) -> dict[str, Any]:
        """The body that asks for the log-probabilities of a completion."""
        ...

    def read_score(self, answer: Any, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
        """One log-probability for each token of the completion."""
        ...


class Vllm:
    """vLLM's OpenAI-compatible server, asked by token ids (`return_token_ids`)."""

    generate_route = "/v1/completions"
    processed_logprobs = "with --logprobs-mode processed_logprobs"

    def ask(self, request: Request, model: str) -> dict[str, Any]:
        """A completions request."""
        sampling = _supported(request)
        return {
            "model": model,
            "prompt": list(request.prompt_token_ids),
            "n": sampling.n,
            "max_tokens": sampling.max_completion_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **NEUTRAL,
            "seed": sampling.seed % (1 << 63),
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,  # the stop tokens say what ends a completion, and nothing else does
            "logprobs": 0,
            "return_token_ids": True,
            "skip_special_tokens": False,
        }

    def read(self, answer: Any, request: Request, version: int) -> list[Completion]:
        """Choices in order."""
        choices = sorted(_list(answer, "choices"), key=_index)
        return [
            _completion(
                choice.get("token_ids"),
                _object(choice, "logprobs").get("token_logprobs"),
                choice.get("finish_reason"),
                request,
                version,
            )
            for choice in _exactly(choices, request.sampling.n)
        ]

    def ask_score(self, prompt: Sequence[int], completion: Sequence[int], model: str) -> dict[str, Any]:
        """A prompt's log-probabilities; one token has to be generated for it."""
        ids = [*prompt, *completion]
        return {"model": model, "prompt": ids, "max_tokens": 1, "temperature": 0.0, "prompt_logprobs": 0}

    def read_score(self, answer: Any, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
        """Reads {token id: {"logprob": ...}} at each position."""
        (choice,) = _exactly(_list(answer, "choices"), 1)
        rows = choice.get("prompt_logprobs")
        if not isinstance(rows, list) or len(rows) != len(prompt) + len(completion):
            raise GenerationError("the server gives no log-probabilities of the prompt's tokens")
        pairs = zip(completion, rows[len(prompt) :], strict=True)
        return _numbers([_object(_as_object(row, "a position"), str(token)).get("logprob") for token, row in pairs])


class SGLang:
    """SGLang's native `/generate`."""

    generate_route = "/generate"
    processed_logprobs = "without SGLANG_RETURN_ORIGINAL_LOGPROB"

    def ask(self, request: Request, model: str) -> dict[str, Any]:
        """A batch of the same prompt, where each sample has its own seed.

        `n` samples of one seed are all the same on a server that honours seeds (`--enable-deterministic-inference`).
        """
        sampling = _supported(request)
        shared = {
            "max_new_tokens": sampling.max_completion_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            **NEUTRAL,
            "stop_token_ids": list(sampling.stop_token_ids),
            "ignore_eos": True,
            "skip_special_tokens": False,
            "no_stop_trim": True,
        }
        seeds = [stream_key(sampling.seed, sample) % (1 << 31) for sample in range(sampling.n)]
        return {
            "input_ids": [list(request.prompt_token_ids)] * sampling.n,
            "sampling_params": [{**shared, "sampling_seed": seed} for seed in seeds],
            "return_logprob": True,
        }

    def read(self, answer: Any, request: Request, version: int) -> list[Completion]:
        """One object, or a list of them; each names the version of the weights that made it."""
        rows = answer if isinstance(answer, list) else [answer]
        completions = []
        for row in _exactly(rows, request.sampling.n):
            about = _object(row, "meta_info")
            named = about.get("weight_version")
            if named is not None and str(named) not in (str(version), "default"):
                raise GenerationError(f"a completion of weights {named!r}, expected {version}: the server is stale")
            pairs = _pairs(about.get("output_token_logprobs") or [])
            completions.append(
                _completion(
                    [pair[1] for pair in pairs],
                    [pair[0] for pair in pairs],
                    _object(about, "finish_reason").get("type"),
                    request,
                    version,
                )
            )
        return completions

    def ask_score(self, prompt: Sequence[int], completion: Sequence[int], model: str) -> dict[str, Any]:
        """A prompt's log-probabilities from where the completion starts."""
        return {
            "input_ids": [*prompt, *completion],
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": len(prompt) - 1,
        }

    def read_score(self, answer: Any, prompt: Sequence[int], completion: Sequence[int]) -> list[float]:
        """The last entries are the completion's."""
        pairs = _object(_as_object(answer, "the answer"), "meta_info").get("input_token_logprobs")
        if not isinstance(pairs, list) or len(pairs) < len(completion):
            raise GenerationError("the server gives no log-probabilities of the prompt's tokens")
        last = _pairs(pairs[len(pairs) - len(completion) :])
        if [pair[1] for pair in last] != list(completion):
            raise GenerationError("the server scores other tokens than it was given")
        return _numbers([pair[0] for pair in last])


DIALECTS: dict[str, Dialect] = {"vllm": Vllm(), "sglang": SGLang()}


def _supported(request: Request) -> Any:
    sampling = request.sampling
    if sampling.stop_sequences or sampling.top_logprobs:
        raise GenerationError("rollout servers take no stop sequences and give no top log-probabilities")
    if sampling.report_experts:
        raise GenerationError("rollout servers do not say which experts they chose; use the built-in engine")
    return sampling


def _completion(ids: Any, logprobs: Any, finish: Any, request: Request, version: int) -> Completion:
    """Checks one sample: as many numbers as ids, a known ending, the stop token where one ended it."""
    if not isinstance(ids, list) or not all(isinstance(one, int) for one in ids):
        raise GenerationError("a completion without token ids: the server is too old for return_token_ids")
    numbers = _numbers(logprobs)
    if len(numbers) != len(ids):
        raise GenerationError(f"a completion of {len(ids)} tokens with {len(numbers)} log-probabilities")
    if not isinstance(finish, str) or finish not in FINISHES:
        raise GenerationError(f"a completion that ended by {finish!r}: expected one of {', '.join(FINISHES)}")
    reason = FINISHES[finish]
    stops = request.sampling.stop_token_ids
    if reason is FinishReason.STOP and stops and (not ids or ids[-1] not in stops):
        raise GenerationError("a completion lacks the token that ended it: its log-probability is needed")
    return Completion(tuple(ids), tuple(numbers), reason, version)


def _numbers(values: Any) -> list[float]:
    good = isinstance(values, list) and all(
        isinstance(value, int | float) and -sys.float_info.max <= value <= 1e-6 for value in values
    )
    if not good:
        raise GenerationError("log-probabilities are missing, or are none")
    return [float(value) for value in values]


def _list(answer: Any, key: str) -> list[Any]:
    rows = answer.get(key) if isinstance(answer, Mapping) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise GenerationError(f"an answer without {key!r}: {str(answer)[:200]}")
    return rows


def _exactly(rows: list[Any], count: int) -> list[Any]:
    if len(rows) != count:
        raise GenerationError(f"an answer with {len(rows)} samples, expected {count}")
    return [_as_object(row, "a sample") for row in rows]


def _index(choice: dict[str, Any]) -> int:
    index = choice.get("index", 0)
    if not isinstance(index, int):
        raise GenerationError(f"'index' must be a number: {_excerpt(index)}")
    return index


def _object(holder: dict[str, Any], key: str) -> dict[str, Any]:
    """The object under a key; an empty one where there is none."""
    return _as_object(holder.get(key), repr(key))


def _as_object(value: Any, name: str) -> dict[str, Any]:
    if value is not None and not isinstance(value, dict):
        raise GenerationError(f"{name} must be an object: {_excerpt(value)}")
    return value or {}


def _pairs(rows: Any) -> list[Any]:
    """SGLang's [log-probability, token id, ...] of each token."""
    if not isinstance(rows, list):
        raise GenerationError(f"the log-probabilities must be a list: {_excerpt(rows)}")
    for row in rows:
        if not isinstance(row, list) or len(row) < 2:
            raise GenerationError(f"a token must have [log-probability, token id]: {_excerpt(row)}")
    return rows


def _excerpt(value: Any) -> str:
    return repr(value)[:200]
