"""A small server that speaks the routes of vLLM and SGLang for rollouts, around our own engine, and fails on demand."""

from __future__ import annotations

import json
import sys
import threading
import time
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from aha.inference.engine import Engine
from aha.models.checkpoint.hf import HfTensors, load_pretrained
from aha.types import Completion, Request, SamplingParams

SAMPLING = {
    "temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}  # fmt: skip
"""What a server does where neither the request nor the model's folder says."""
SUGGESTED = {"temperature": 0.6, "top_p": 0.95, "top_k": 20, "min_p": 0.1, "repetition_penalty": 1.05}
"""A generation_config.json, much like Qwen3's."""
FINISHED = {"stop": "stop", "length": "length", "cancelled": "abort"}


class RolloutServer:
    """Serves a model folder on a free port.

    Attributes:
        failures: names of what goes wrong next, one a request of completions: `500`, `disconnect`, `cut`, `slow`,
            `garbage`, `logprobs`, `ids`, `finish`, `400`, `token N` (N is the first id of a sample).
        suggested: how to sample where a request does not say, as a model's generation_config.json has it.
        answers: what a route is answered with instead of what it should be.
        stale: takes new weights without using them.
        processed_logprobs: reports log-probabilities of the sampling's temperature instead of temperature 1.
        calls: (route, body) of everything that was asked.
    """

    def __init__(self, folder: Path) -> None:
        self.model = load_pretrained(folder)
        self.engine = Engine(self.model, max_rows=32, max_context=128)
        self.failures: list[str] = []
        self.suggested: dict[str, float] = dict(SUGGESTED)
        self.answers: dict[str, Any] = {}
        self.stale = False
        self.processed_logprobs = False
        self.version = "default"
        self.calls: list[tuple[str, Any]] = []
        self._group: Any = None
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                seen = {"/get_world_size": {"world_size": 1}, "/calls": outer.calls, **outer.answers}
                self._answer(seen.get(self.path))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.calls.append((self.path, body))
                generates = self.path in ("/v1/completions", "/generate")
                failure = outer.failures.pop(0) if outer.failures and generates else ""
                if failure == "disconnect":
                    self.connection.close()
                elif failure == "slow":
                    time.sleep(1.5)
                    self._answer({})
                elif self.path in outer.answers:
                    self._answer(outer.answers[self.path])
                elif failure.isdigit():
                    self._answer({"error": "said so"}, int(failure))
                else:
                    with outer._lock:
                        self._answer(outer.route(self.path, body), failure=failure)

            def _answer(self, value: Any, status: int = 200, failure: str = "") -> None:
                data = json.dumps(damaged(value, failure)).encode()
                self.send_response(404 if value is None else status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data[: len(data) // 2] if failure == "cut" else data)

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def route(self, path: str, body: Any) -> Any:
        """What a request is answered with."""
        if path == "/v1/completions":
            return self._vllm(body)
        if path == "/generate":
            return self._sglang(body)
        if path == "/update_weights_from_disk":
            self._load(Path(body["model_path"]))
            self.version = body["weight_version"]
            return {"success": True, "message": "done"}
        if path == "/collective_rpc" and body["method"] == "reload_weights":
            self._load(Path(body["kwargs"]["weights_path"]))
            return {"results": [None]}
        if path == "/init_weight_transfer_engine":
            info = body["init_info"]
            store = dist.TCPStore(info["master_address"], info["master_port"], info["world_size"], is_master=False)
            rank, world = info["rank_offset"], info["world_size"]
            self._group = dist.ProcessGroupGloo(dist.PrefixStore("weights", store), rank, world, timedelta(seconds=30))
            return {"message": "ok"}
        if path == "/update_weights":
            return self._receive(body["update_info"])
        if path in ("/start_weight_update", "/finish_weight_update", "/reset_prefix_cache"):
            return {"message": "ok"}
        return None

    def _load(self, folder: Path) -> None:
        if not self.stale:
            self.engine.load_weights(load_pretrained(folder).state_dict(), 0)

    def _receive(self, info: Any) -> Any:
        own = HfTensors(self.model)
        for name, dtype, shape in zip(info["names"], info["dtype_names"], info["shapes"], strict=True):
            tensor = torch.empty(shape, dtype=getattr(torch, dtype))
            self._group.broadcast(tensor, 0).wait()
            if not self.stale:
                own[name].copy_(tensor)
        self.model.weights_replaced()
        return {"message": "ok"}

    def _complete(self, ids: list[int], tokens: int, asked: Any) -> list[Completion]:
        """Samples as asked; where asked to cut or penalise, which the engine cannot do, the likeliest tokens."""
        found = {**SAMPLING, **self.suggested, **{name: asked[name] for name in SAMPLING if name in asked}}
        temperature, top_p = found.pop("temperature"), found.pop("top_p")
        if any(found[name] != SAMPLING[name] for name in found):
            temperature = 0.0
        sampling = SamplingParams(temperature, top_p, tokens, tuple(asked["stop_token_ids"]), n=asked["n"], seed=5)
        sampling = replace(sampling, processed_logprobs=self.processed_logprobs)
        return self.engine.generate([Request(tuple(ids), sampling)])[0]

    def _vllm(self, body: Any) -> Any:
        ids = body["prompt"]
        if "prompt_logprobs" in body:
            scores = self.engine.score([(ids[:1], ids[1:])])[0]
            rows = [{str(token): {"logprob": value}} for token, value in zip(ids[1:], scores, strict=True)]
            return {"choices": [{"index": 0, "prompt_logprobs": [None, *rows]}]}
        made = self._complete(ids, body["max_tokens"], body)
        choices = [
            {
                "index": index,
                "token_ids": list(one.token_ids),
                "logprobs": {"token_logprobs": list(one.logprobs)},
                "finish_reason": FINISHED[one.finish_reason.value],
            }
            for index, one in enumerate(made)
        ]
        return {"choices": choices[::-1]}

    def _sglang(self, body: Any) -> Any:
        ids, sampling = body["input_ids"], body["sampling_params"]
        if "logprob_start_len" in body:
            start = body["logprob_start_len"]
            scores = self.engine.score([(ids[:1], ids[1:])])[0]
            pairs = [[None, ids[0], None], *([s, t, None] for s, t in zip(scores, ids[1:], strict=True))]
            return {"text": "", "meta_info": {"input_token_logprobs": pairs[start:]}}
        (asked, *_), seeds = sampling, [one["sampling_seed"] for one in sampling]
        drawn = self._complete(ids[0], asked["max_new_tokens"], {**asked, "n": len(ids)})
        made = [drawn[seeds.index(seed)] for seed in seeds]  # the same seed, the same sample
        return [
            {
                "meta_info": {
                    "output_token_logprobs": [[p, t, None] for p, t in zip(one.logprobs, one.token_ids, strict=True)],
                    "finish_reason": {"type": FINISHED[one.finish_reason.value]},
                    "weight_version": self.version,
                }
            }
            for one in made
        ]


def damaged(answer: Any, failure: str) -> Any:
    """An answer as a broken server gives it."""
    if failure == "garbage":
        return ["?"]
    if failure.startswith("token "):
        put_first(answer, int(failure.removeprefix("token ")))
    if failure in ("logprobs", "ids", "finish"):
        choice = answer["choices"][0]
        if failure == "logprobs":
            choice["logprobs"]["token_logprobs"].pop()
        elif failure == "ids":
            del choice["token_ids"]
        else:
            choice["finish_reason"] = "because"
    return answer


def put_first(answer: Any, token: int) -> None:
    """Makes a token id the first one of an answer's last sample."""
    if isinstance(answer, dict) and "choices" in answer:
        answer["choices"][-1]["token_ids"][0] = token
    else:
        sample = answer[-1] if isinstance(answer, list) else answer
        sample["meta_info"]["output_token_logprobs"][0][1] = token


if __name__ == "__main__":  # a process of its own: a process group's members cannot share an interpreter
    server = RolloutServer(Path(sys.argv[1]))
    server.stale = "--stale" in sys.argv
    print(server.url, flush=True)
    sys.stdin.read()
