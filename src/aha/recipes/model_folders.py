"""What a path on the command line is: a run, a model that answers, or neither. No torch until a model is looked at."""

from __future__ import annotations

from pathlib import Path

from aha.errors import ConfigError


def is_run(path: Path) -> bool:
    """Whether a folder is a run's."""
    return (path / "lineage.json").is_file()


def require_model(path: Path) -> None:
    """Refuses what is no model that answers, where a run would have done as well.

    Raises:
        ConfigError: with what it is instead, and where a model is.
    """
    if not (path / "config.json").is_file():
        inside = path / "model"
        hint = f"; there is a model in {str(inside)!r}" if (inside / "config.json").is_file() else ""
        raise ConfigError(
            f"{str(path)!r} is neither a run folder (lineage.json) nor a model folder (config.json){hint}"
        )
    refuse_reward_model(path)


def refuse_reward_model(path: Path) -> None:
    """Refuses the model under a reward model's head, which looks like any other.

    Raises:
        ConfigError: it is one.
    """
    from aha.models.reward_model import ABOUT

    if (path.resolve().parent / ABOUT).is_file():
        raise ConfigError(f"{str(path)!r} belongs to a reward model, which answers nothing: name a model that does")
