"""Graded completions on disk as they are made: an evaluation that is interrupted goes on where it stopped."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from aha.errors import RunFolderError
from aha.evals.resumable_log import ResumableLog
from aha.evals.runner import Sample
from aha.files import cannot_write, canonical_json, fingerprint, read_json, write_json
from aha.runs import RunFolder
from aha.types import Problem

SETTINGS, SAMPLES, RESULTS = "settings.json", "samples.jsonl", "results.json"
Identity = tuple[str, str, int]
"""Family or task, question, and which of its samples."""


def identity(sample: Sample) -> Identity:
    """What a sample is of."""
    return sample.family, sample.question, sample.index


def content_of(problems: Iterable[Problem]) -> str:
    """Says what is asked, right answers included: the rows of a file can change where its name does not."""
    return fingerprint([(one.family, one.level, one.key, one.question, one.answer) for one in problems])[:16]


class SampleStore:
    """The samples of one evaluation, in a folder; to be used as a context.

    Args:
        folder: is made if it does not exist.
        settings: everything that the numbers depend on.

    Raises:
        RunFolderError: the folder holds another evaluation, is damaged or in use, or cannot be written.
    """

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.folder = folder
        self._samples: dict[tuple[str, str], dict[Identity, Sample]] = {}
        self._lock = RunFolder(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock.acquire()
            if (folder / SETTINGS).is_file():
                if canonical_json(read_json(folder / SETTINGS)) != canonical_json(settings):
                    raise RunFolderError(
                        f"{str(folder)!r} holds an evaluation with other settings or of another model: choose another "
                        "--out, or delete it"
                    )
            elif any(not entry.name.startswith(".") for entry in folder.iterdir()):
                raise RunFolderError(f"{str(folder)!r} holds something else: choose another --out")
            else:
                write_json(folder / SETTINGS, settings)
            self._lines = ResumableLog(folder / SAMPLES, self._take)
        except RunFolderError:
            self._lock.release()
            raise
        except OSError as error:
            self._lock.release()
            raise RunFolderError(cannot_write(folder, error)) from error

    def _take(self, row: dict[str, Any]) -> None:
        own = self.of(row.pop("model"), row.pop("style"))
        sample = Sample(**row)
        own[identity(sample)] = sample

    def of(self, model: str, style: str) -> dict[Identity, Sample]:
        """What there is of one model in one prompt style; of samples that were made twice, the later one."""
        return self._samples.setdefault((model, style), {})

    def add(self, model: str, style: str, samples: Iterable[Sample]) -> None:
        """Keeps samples, on disk when this returns."""
        new = list(samples)
        self.of(model, style).update({identity(sample): sample for sample in new})
        for sample in new:
            self._lines.add({"model": model, "style": style, **sample.to_json()})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._lock.release()
