"""A model of a run on the Hugging Face Hub, with a card that says what was measured of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from httpx2 import HTTPError, HTTPStatusError
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from aha.environment import DISTRIBUTION
from aha.errors import AhaError, ConfigError
from aha.runs import RunFolder
from aha.stages.checkpoint import need_model_folder

CARD = "README.md"
MEASURED = (
    ("pass_at_1", "pass@1, %"),
    ("format_rate", "well-formed answers, %"),
    ("language_consistency", "words in the question's language, %"),
)
"""Of the summary's figures, those that the card has, in its order; all are shares."""


class PushError(AhaError):
    """The Hub refused a model, or could not be reached."""


def push(folder: Path, repo: str, private: bool = False) -> str:
    """Uploads a model folder with its card; returns the address of the commit.

    Args:
        folder: a model folder, of a run (`RUN/STAGE/model`) or any other.
        repo: `NAME/REPO`; it is made if it is not there.
        private: whether a new repository is private.

    Raises:
        CheckpointError: it is not a model folder.
        ConfigError: the repository's name is not one.
        PushError: nobody is logged in, or the Hub says no.
    """
    need_model_folder(str(folder))
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.name != CARD]
    operations = [CommitOperationAdd(path.name, str(path)) for path in files]
    operations.append(CommitOperationAdd(CARD, model_card(folder, repo).encode()))
    api = HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(repo, operations, commit_message=f"{folder.parent.name}: model and card")
    except HFValidationError as error:
        raise ConfigError(f"{repo!r} is not the name of a repository: expected NAME/REPO") from error
    except LocalTokenNotFoundError as error:
        raise PushError("nobody is logged in to the Hub: run `hf auth login`, or set HF_TOKEN") from error
    except (HfHubHTTPError, HTTPStatusError) as error:
        raise PushError(f"the Hub did not take {repo!r}: {' '.join(str(error).split())[:300]}") from error
    except (HTTPError, OSError) as error:
        raise PushError(f"the Hub cannot be reached: {' '.join(str(error).split())[:300]}") from error
    return str(commit.commit_url)


def model_card(folder: Path, repo: str) -> str:
    """The card: what it is, what was measured, how to use it. Figures are those of the run's own summary."""
    run, stage = folder.parent.parent, folder.parent.name
    made = _of_run(run, stage) if (run / "config.yaml").is_file() else []
    name = repo.rpartition("/")[2]
    return "\n".join(
        [
            "---",
            "library_name: transformers",
            f"tags: [{DISTRIBUTION}, reasoning]",
            "---",
            "",
            f"# {name}",
            "",
            *made,
            "## Use",
            "",
            "```",
            f"hf download {repo} --local-dir {name}",
            f"aha chat {name}",
            "```",
            "",
        ]
    )


def _of_run(run: Path, stage: str) -> list[str]:
    folder = RunFolder.open(run)
    config, summary = folder.config(), folder.json("summary") or {}
    rows: list[dict[str, Any]] = summary.get("stages", [])
    row = next((row for row in rows if row["name"] == stage), {})
    parent = f", from `{row['parent']}`" if row.get("parent") else ""
    lines = [
        f"Stage `{stage}` of the recipe `{config.get('recipe')}`, seed {config.get('seed')}{parent}. Made with aha at "
        f"commit `{str(row.get('commit'))[:12]}` (`aha run {config.get('recipe')} --seed {config.get('seed')}`).",
        "",
    ]
    figures = [(title, _share(row[key])) for key, title in MEASURED if key in row]
    if not figures:
        return [*lines, "Nothing was measured of it in this run.", ""]
    asked = row["pass_at_1"]
    head = f"On {asked['problems']} held-out problems, {asked['samples']} samples each; 95% interval over problems."
    table = ["| measure | value |", "|---|---|", *(f"| {title} | {value} |" for title, value in figures)]
    return [*lines, "## Measured", "", head, "", *table, ""]


def _share(figure: Any) -> str:
    """A share, with its interval where there is one, in percent."""
    if isinstance(figure, dict):
        return f"{100 * figure['mean']:.1f} [{100 * figure['low']:.1f}, {100 * figure['high']:.1f}]"
    return f"{100 * figure:.1f}"
