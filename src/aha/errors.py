"""Every error that `aha` raises on purpose.

    AhaError                    anything a caller may want to catch as "aha said no"
    ├── ConfigError             a setting is unknown, out of bounds, or cannot be built      (also ValueError)
    ├── UnknownNameError        a recipe, family, preset or task that does not exist         (also ValueError)
    ├── CheckpointError         a checkpoint is damaged, of another shape, or of a refused kind (also ValueError)
    ├── RunFolderError          a run folder is in use, not a run, or cannot be written      (also OSError)
    ├── GradingError            a grader could not give a verdict: drop the sample, do not score it 0
    │   └── CannotGradeError    nothing of the kind can be graded here: isolation or a package is missing
    ├── GenerationError         a request that the engine cannot serve                        (also ValueError)
    └── NothingToLearnError     training would be in vain: the message says why

Messages say what was wrong, what was expected, and what to do. The command line prints them in one line and exits
with 1 (2 for wrong usage); everything else that escapes is a bug and shows its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class AhaError(Exception):
    """Base of all errors that this package raises on purpose."""


class ConfigError(AhaError, ValueError):
    """A setting is unknown, out of bounds, or describes something that cannot be built."""


class UnknownNameError(AhaError, ValueError):
    """A name that is not in the list of known names. The message carries the nearest spelling."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        super().__init__(f"unknown {kind} {name!r}{nearest(name, known)}; known: {', '.join(known)}")


class CheckpointError(AhaError, ValueError):
    """A checkpoint is damaged, does not fit the model, or is of a kind that is refused (pickles)."""


class RunFolderError(AhaError, OSError):
    """A run folder is used by another process, is not a run folder, or cannot be written."""


class GradingError(AhaError):
    """A grader failed to give a verdict. The sample is dropped, never scored 0."""


class CannotGradeError(GradingError):
    """Nothing of a kind can be graded here; the message says what is missing and how to get it."""


class GenerationError(AhaError, ValueError):
    """A generation request that cannot be served as asked."""


class DivergedError(AhaError):
    """Weights or gradients are no longer finite; the message says what to change."""


class NothingToLearnError(AhaError):
    """Reinforcement learning would see no signal; the message says why and what to change."""


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the closest known name, or an empty string."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {match[0]!r}?)" if match else ""
