"""`make results`: runs R1-Zero and its control arms over seeds and writes the published tables.

Arm by arm, over all seeds, so that a table grows as arms finish; interrupt it at any time and run it again. What is
published is kept in docs/results/r1-zero/: one JSON per seed with the numbers, and the page made of them. A seed's file
keeps what an earlier machine measured for the arms that this one has not run.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from arm_by_arm import arm_by_arm
from common_loss import loss

from aha.evals.metrics import Interval, bootstrap_interval, paired_interval, seed_interval
from aha.report.figures import lines
from aha.report.reading import Run
from aha.rl.held_out import WELL_FORMED

ARMS = ("random-reward", "format-only", "bias-off", "dense", "no-long")
RECIPE = "r1-zero-arms"
HERE = Path(__file__).resolve().parent.parent / "docs" / "results" / "r1-zero"


def keep(run_: Run, seed: int) -> None:
    """Writes a seed's numbers: everything that the page needs, and nothing else."""
    per_problem: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    totals: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    trained = run_.config["evaluation"]["trained_levels"]
    for sample in run_.samples():
        if sample["level"] in trained:
            totals[sample["model"], sample["style"], sample["key"]].append(float(sample["correct"]))
    for (model, style, key), values in totals.items():
        per_problem[model][style][key] = round(fmean(values), 4)
    curves = {
        name: [
            {
                "step": step,
                "accuracy": row["pass_at_1"]["mean"],
                **{
                    k: row[k]
                    for k in ("format_rate", "mean_tokens_well_formed", "mean_tokens_right", "mean_tokens_wrong")
                },
                "reflections_per_answer": row["reflections_per_answer"],
            }
            for step, row in run_.rows(name, "evaluation_trained_levels")
        ]
        for name in run_.stages_of_kind("grpo")
    }
    violations = {
        name: [value for _, value in run_.rows(name, "max_vio")]
        for kind in ("pretrain", "grpo")
        for name in run_.stages_of_kind(kind)
    }
    path = HERE / f"seed{seed}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    summary = dict(run_.summary)
    rows = {
        row["name"]: {**row, "commit": row.get("commit") or made["commit"]}
        for made in (old.get("summary", {}), summary)
        for row in made.get("stages", [])
    }
    summary["stages"] = list(rows.values())
    formed_at = {
        name: next((step for step, share in run_.rows(name, "rewards/format/mean") if share >= WELL_FORMED), None)
        for name in run_.stages_of_kind("grpo")
    }
    data = {
        "seed": seed,
        "environment": run_.environment,
        "summary": summary,
        "results": {**old.get("results", {}), **run_.results},
        "per_problem": {**old.get("per_problem", {}), **per_problem},
        "curves": {**old.get("curves", {}), **curves},
        "formed_at": {**old.get("formed_at", {}), **formed_at},
        "common_loss": {**old.get("common_loss", {}), **common_losses(run_, old.get("common_loss", {}))},
        "max_vio": {**old.get("max_vio", {}), **{k: [round(v, 3) for v in own] for k, own in violations.items()}},
    }
    HERE.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")


def common_losses(run_: Run, known: dict[str, Any]) -> dict[str, Any]:
    """Pretrained models' losses on common documents; a model whose weights are known already is not measured again."""
    found = {}
    for name in ("pretrain", "pretrain-dense"):
        folder = run_.folder / name / "model"
        if (weights := folder / "model.safetensors").is_file():
            digest = hashlib.sha256(weights.read_bytes()).hexdigest()
            old = known.get(name, {})
            found[name] = old if old.get("weights") == digest else {"loss": loss(folder), "weights": digest}
    return found


