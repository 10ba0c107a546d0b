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

from aha.evals.metrics import Interval, bootstrap_interval, ends, paired_interval, seed_interval
from aha.recipes.r1_zero_arms import ARMS
from aha.report.figures import lines, smoothed, two_axes
from aha.report.reading import Run
from aha.report.thinking import LENGTH

RECIPE = "r1-zero-arms"
TIMES = {"1": "once", "2": "twice"}
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
    trained_stages = run_.stages_of_kind("grpo")
    curves = {
        name: [
            {"step": step, "accuracy": row["pass_at_1"]["mean"]}
            for step, row in run_.rows(name, "evaluation_trained_levels")
        ]
        for name in trained_stages
    }
    training = {
        name: {
            "tokens": [(step, round(tokens, 2)) for step, tokens in run_.rows(name, LENGTH)],
            "accuracy": [(step, round(share, 4)) for step, share in run_.rows(name, "rewards/accuracy/mean")],
        }
        for name in trained_stages
    }
    thinking = {
        model: {name: about[name] for name in about if name != "by_family"} for model, about in run_.thinking.items()
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
    data = {
        "seed": seed,
        "environment": run_.environment,
        "summary": summary,
        "results": {**old.get("results", {}), **run_.results},
        "per_problem": {**old.get("per_problem", {}), **per_problem},
        "curves": {**old.get("curves", {}), **curves},
        "training": {**old.get("training", {}), **training},
        "thinking": {**old.get("thinking", {}), **thinking},
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
        "![held-out accuracy](accuracy.svg) ![thinking](thinking.svg)",
        "",
        *thinking_table(seeds),
        *arms_table(seeds),
        *accuracy_table(seeds),
        *family_tables(seeds),
        *difference_table(seeds),
        *load_table(seeds),
        *loss_table(seeds),
    ]
    (HERE / "README.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")
    for name, svg in pictures(seeds).items():
        (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")
    print(f"wrote {HERE / 'README.md'}", flush=True)


def pictures(seeds: list[dict[str, Any]]) -> dict[str, str]:
    """Held-out accuracy over training, one curve per arm and seed; thinking and right answers of the main arm."""
    curves = {f"r1-zero, seed {seed['seed']}": seed["curves"]["r1-zero"] for seed in seeds}
    first = seeds[0]
    for arm in ARMS:
        if arm in first["curves"]:
            curves[f"{arm}, seed {first['seed']}"] = first["curves"][arm]
    accuracy = {name: [(row["step"], row["accuracy"]) for row in curve] for name, curve in curves.items()}
    drawn = {"accuracy": lines(accuracy, "held-out pass@1 over RL steps", percent=True)}
    learnt = {seed["seed"]: own for seed in seeds if (own := seed.get("training", {}).get("r1-zero"))}
    if learnt:
        drawn["thinking"] = two_axes(
            {f"thinking, seed {seed}": smoothed(own["tokens"]) for seed, own in learnt.items()},
            {f"right, seed {seed}": smoothed(own["accuracy"]) for seed, own in learnt.items()},
            "R1-Zero on its training problems, which get harder",
            "tokens of thinking",
        )
    return drawn


def measured(seed: dict[str, Any], arm: str) -> dict[str, float]:
    """What a seed says of an arm's thinking, by the titles of the tables; what was not measured is left out."""
    thinking = seed.get("thinking", {})
    if arm not in thinking:
        return {}
    about, base = thinking[arm], thinking.get(f"pretrain-{arm}") or thinking["pretrain"]
    after, before = about["trained_levels"], base["trained_levels"]
    lengths = [tokens for _, tokens in seed.get("training", {}).get(arm, {}).get("tokens", ())]
    first_and_last = ends(lengths)

    def ratio(pair: tuple[float | None, float | None]) -> float | None:
        return pair[1] / pair[0] if pair[0] and pair[1] is not None else None

    def points(value: float | None) -> float | None:
        return None if value is None else 100 * value

    forced = {
        f"made to think on {TIMES.get(turn, f'{turn} times')}, {where.replace('_', ' ')}: points": points(gain["mean"])
        for where in ("trained_levels", "one_level_above")
        for turn, gain in about["forced"][where].items()
    }
    found = {
        "pass@1 of the base, %": points(before["accuracy"]["mean"]),
        "pass@1, %": points(after["accuracy"]["mean"]),
        "thinking tokens of the base": before["thinking_tokens"],
        "thinking tokens": after["thinking_tokens"],
        "growth of thinking, times": ratio((before["thinking_tokens"], after["thinking_tokens"])),
        "growth on its own training problems, times": ratio(first_and_last or (None, None)),
        "accuracy one level above training, % of that at the highest": points(about["beyond_training"][0]),
        "accuracy half as many levels above, % of that at the highest": points(about["beyond_training"][1]),
        **forced,
        "one more pass: right answers made wrong, %": points(about["think_longer"]["right_to_wrong"]),
        "one more pass: wrong answers made right, %": points(about["think_longer"]["wrong_to_right"]),
        "right answers to searches that reject an attempt, %": points(about["repair_share"]),
        "these, cut just before it: points lost": about["repair_worth"],
    }
    return {title: value for title, value in found.items() if value is not None}


def mean(numbers: list[float]) -> str:
    """Mean with a 95% t-interval over seeds, where there are several."""
    if not numbers:
        return "–"
    interval = seed_interval(numbers)
    return f"{interval.mean:.1f}" + (f" [{interval.low:.1f}, {interval.high:.1f}]" if len(numbers) > 1 else "")


def thinking_table(seeds: list[dict[str, Any]]) -> list[str]:
    """Whether R1-Zero's thinking grows, helps and reaches further, with every seed."""
    found = {seed["seed"]: own for seed in seeds if (own := measured(seed, "r1-zero"))}
    if not found:
        return []
    table = [
        "## Does thinking grow, help, and reach further?",
        "",
        "Thinking tokens are those of well-formed answers to held-out problems of the trained levels; pass@1 is of the "
        "same answers. Training's own problems get harder as the curriculum opens levels. Made to think on: “Wait” "
        "takes the place of the end of the thinking. Mean over seeds with a 95% t-interval.",
        "",
        "| R1-Zero | mean | " + " | ".join(f"seed {seed}" for seed in found) + " |",
        "|---|---|" + "---|" * len(found),
    ]
    for title in dict.fromkeys(title for own in found.values() for title in own):
        cells = [f"{own[title]:.1f}" if title in own else "–" for own in found.values()]
        numbers = [own[title] for own in found.values() if title in own]
        table.append(f"| {title} | {mean(numbers)} | " + " | ".join(cells) + " |")
    return [*table, ""]


def arms_table(seeds: list[dict[str, Any]]) -> list[str]:
    """The same of all arms, the figures that tell them apart."""
    arms = [arm for arm in ("r1-zero", *ARMS) if any(measured(seed, arm) for seed in seeds)]
    if len(arms) < 2:
        return []
    titles = (
        "pass@1, %",
        "thinking tokens",
        "growth of thinking, times",
        "growth on its own training problems, times",
        "accuracy one level above training, % of that at the highest",
        "made to think on once, trained levels: points",
        "right answers to searches that reject an attempt, %",
    )
    table = [
        "## Thinking, by arm",
        "",
        "| arm | seeds | " + " | ".join(titles) + " |",
        "|---|---|" + "---|" * len(titles),
    ]
    for arm in arms:
        found = [own for seed in seeds if (own := measured(seed, arm))]
        cells = [mean([own[title] for own in found if title in own]) for title in titles]
        table.append(f"| {arm} | {len(found)} | " + " | ".join(cells) + " |")
    return [*table, ""]


def models(seeds: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """(model, prompt style) pairs that any seed has: the main arm's first."""
    found = {(model, style) for seed in seeds for model, styles in seed["results"].items() for style in styles}
    order = ("pretrain", "r1-zero")
    return sorted(found, key=lambda pair: (order.index(pair[0]) if pair[0] in order else len(order), *pair))


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
    by_families = [
        seed["results"].get(model, {}).get(style, {}).get("all_levels", {}).get("by_family", {})
        for seed in seeds
        for model, style in chosen
    ]
    levels = sorted({level for one in by_families for row in one.values() for level in row}, key=int)
    table += ["| model | family | " + " | ".join(f"level {level}" for level in levels) + " |"]
    table += ["|---|---|" + "---|" * len(levels)]
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
        tenths = [(fmean(own[: max(1, len(own) // 10)]), fmean(own[-max(1, len(own) // 10) :])) for own in runs]
        if runs:
            first, last = (fmean(pair[place] for pair in tenths) for place in (0, 1))
            table.append(f"| {name} | {len(runs)} | {first:.2f} | {last:.2f} |")
    return [*table, ""]


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
