"""Runs a recipe with its arms over seeds, arm by arm over all seeds, so that published tables grow as arms finish."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from aha.report.reading import Run, read_run


def arm_by_arm(
    about: str, recipe: str, arms: Sequence[str], keep: Callable[[Run, int], None], write_page: Callable[[], None]
) -> int:
    """The command line of a results script. What is done already is not run again.

    Args:
        about: the script's description.
        recipe: has a setting `arms`.
        arms: their names, in the order in which they run.
        keep: writes a seed's numbers.
        write_page: makes the page of all numbers kept.

    Returns:
        The exit code: that of the first run that failed, else 0.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run (default: 0 1 2)")
    parser.add_argument("--arms", nargs="*", default=list(arms), choices=arms, help="arms (default: all)")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the run folders are (default: runs)")
    parser.add_argument("--tables-only", action="store_true", help="run nothing; write the page from what is there")
    options = parser.parse_args()
    for count in range(1 if options.tables_only else len(options.arms) + 1):
        for seed in options.seeds:
            folder = options.runs / f"{recipe}-seed{seed}"
            if not options.tables_only and (code := _run(recipe, seed, options.arms[:count], folder)):
                return code
            if (folder / "summary.json").is_file():
                keep(read_run(folder), seed)
                write_page()
    write_page()
    return 0


def _run(recipe: str, seed: int, arms: Sequence[str], folder: Path) -> int:
    command = [sys.executable, "-m", "aha", "run", recipe, "--seed", str(seed), "--out", str(folder)]
    return subprocess.run([*command, "--set", f"arms=[{','.join(arms)}]"], check=False).returncode