def write_page() -> None:
    """The page of all seeds that are kept."""
    seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("seed*.json"))]
    if not seeds:
        return
    summaries = [seed["summary"] for seed in seeds]
    commits = sorted({str(row["commit"])[:12] for one in summaries for row in one["stages"]})
    headline = seeds[0]["results"]["r1-zero"]["zero"]["trained_levels"]["pass_at_1"]
    page = [
        "# R1-Zero from random weights: results",
        "",
        f"`make results` (recipe `{RECIPE}`, whose main arm is `r1-zero-tiny`) at commit {', '.join(commits)}; seeds "
        f"{', '.join(str(seed['seed']) for seed in seeds)}. {headline['problems']} held-out problems of the trained "
        f"levels, {headline['samples']} samples each at temperature 1, the same problems for every seed. Mean over "
        "seeds; 95% t-interval over seeds where there are several, else over problems.",
        "",
        "![held-out accuracy](accuracy.svg) ![length](length.svg)",
        "",
        *accuracy_table(seeds),
        *family_tables(seeds),
        *difference_table(seeds),
        *length_table(seeds),
        *load_table(seeds),
        *loss_table(seeds),
    ]
    (HERE / "README.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")
    for name, svg in pictures(seeds).items():
        (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"wrote {HERE / 'README.md'}", flush=True)


def pictures(seeds: list[dict[str, Any]]) -> dict[str, str]:
    """Held-out accuracy and thinking length over training, one curve per arm and seed."""
    curves = {f"r1-zero, seed {seed['seed']}": seed["curves"]["r1-zero"] for seed in seeds}
    first = seeds[0]
    for arm in (*ARMS, "r1-zero-no-long"):
        if arm in first["curves"]:
            curves[f"{arm}, seed {first['seed']}"] = first["curves"][arm]
    accuracy = {name: [(row["step"], row["accuracy"]) for row in curve] for name, curve in curves.items()}
    lengths = {
        f"seed {seed['seed']}": [(row["step"], row["mean_tokens_well_formed"]) for row in well_formed(seed, "r1-zero")]
        for seed in seeds
    }
    return {
        "accuracy": lines(accuracy, "held-out pass@1 over RL steps", percent=True),
        "length": lines(lengths, "R1-Zero, tokens per well-formed answer, from 90% format on"),
    }


def well_formed(seed: dict[str, Any], arm: str) -> list[dict[str, Any]]:
    """An arm's held-out evaluations from the step on in which 90% of training's answers were well-formed."""
    formed_at = seed["formed_at"].get(arm)
    return [row for row in seed["curves"].get(arm, []) if formed_at is not None and row["step"] > formed_at]


