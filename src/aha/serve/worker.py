"""One thread per model: it owns the engine, lets requests in between steps, and sends out what each step adds.

The event loop puts jobs in and takes deltas out; it never touches the engine. All running requests advance together,
step by step; a request that comes joins at the next step, one that is withdrawn gives its place back there.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from functools import partial

from aha.errors import GenerationError
from aha.protocols import BatchGenerator, LiveSample
from aha.serve.errors import ApiError, places_of, too_late
from aha.serve.reply import Delta, ReplyReader
from aha.types import FinishReason, Request

logger = logging.getLogger("aha.serve")

Event = Delta | ApiError


@dataclass(eq=False, slots=True)
class Job:
    """What one HTTP request wants of a model: prompts, and a reader for each of their samples, in order."""

    requests: Sequence[Request]
    readers: Sequence[ReplyReader]
    events: asyncio.Queue[Event] = field(default_factory=asyncio.Queue)
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    samples: list[LiveSample] = field(default_factory=list)
    ended: list[bool] = field(default_factory=list)
    """Of each sample, whether its reader has been told how it ended."""
    deltas: list[Delta] = field(default_factory=list)
    """What the readers made of tokens since the last step."""
    withdrawn: bool = False
    released: bool = False
    """Whether its samples count as in flight no longer."""

    @property
    def done(self) -> bool:
        """Whether all samples have ended and been read."""
        return bool(self.ended) and all(self.ended)


class Worker:
    """Drives a generator for many requests at once.

    Args:
        generator: from the first job on used by this worker's thread alone.
        queue_samples: samples that may wait beside those that run.
        name: of the thread.
    """

    def __init__(self, generator: BatchGenerator, queue_samples: int, name: str = "model") -> None:
        self._generator = generator
        self._capacity = generator.max_rows + queue_samples
        self._name = name
        self._changed = threading.Condition()
        self._arrived: list[Job] = []
        self._jobs: list[Job] = []
        self.in_flight = 0
        """Samples that run or wait."""
        self._closing = False
        self._thread: threading.Thread | None = None

    def submit(self, job: Job) -> None:
        """Queues a job; its events come as its samples grow.

        Raises:
            ApiError: 429 when too much is waiting already, 503 when the server is stopping.
        """
        with self._changed:
            if self._closing:
                raise ApiError(503, "the server is stopping", code="stopping")
            if self.in_flight + len(job.readers) > self._capacity:
                raise ApiError(
                    429,
                    "too many requests are waiting; try again shortly",
                    code="queue_full",
                    headers={"retry-after": "1"},
                )
            self.in_flight += len(job.readers)
            self._arrived.append(job)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=f"aha-serve-{self._name}", daemon=True)
                self._thread.start()
            self._changed.notify()

    def withdraw(self, job: Job) -> None:
        """Ends what a job still has running; nothing happens if it is done."""
        with self._changed:
            job.withdrawn = True
            self._changed.notify()

    def stop(self) -> None:
        """Ends all jobs, with an error, at the next step, and takes no more."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, patience_seconds: float = 10.0) -> None:
        """Stops and waits for the thread to end."""
        self.stop()
        if self._thread is not None:
            self._thread.join(patience_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._arrived or self._jobs or self._closing):
                    self._changed.wait()
                arrived, self._arrived = self._arrived, []
                if self._closing:
                    self._fail([*arrived, *self._jobs], ApiError(503, "the server is stopping", code="stopping"))
                    return
            try:
                self._turn(arrived)
            except Exception as error:  # noqa: BLE001 - one request's fault must not end the others' server
                logger.error("model %s failed with %s at %s", self._name, type(error).__name__, places_of(error))
                self._generator.reset()
                jobs = [job for job in arrived if job not in self._jobs] + self._jobs
                self._fail(jobs, ApiError(500, "the model failed on this request", code="internal_error"))

    def _turn(self, arrived: Sequence[Job]) -> None:
        """Lets jobs in and out, makes one step, and sends what it added."""
        news: list[tuple[Job, Event]] = []
        for job in arrived:
            try:
                self._admit(job)
            except GenerationError as error:
                news.append((job, ApiError(400, str(error), code="context_length_exceeded")))
                self._release(job)
        for job in self._jobs:
            if job.withdrawn:
                for sample in job.samples:
                    sample.end(FinishReason.CANCELLED)
        self._generator.step()
        for job in self._jobs:
            news += [(job, delta) for delta in self._read(job) if not job.withdrawn]
        for job in [job for job in self._jobs if job.done]:
            self._jobs.remove(job)
            self._release(job)
        if not self._jobs:
            self._generator.step()  # ended samples leave their rows
        self._send(news)

    def _admit(self, job: Job) -> None:
        if job.withdrawn:
            self._release(job)
            return
        try:
            for request in job.requests:
                job.samples += self._generator.add(request)
        except GenerationError:
            for sample in job.samples:
                sample.end(FinishReason.CANCELLED)
            raise
        job.ended = [False] * len(job.samples)
        for sample, reader in zip(job.samples, job.readers, strict=True):
            sample.force(reader.forced())
            sample.watch(partial(_show, sample, reader, job.deltas))
        self._jobs.append(job)

    def _read(self, job: Job) -> list[Delta]:
        """Takes what the step added, with the ends of samples that have ended."""
        for number, (sample, reader) in enumerate(zip(job.samples, job.readers, strict=True)):
            if sample.finish_reason is not None and not job.ended[number]:
                job.deltas.append(reader.finish(sample.finish_reason))
                job.ended[number] = True
        deltas = [delta for delta in job.deltas if not delta.empty]
        job.deltas.clear()
        return deltas

    def _release(self, job: Job) -> None:
        with self._changed:
            self.in_flight -= 0 if job.released else len(job.readers)
            job.released = True

    def _fail(self, jobs: Sequence[Job], error: ApiError) -> None:
        self._jobs = []
        for job in jobs:
            self._release(job)
        self._send([(job, error) for job in jobs])

    def _send(self, news: Sequence[tuple[Job, Event]]) -> None:
        """Hands events over to the event loops of their jobs, one call for all of a loop's."""
        for loop in {job.loop for job, _ in news}:
            own = [(job, event) for job, event in news if job.loop is loop]
            try:
                loop.call_soon_threadsafe(_deliver, own)
            except RuntimeError:  # the loop has been closed: nobody listens any more
                continue


