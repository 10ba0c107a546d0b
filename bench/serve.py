"""A server under load: 64 streams at once, and the same load on `transformers serve`, with the same tiny weights.

    python bench/serve.py [--streams 64] [--seconds 120] [--tokens 96] [--model DIR] [--only ours|transformers]

Each stream is a client that asks, reads its answer token by token, and asks again, until the time is over; what runs
then is let end. Reported: answers that were lost (an error, or a stream without its end), time to the first token, time
between tokens, tokens per second of all, and how evenly the streams were served (least over most tokens of a stream,
and Jain's index). Client and server share the machine's cores, in both cases. Needs the extras `[serve,bench]`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2 as httpx
from grpo_step import QUESTIONS, THREADS, make_model

START_SECONDS = 300.0


@dataclass
class Stream:
    """What one client saw."""

    answers: int = 0
    tokens: int = 0
    lost: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    """Seconds from each request to its first token."""
    gaps: list[float] = field(default_factory=list)
    """Seconds between the pieces of an answer."""


def main() -> None:
    """Loads one server after the other and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--tokens", type=int, default=96, help="of an answer, at most")
    parser.add_argument("--model", type=Path, help="a model folder; none: random weights of the tiny preset")
    parser.add_argument("--only", choices=["ours", "transformers"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = (options.model or Path(folder) / "tiny" / "model").resolve()
        if options.model is None:
            make_model(model)
        print(f"{options.streams} streams, {options.seconds:g} s, answers of at most {options.tokens} tokens\n")
        print(
            "| server | answers | lost | first token, s: p50, p95 | between tokens, ms: p50, p95 | tokens/s "
            "| least/most tokens of a stream | Jain's index |\n|---|---|---|---|---|---|---|---|"
        )
        for name in ("ours", "transformers"):
            if options.only in (None, name):
                port = free_port()
                with served(command(name, model, port, options.streams), port):
                    print(row(name, *asyncio.run(load(port, served_name(name, model), options))), flush=True)


def command(name: str, model: Path, port: int, streams: int) -> list[str]:
    """How a server is started."""
    if name == "ours":
        start = [sys.executable, "-m", "aha", "serve", str(model), "--port", str(port)]
        return [*start, "--set", f"rows={streams}", "--set", f"queue_samples={max(64, 2 * streams)}"]
    program = str(Path(sys.executable).with_name("transformers"))
    return [program, "serve", str(model), "--port", str(port), "--device", "cpu", "--dtype", "float32"]


def served_name(name: str, model: Path) -> str:
    """What a server calls the model."""
    return model.parent.name if name == "ours" else str(model)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def served(start: Sequence[str], port: int) -> Iterator[None]:
    """A server that runs meanwhile."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(start, env={**os.environ, **THREADS}, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + START_SECONDS
            while True:
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/health", timeout=5).status_code == 200:
                        break
                except httpx.HTTPError:
                    pass
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    sys.exit(f"{start[0]} did not start:\n{log.read().decode(errors='replace')[-3000:]}")
                time.sleep(0.2)
            yield
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


async def load(port: int, model: str, options: argparse.Namespace) -> tuple[list[Stream], float]:
    """Runs all streams; returns what they saw and for how long they ran."""
    limits = httpx.Limits(max_connections=options.streams, max_keepalive_connections=options.streams)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/v1", timeout=600, limits=limits) as client:
        await ask(client, model, QUESTIONS[0], options.tokens, Stream())  # loads the model, where that comes late
        started = time.perf_counter()
        until = started + options.seconds
        streams = await asyncio.gather(*(talk(client, model, i, until, options.tokens) for i in range(options.streams)))
        return list(streams), time.perf_counter() - started


async def talk(client: httpx.AsyncClient, model: str, number: int, until: float, tokens: int) -> Stream:
    """One client, until the time is over."""
    stream = Stream()
    while time.perf_counter() < until:
        await ask(client, model, QUESTIONS[(number + stream.answers) % len(QUESTIONS)], tokens, stream)
    return stream


async def ask(client: httpx.AsyncClient, model: str, question: str, tokens: int, stream: Stream) -> None:
    """One question and its streamed answer."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": question}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "max_tokens": tokens,
        "temperature": 1.0,
    }
    asked = last = time.perf_counter()
    pieces, ended, counted = 0, False, 0
    try:
        async with client.stream("POST", "/chat/completions", json=body) as response:
            if response.status_code != 200:
                stream.lost.append(f"{response.status_code} {(await response.aread())[:200]!r}")
                return
            async for line in response.aiter_lines():
                if not line.startswith("data:"):
                    continue
                now, data = time.perf_counter(), line.removeprefix("data:").strip()
                if data == "[DONE]":
                    ended = True
                    break
                event = json.loads(data)
                counted = (event.get("usage") or {}).get("completion_tokens", counted)
                for choice in event.get("choices", ()):
                    delta = choice.get("delta") or {}
                    ended = ended or choice.get("finish_reason") is not None
                    if delta.get("content") or delta.get("reasoning_content"):
                        (stream.gaps if pieces else stream.first).append(now - (last if pieces else asked))
                        pieces, last = pieces + 1, now
    except (httpx.HTTPError, ValueError) as error:
        stream.lost.append(f"{type(error).__name__}: {error}")
        return
    if not ended:
        stream.lost.append("no end")
        return
    stream.answers += 1
    stream.tokens += counted or pieces


def row(name: str, streams: Sequence[Stream], seconds: float) -> str:
    """A line of the table; what was lost goes to standard error."""
    lost = [why for stream in streams for why in stream.lost]
    for why in sorted(set(lost)):
        print(f"{name}: {lost.count(why)} lost: {why}", file=sys.stderr)
    tokens = [stream.tokens for stream in streams]
    firsts, gaps = ([value for s in streams for value in getattr(s, part)] for part in ("first", "gaps"))
    jain = sum(tokens) ** 2 / (len(tokens) * sum(count**2 for count in tokens)) if any(tokens) else 0.0
    cells = [
        name,
        f"{sum(stream.answers for stream in streams):,}",
        str(len(lost)),
        percentiles(firsts, 1, 3),
        percentiles(gaps, 1000, 1),
        f"{sum(tokens) / seconds:,.0f}",
        f"{min(tokens):,}/{max(tokens):,}",
        f"{jain:.3f}",
    ]
    return "| " + " | ".join(cells) + " |"


def percentiles(values: Sequence[float], factor: float, digits: int) -> str:
    """Median and 95th percentile."""
    if len(values) < 2:
        return "–"
    cuts = statistics.quantiles(values, n=20, method="inclusive")
    return f"{factor * cuts[9]:.{digits}f}, {factor * cuts[18]:.{digits}f}"


if __name__ == "__main__":
    main()