def models(seeds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(model, prompt style) pairs that any seed has: the main arm's first."""
    found = {(model, style) for seed in seeds for model, styles in seed["results"].items() for style in styles}
    order = ("pretrain", "r1-zero", *ARMS, "pretrain-no-long", "r1-zero-no-long")
    return sorted(found, key=lambda pair: (order.index(pair[0]), pair[1]))


def values(seeds: list[dict[str, Any]], model: str, style: str, *path: str) -> list[float]:
    """One number per seed that has it."""
    result = []
    for seed in seeds:
        node: Any = seed["results"].get(model, {}).get(style, {}).get("trained_levels")
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        if isinstance(node, int | float):
            result.append(float(node))
    return result


def spread(numbers: list[float], single: Interval | None = None) -> str:
    """Mean with its interval, in percent."""
    if not numbers:
        return "–"
    interval = seed_interval(numbers) if len(numbers) > 1 else single
    text = f"{100 * fmean(numbers):.1f}"
    if interval is None:
        return text
    return f"{text} [{100 * max(0.0, interval.low):.1f}, {100 * min(1.0, interval.high):.1f}]"


def accuracy_table(seeds: list[dict[str, Any]]) -> list[str]:
    """pass@1 and what goes with it, by model and prompt style."""
    table = [
        "## Accuracy",
        "",
        "| model | asked | seeds | pass@1, % | cons@k, % | format, % | true steps, % | tokens | reflection words |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for model, style in models(seeds):
        ones = values(seeds, model, style, "pass_at_1", "mean")
        single = None
        if len(ones) == 1:
            row = next(s for s in seeds if style in s["per_problem"].get(model, {}))
            single = bootstrap_interval(list(row["per_problem"][model][style].values()))
        votes = [
            next(iter(seed["results"][model][style]["trained_levels"]["cons_at_k"].values()), float("nan"))
            for seed in seeds
            if style in seed["results"].get(model, {})
        ]
        cells = [
            spread(ones, single),
            spread(votes),
            spread(values(seeds, model, style, "format_rate")),
            spread(values(seeds, model, style, "true_step_rate")),
            f"{fmean(values(seeds, model, style, 'mean_completion_tokens')):.1f}",
            f"{fmean(values(seeds, model, style, 'reflections_per_answer')):.2f}",
        ]
        table.append(f"| {model} | {style} | {len(ones)} | " + " | ".join(cells) + " |")
    return [*table, ""]


def family_tables(seeds: list[dict[str, Any]]) -> list[str]:
    """pass@1 by family and level under R1-Zero's template, and by domain."""
    table = ["## By family and level, R1-Zero's template, pass@1 in %", ""]
    chosen = [(model, style) for model, style in models(seeds) if style == "zero"]
    levels = ["1", "2", "3", "4", "5"]
    table += ["| model | family | " + " | ".join(f"level {level}" for level in levels) + " |", "|---|---|" + "---|" * 5]
    for model, style in chosen:
        cells: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
        for seed in seeds:
            by_family = seed["results"].get(model, {}).get(style, {}).get("all_levels", {}).get("by_family", {})
            for family, row in by_family.items():
                for level, value in row.items():
                    cells[family][level].append(value)
        for family, row in sorted(cells.items()):
            shown = " | ".join(spread(row[level]) for level in levels)
            table.append(f"| {model} | {family} | {shown} |")
    domains = sorted({d for s in seeds for m, w in chosen for d in _domains(s, m, w)})
    table += ["", "| model | " + " | ".join(domains) + " |", "|---|" + "---|" * len(domains)]
    for model, style in chosen:
        found = [_domains(seed, model, style) for seed in seeds]
        row = [spread([one[domain]["mean"] for one in found if domain in one]) for domain in domains]
        table.append(f"| {model} | " + " | ".join(row) + " |")
    return [*table, ""]


def _domains(seed: dict[str, Any], model: str, style: str) -> dict[str, Any]:
    found: dict[str, Any] = seed["results"].get(model, {}).get(style, {}).get("trained_levels", {}).get("by_domain", {})
    return found


def difference_table(seeds: list[dict[str, Any]]) -> list[str]:
    """Paired differences of R1-Zero to everything else, over the same problems (each problem's mean over seeds)."""
    table = [
        "## R1-Zero minus others, same held-out problems",
        "",
        "| other | asked | points | 95% interval over problems | seeds |",
        "|---|---|---|---|---|",
    ]
    for model, style in models(seeds):
        shared = [s for s in seeds if style in s["per_problem"].get(model, {}) and "r1-zero" in s["per_problem"]]
        if not shared or (model, style) == ("r1-zero", "zero"):
            continue
        ours, theirs = _problem_means(shared, "r1-zero", "zero"), _problem_means(shared, model, style)
        keys = sorted(ours.keys() & theirs.keys())
        interval = paired_interval([ours[k] for k in keys], [theirs[k] for k in keys])
        table.append(
            f"| {model} | {style} | {100 * interval.mean:+.1f} "
            f"| [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}] "
            f"| {len(shared)} |"
        )
    return [*table, ""]


def _problem_means(seeds: list[dict[str, Any]], model: str, style: str) -> dict[str, float]:
    collected: dict[str, list[float]] = defaultdict(list)
    for seed in seeds:
        for key, value in seed["per_problem"][model][style].items():
            collected[key].append(value)
    return {key: fmean(numbers) for key, numbers in collected.items()}


def length_table(seeds: list[dict[str, Any]]) -> list[str]:
    """Length of well-formed answers over training, from the first evaluation with 90% format."""
    table = [
        "## Thinking length of well-formed answers, from 90% format on",
        "",
        "Tokens of well-formed answers to the same held-out problems (in training the curriculum makes them harder), "
        "at the first evaluation from the step on in which 90% of training's answers were so, and at the last.",
        "",
        "| arm | seed | 90% at step | first (step) | last (step) | right, first → last | wrong, first → last "
        "| accuracy, first → last |",
        "|---|---|---|---|---|---|---|---|",
    ]
    grown: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for arm in ("r1-zero", *ARMS, "r1-zero-no-long"):
        for seed in seeds:
            if formed := well_formed(seed, arm):
                one, last = formed[0], formed[-1]
                right, wrong = (
                    " → ".join(_tokens(row[f"mean_tokens_{kind}"]) for row in (one, last))
                    for kind in ("right", "wrong")
                )
                table.append(
                    f"| {arm} | {seed['seed']} | {seed['formed_at'][arm]:.0f} "
                    f"| {one['mean_tokens_well_formed']:.1f} ({one['step']}) "
                    f"| {last['mean_tokens_well_formed']:.1f} ({last['step']}) | {right} | {wrong} "
                    f"| {one['accuracy']:.1%} → {last['accuracy']:.1%} |"
                )
                if one["mean_tokens_right"] and last["mean_tokens_right"]:
                    both = ("mean_tokens_well_formed", "mean_tokens_right")
                    grown[arm].append(tuple(last[name] - one[name] for name in both))
    table += ["", "| arm | seeds | growth of well-formed answers, tokens | growth of right answers, tokens |"]
    table += ["|---|---|---|---|"]
    for arm, pairs in grown.items():
        cells = [_interval([pair[place] for pair in pairs]) for place in (0, 1)]
        table.append(f"| {arm} | {len(pairs)} | {cells[0]} | {cells[1]} |")
    return [*table, ""]


def _interval(numbers: list[float]) -> str:
    """Mean with a 95% t-interval over seeds, where there are several."""
    interval = seed_interval(numbers)
    return f"{interval.mean:+.1f}" + (f" [{interval.low:+.1f}, {interval.high:+.1f}]" if len(numbers) > 1 else "")


def load_table(seeds: list[dict[str, Any]]) -> list[str]:
    """How far the fullest expert is above its share, through pretraining and RL, with the biases on and off."""
    table = [
        "## Load of the experts",
        "",
        "MaxVio: load of the fullest expert over the mean load, minus 1, on average over layers (V3, App. C).",
        "",
        "| stage | seeds | first tenth | last tenth |",
        "|---|---|---|---|",
    ]
    names = dict.fromkeys(name for seed in seeds for name in seed.get("max_vio", {}))
    for name in names:
        if name == "pretrain-dense":
            continue  # only its prediction module has experts
        runs = [own for seed in seeds if (own := seed.get("max_vio", {}).get(name)) and any(own)]
        ends = [[(fmean(own[: max(1, len(own) // 10)]), fmean(own[-max(1, len(own) // 10) :])) for own in runs]]
        if runs:
            first, last = (fmean(pair[place] for pair in ends[0]) for place in (0, 1))
            table.append(f"| {name} | {len(runs)} | {first:.2f} | {last:.2f} |")
    return [*table, ""]


def _tokens(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def loss_table(seeds: list[dict[str, Any]]) -> list[str]:
    """Held-out loss of the pretrained models: experts against dense at equal active parameters and tokens."""
    table = [
        "## Experts against a dense model of equal active parameters, on the same tokens",
        "",
        "Held-out loss after pretraining, nats per token, on 512 rows of documents that are the same for all models "
        "and seeds (131,072 tokens). The prediction module, which only training uses, has experts in both.",
        "",
        "| seed | experts | dense | dense minus experts |",
        "|---|---|---|---|",
    ]
    both = ("pretrain", "pretrain-dense")
    rows = [
        (seed["seed"], *(seed["common_loss"][name]["loss"] for name in both))
        for seed in seeds
        if all(name in seed.get("common_loss", {}) for name in both)
    ]
    for seed, experts, dense in rows:
        table.append(f"| {seed} | {experts:.4f} | {dense:.4f} | {dense - experts:+.4f} |")
    if len(rows) > 1:
        gap = seed_interval([dense - experts for _, experts, dense in rows])
        means = " | ".join(f"{fmean(row[place] for row in rows):.4f}" for place in (1, 2))
        table.append(f"| mean, 95% t-interval | {means} | {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}] |")
    return [*table, ""] if rows else []


if __name__ == "__main__":
    sys.exit(arm_by_arm(__doc__ or "", RECIPE, ARMS, keep, write_page))