def _show(sample: LiveSample, reader: ReplyReader, deltas: list[Delta]) -> None:
    """Shows a sample's newest token to its reader, who may end the sample, force its next tokens or refuse the last."""
    top = sample.top_logprobs[-1] if sample.top_logprobs else ()
    stopped = sample.finish_reason is FinishReason.STOP
    deltas.append(reader.push(sample.tokens[-1], sample.logprobs[-1], top, stopped))
    if reader.taken_back:
        sample.take_back(reader.taken_back)
    if reader.stopped:
        sample.end(FinishReason.STOP)
    elif sample.finish_reason is None:
        sample.force(reader.forced())


def _deliver(news: Sequence[tuple[Job, Event]]) -> None:
    for job, event in news:
        job.events.put_nowait(event)


async def follow(worker: Worker, job: Job, seconds: float) -> AsyncGenerator[Delta, None]:
    """Yields a submitted job's deltas until all its samples have ended. Leaving it early withdraws the job.

    Raises:
        ApiError: 408 when it takes longer than it may, or what the worker says.
    """
    deadline = asyncio.get_running_loop().time() + seconds
    remaining = len(job.readers)
    try:
        while remaining:
            try:
                async with asyncio.timeout_at(deadline):
                    event = await job.events.get()
            except TimeoutError:
                raise too_late(seconds) from None
            if isinstance(event, ApiError):
                raise event
            remaining -= event.end is not None
            yield event
    finally:
        worker.withdraw(job)
