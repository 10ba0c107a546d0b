"""R1's recipe over seeds: runs what is missing, and writes the published comparison.

Arm by arm, over all seeds, so that the tables grow as arms finish; interrupt it at any time and run it again. What is
published is kept in docs/results/r1/: one JSON per seed with the numbers, and the page made of them. A seed's file
keeps what an earlier machine measured for the arms that this one has not run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from arm_by_arm import arm_by_arm

from aha.evals.metrics import seed_interval
from aha.evals.scaling import METHODS
from aha.recipes.r1_arms import LONGER, R1_ARMS, r1_arms
from aha.report.comparison import COLUMNS, Column, level_table, rows_of, value
from aha.report.directions import Direction, directions, hacking, scaling_directions, scaling_figures
from aha.report.figures import lines
from aha.report.r1 import ACCURACIES, GROWING, TRUSTED
from aha.report.reading import Run
from aha.report.scaling import forced, levels_budget

RECIPE = "r1-arms"
HERE = Path(__file__).resolve().parent.parent / "docs" / "results" / "r1"
BY_RL = {"qwen3": "qwen3-rl", "qwen3-longer": "qwen3-longer-rl"}
TEACHER = (
    "pretrain", "r1-zero", "v3-data", "v3", "cold-start-data", "dev1", "dev2", "dev3-data", "general-data", "dev3",
    "preferences", "helpful-rm", "harmless-rm", "r1", "distillation-data",
)  # fmt: skip
"""The stages that R1 and its solutions are made of."""
PASS = COLUMNS[0]


def keep(run_: Run, seed: int) -> None:
    """Writes a seed's numbers, beside those that are there already."""
    path = HERE / f"seed{seed}.json"
    old = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    commit = (run_.environment.get("git") or {}).get("commit")
    models = {
        row.model: {
            "style": row.style,
            "commit": run_.stage(row.model).get("commit", commit),
            **{column.title: value(row, column) for column in COLUMNS},
            "levels": {
                domain: {level: by_model[row.model] for level, by_model in levels.items() if row.model in by_model}
                for domain, levels in level_table([row]).items()
            },
        }
        for row in rows_of(run_)
    }
    names = [stage["name"] for stage in run_.lineage.get("stages", []) if stage["done"]]
    curves = {name: run_.rows(name, "evaluation_general") for name in names}
    both_scores = {
        name: [[step, row["preference"], row["score"]] for step, row in rows] for name, rows in curves.items() if rows
    }
    audits = {name: {k: v for k, v in audit.items() if k != "by_cell"} for name, audit in run_.audits.items()}
    scaling = {
        model: {way: {**result, "commit": run_.stage("scaling").get("commit", commit)} for way, result in ways.items()}
        for model, ways in run_.scaling.items()
    }
    data = {
        "seed": seed,
        "versions": run_.environment.get("versions"),
        "models": {**old.get("models", {}), **models},
        "stages": {**old.get("stages", {}), **{row["name"]: _cost(row) for row in run_.summary.get("stages", [])}},
        "audits": {**old.get("audits", {}), **audits},
        "general_curves": {**old.get("general_curves", {}), **both_scores},
        "scaling": {**old.get("scaling", {}), **scaling},
    }
    HERE.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, ensure_ascii=False, sort_keys=True, indent=1) + "\n", encoding="utf-8")


def _cost(row: Mapping[str, Any]) -> dict[str, Any]:
    wanted = ("minutes", "tokens_trained", "examples", *ACCURACIES, "held_out_loss")
    return {name: row[name] for name in wanted if name in row}


def write_page() -> None:
    """The page of all seeds that are kept."""
    seeds = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(HERE.glob("seed*.json"))]
    if not seeds:
        return
    curves_of = [ways for seed in seeds for ways in seed["scaling"].values()]
    made = [*(seed["models"] for seed in seeds), *curves_of]
    commits = sorted({str(one["commit"])[:12] for named in made for one in named.values()})
    numbered = " ".join(str(seed["seed"]) for seed in seeds)
    page = [
        "# DeepSeek-R1's recipe from random weights: results",
        "",
        f'`make results ARGS="--seeds {numbered}"` at commit {", ".join(commits)}. '
        "Held-out problems of the trained levels, 16 samples each; mean over seeds, with a 95% t-interval over seeds "
        "where there are several.",
        "",
        *direction_list(seeds),
        *stage_table(seeds),
        *cost_lines(seeds),
        *level_tables(seeds),
        *scaling_tables(seeds),
        *reward_model_table(seeds),
        *audit_table(seeds),
    ]
    (HERE / "README.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")
    curves = {
        f"{kind}, seed {seed['seed']}": [(step, row[number]) for step, *row in seed["general_curves"][TRUSTED]]
        for seed in seeds
        if TRUSTED in seed["general_curves"]
        for number, kind in enumerate(("learned", "true"))
    }
    if curves:
        title = "general tasks, held-out: the reward models' score and the true one"
        (HERE / "hacking.svg").write_text(lines(curves, title, percent=True), encoding="utf-8")
    if votes := votes_picture(seeds):
        (HERE / "scaling.svg").write_text(votes, encoding="utf-8")
    print(f"wrote {HERE / 'README.md'}", flush=True)


def model_names(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Models in the order of the recipe, whatever seed has them."""
    order = [
        "pretrain", "v3", "r1-zero", "dev1", "dev2", "dev3", "r1", "qwen3", "llama", "qwen3-mini", "qwen2",
        "qwen3-base", "qwen3-rl", "qwen3-distilled-rl", "qwen3-longer-base", "qwen3-longer", "qwen3-longer-rl",
        "r1-long-reward",
    ]  # fmt: skip
    there = {name for seed in seeds for name in seed["models"]}
    return [name for name in order if name in there] + sorted(there - set(order))


def numbers(seeds: Sequence[Mapping[str, Any]], model: str, column: Column) -> list[float]:
    """One number per seed that has it."""
    found = [seed["models"].get(model, {}).get(column.title) for seed in seeds]
    return [number for number in found if number is not None]


def cell(found: Sequence[float], column: Column) -> str:
    """Mean with its interval."""
    if not found:
        return "–"
    scale = 100.0 if column.kind == "percent" else 1e-6 if column.kind == "millions" else 1.0
    text = f"{scale * fmean(found):.{2 if column.kind == 'millions' else 1}f}"
    if len(found) < 2 or column.kind in ("millions", "minutes"):
        return text
    interval = seed_interval(found)
    low, high = scale * interval.low, scale * interval.high
    if column.kind == "percent":
        low, high = max(0.0, low), min(100.0, high)
    return f"{text} [{low:.1f}, {high:.1f}]"


def header(title: str, columns: Sequence[str]) -> list[str]:
    """A heading and the head of a Markdown table."""
    return [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]


def direction_list(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """The papers' directions, judged in each seed, from the means over seeds, and against the noise of seeds."""
    means = {
        model: {column.title: fmean(found) if (found := numbers(seeds, model, column)) else None for column in COLUMNS}
        for model in model_names(seeds)
    }
    curves = [scaling_figures(seed["scaling"]) for seed in seeds if seed["scaling"]]
    both = {name: fmean(found[name] for found in curves) for name in curves[0]} if curves else {}
    listed = [*directions(means, GROWING, BY_RL), *trusted(seeds), *scaling_directions(both)]
    each = [
        [
            *directions(seed["models"], GROWING, BY_RL),
            *trusted([seed]),
            *scaling_directions(scaling_figures(seed["scaling"])),
        ]
        for seed in seeds
    ]
    columns = ["", "direction", "measured (mean over seeds)", "seeds", "past the bar by, points"]
    page = header("What the papers say, and what came out", columns)
    for one in listed:
        same = [direction for found in each for direction in found if direction.statement == one.statement]
        margins = [direction.margin for direction in same]
        count = sum(direction.holds for direction in same)
        page.append(
            f"| {verdict(one, same)} | {one.statement} | {one.measured} | {count} of {len(same)} | {points(margins)} |"
        )
    note = (
        "Past the bar: how far the figures are past what the direction asks, the nearest where it asks several things; "
        "mean over seeds, with a 95% t-interval of these differences (of the last: hundredths of a correlation). "
        "“Holds”: in each seed, and the interval is above 0. “In each seed”: as much, but within what seeds differ by."
    )
    return [*page, "", note, ""]


def verdict(mean: Direction, seeds: Sequence[Direction]) -> str:
    """Whether a direction holds in each seed and beyond what seeds differ by, or how much less can be said."""
    if all(direction.holds for direction in seeds):
        alone = len(seeds) < 2
        return "holds" if alone or seed_interval([d.margin for d in seeds]).low > 0 else "in each seed"
    return "on average" if mean.holds else "**does not hold**"


def points(margins: Sequence[float]) -> str:
    """A mean difference with its interval."""
    interval = seed_interval([100 * margin for margin in margins])
    return f"{interval.mean:+.1f}" + (f" [{interval.low:.1f}, {interval.high:.1f}]" if len(margins) > 1 else "")


def trusted(seeds: Sequence[Mapping[str, Any]]) -> list[Direction]:
    """What became of the reward models' score and of the true one, means over the seeds that have the arm."""
    curves = [seed["general_curves"][TRUSTED] for seed in seeds if TRUSTED in seed["general_curves"]]
    if not curves:
        return []
    first, last = ([fmean(curve[end][kind] for curve in curves) for kind in (1, 2)] for end in (0, -1))
    return [hacking((first[0], first[1]), (last[0], last[1]))]


def stage_table(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Models down, figures across."""
    models = model_names(seeds)
    columns = [column for column in COLUMNS if any(numbers(seeds, model, column) for model in models)]
    units = {"percent": ", %", "millions": ", M", "minutes": "", "number": ""}
    page = header("The stage table", ["model", "style", *(c.title + units[c.kind] for c in columns)])
    for model in models:
        style = next(seed["models"][model]["style"] for seed in seeds if model in seed["models"])
        having = sum(model in seed["models"] for seed in seeds)
        cells = []
        for column in columns:
            found = numbers(seeds, model, column)
            some = 0 < len(found) < having and column.kind == "percent"
            cells.append(cell(found, column) + (f" (of {len(found)})" if some else ""))
        page.append(f"| {model} | {style} | " + " | ".join(cells) + " |")
    return [
        *page,
        "",
        "; ".join(f"{c.title}: {c.about}" for c in columns if c.about) + ". (of n): of n seeds.",
        "",
        *origins(seeds),
    ]


def origins(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which commit made which model of which seed, and which models not all seeds have."""
    lines = []
    for seed in seeds:
        made: dict[str, list[str]] = {}
        for model in model_names([seed]):
            made.setdefault(str(seed["models"][model]["commit"])[:12], []).append(model)
        most = max(made, key=lambda commit: len(made[commit]))
        others = "".join(f"; {', '.join(models)} at {commit}" for commit, models in made.items() if commit != most)
        lines += [f"Seed {seed['seed']}: commit {most}{others}."]
    named: dict[str, list[str]] = {}
    for model in model_names(seeds):
        having = [str(seed["seed"]) for seed in seeds if model in seed["models"]]
        if len(having) < len(seeds):
            named.setdefault(", ".join(having), []).append(model)
    return [" ".join([*lines, *(f"Seeds {having} only: {', '.join(models)}." for having, models in named.items())]), ""]


def cost_lines(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What distillation and RL spend on the same student, and what the teacher cost."""
    minutes = [{name: stage.get("minutes", 0.0) for name, stage in seed["stages"].items()} for seed in seeds]
    lines = []
    for student, by_rl in BY_RL.items():
        found = [own for own in minutes if student in own and by_rl in own]
        if found:
            parts = [
                fmean(sum(own.get(name, 0.0) for name in names) for own in found)
                for names in ((f"{student}-base",), (student,), (by_rl,), TEACHER)
            ]
            lines.append(
                f"Minutes of {student}: its base {parts[0]:.1f}, then distillation {parts[1]:.1f} or RL {parts[2]:.1f} "
                f"(sampling and training); the teacher with its solutions, paid for once, {parts[3]:.1f}. RL has "
                f"R1-Zero's settings for {r1_arms().student_rl.steps} steps, and starts from a base that is right in "
                f"{cell(numbers(seeds, f'{student}-base', PASS), PASS)}% of its samples."
            )
    if lines:
        lines.append(
            "RL reinforces what its base does now and then: whether distillation is ahead of it depends on the base. "
            f"{LONGER.name} is qwen3 with {LONGER.pretraining} times the pretraining, taught and trained alike."
        )
    return [line for one in lines for line in (one, "")]


def level_tables(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """pass@1 / majority vote / any right, by domain and level."""
    models = model_names(seeds)
    rows: dict[tuple[str, str], dict[str, list[Mapping[str, float]]]] = {}
    for seed in seeds:
        for model, row in seed["models"].items():
            for domain, levels in row["levels"].items():
                for level, figures in levels.items():
                    rows.setdefault((domain, level), {}).setdefault(model, []).append(figures)
    page = header("By domain and level: pass@1 / cons@16 / pass@16, %", ["", *models])
    for (domain, level), by_model in sorted(rows.items()):
        cells = []
        for model in models:
            found = by_model.get(model, [])
            keys = ("pass_at_1", "cons_at_k", "pass_at_k")
            cells.append(" / ".join(f"{100 * fmean(f[key] for f in found):.0f}" for key in keys) if found else "–")
        page.append(f"| {domain} {level} | " + " | ".join(cells) + " |")
    return [*page, ""]


def scaling_tables(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Thinking longer: accuracy at equal tokens, a table per model with methods down and budgets across."""
    by_model = scaling_results(seeds)
    if not by_model:
        return []
    page = ["## Thinking longer: held-out accuracy at equal tokens a question, %", ""]
    page += [f"All levels; mean over seeds ({', '.join(map(str, scaling_seeds(seeds)))}), 95% t-interval. ", ""]
    page += ["![votes of all models](scaling.svg)", ""]
    for name, results in by_model.items():
        budgets = sorted(results[0]["at_equal_tokens"], key=int)
        page += ["| " + " | ".join([name, *(f"{budget} tokens" for budget in budgets)]) + " |"]
        page += ["|" + "---|" * (len(budgets) + 1)]
        for method in results[0]["curves"]:
            points = [[one["at_equal_tokens"][budget][method] for one in results] for budget in budgets]
            cells = [cell([p["accuracy"]["mean"] for p in own], PASS) if all(own) else "–" for own in points]
            page.append(f"| {METHODS[method].title} | " + " | ".join(cells) + " |")
        page += ["", *forced_rows(name, results), *level_rows(name, results)]
    note = (
        "–: the cheapest setting costs more. “any right” looks at the truth. A method that gets worse with more tokens "
        "stays as bad as its dearest setting. Budget: tokens at which thinking is cut off, or to which it is prolonged."
    )
    return [*page, note, ""]


def forced_rows(name: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One model's accuracy where its thinking is cut off at a budget or prolonged to it, and what it then costs."""
    found = [forced(one) for one in results]
    if not found[0]:
        return []
    titles = list(next(iter(found[0].values())))
    columns = [column for title in titles for column in (title, "tokens")]
    page = ["| " + " | ".join([f"{name}: budget", *columns]) + " |", "|" + "---|" * (len(columns) + 1)]
    for budget, points in found[0].items():
        cells = []
        for title in points:
            own = [one[budget][title] for one in found]
            cells += [cell([p["accuracy"]["mean"] for p in own], PASS), f"{fmean(p['tokens'] for p in own):.0f}"]
        page.append(f"| {budget} | " + " | ".join(cells) + " |")
    return [*page, ""]


def level_rows(name: str, results: Sequence[Mapping[str, Any]]) -> list[str]:
    """One model's methods by level at the largest number of tokens that is compared up to 256."""
    budget = levels_budget(results[0])
    if budget is None:
        return []
    points = {
        method: [one["at_equal_tokens"][budget][method] for one in results]
        for method in results[0]["curves"]
        if all(one["at_equal_tokens"][budget][method] for one in results)
    }
    levels = sorted({level for own in points.values() for level in own[0]["by_level"]})
    page = ["| " + " | ".join([f"{name}, {budget} tokens", *(f"level {level}" for level in levels)]) + " |"]
    page.append("|" + "---|" * (len(levels) + 1))
    for method, own in points.items():
        cells = [cell([one["by_level"][level]["accuracy"]["mean"] for one in own], PASS) for level in levels]
        page.append(f"| {METHODS[method].title} | " + " | ".join(cells) + " |")
    return [*page, ""]


def scaling_results(seeds: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """By model and way of asking: the results of the seeds that have them."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for seed in seeds:
        for model, ways in seed["scaling"].items():
            for way, result in ways.items():
                found.setdefault(f"{model}, asked as {way}", []).append(result)
    return found


def scaling_seeds(seeds: Sequence[Mapping[str, Any]]) -> list[int]:
    """The seeds whose curves are there."""
    return [seed["seed"] for seed in seeds if seed["scaling"]]


def votes_picture(seeds: Sequence[Mapping[str, Any]]) -> str | None:
    """Majority votes of all models against tokens spent, means over seeds."""
    curves = {}
    for name, results in scaling_results(seeds).items():
        by_setting = zip(*(one["curves"]["majority"] for one in results), strict=True)
        curves[name] = [
            (fmean(p["tokens"] for p in points), fmean(p["accuracy"]["mean"] for p in points)) for points in by_setting
        ]
    if not curves:
        return None
    return lines(curves, "majority vote over more and more answers", "tokens per question", percent=True, log_x=True)


def reward_model_table(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Accuracy of the reward models, and what becomes of the score when it is trusted for long."""
    models = {
        name: [seed["stages"][name] for seed in seeds if name in seed["stages"]]
        for name in ("helpful-rm", "harmless-rm")
    }
    shown = [key for key in ACCURACIES if any(key in row for found in models.values() for row in found)]
    page = header("Reward models", ["reward model", "seeds", *(ACCURACIES[key] for key in shown)])
    for name, found in models.items():
        if found:
            figures = [cell([row[key] for row in found if key in row], PASS) for key in shown]
            page.append(f"| {name} | {len(found)} | " + " | ".join(figures) + " |")
    page += [
        "",
        "Of a prompt's pairs those are taken whose true scores are furthest apart, also held-out ones: helpful-rm's "
        "accuracy is that of the clear cases. In RL harmless-rm judges harmful requests alone.",
        "",
        *judge_lines(seeds),
    ]
    curves = [seed["general_curves"][TRUSTED] for seed in seeds if TRUSTED in seed["general_curves"]]
    if curves:
        page += [
            "",
            "The reward trusted too long (arm long-reward: from the first step on, for longer, on four prompts of five "
            "and with no KL term; R1's own final RL has them late, on half of the prompts), held-out general tasks:",
            "",
        ]
        page += ["| seed | step | learned score, % | true score, % |", "|---|---|---|---|"]
        for seed in seeds:
            for step, learned, true in seed["general_curves"].get(TRUSTED, []):
                page.append(f"| {seed['seed']} | {step:.0f} | {100 * learned:.1f} | {100 * true:.1f} |")
        page += ["", "![the learned score and the true one](hacking.svg)"]
    return [*page, ""]


def judge_lines(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """Who decided which response of a pair is the better one."""
    lines = []
    for seed in seeds:
        audit = seed["audits"].get("preferences", {})
        if "agreement" in audit:
            lines.append(
                f"Seed {seed['seed']}: {audit['judge']} decided the pairs. V3's two orders agree on "
                f"{100 * audit['orders_agree']:.0f}% of them, and there with the world's scores on "
                f"{100 * audit['agreement']:.0f}% (it decides from {100 * audit['floor']:.0f}%)."
            )
    if any(seed["audits"].get("preferences", {}).get("judge") == "the world's scores" for seed in seeds):
        lines.append(
            "Where the world's scores decide, the two accuracies of helpful-rm are one number by construction."
        )
    return lines


def audit_table(seeds: Sequence[Mapping[str, Any]]) -> list[str]:
    """What rejection sampling kept, per seed."""
    titles = ["stage", "seed", "in", "dropped by", "kept", "V3 agrees with the rules", "summaries by V3"]
    page = header("Rejection sampling", titles)
    for seed in seeds:
        for name, audit in seed["audits"].items():
            if "total" in audit:
                total = dict(audit["total"])
                kept = total.pop("kept")
                dropped = ", ".join(f"{rule} {count}" for rule, count in total.items() if count)
                judge = "–"
                if "judge" in audit:
                    say = "a say" if audit["judge"]["has_a_say"] else "no say"
                    judge = f"{100 * audit['judge']['agreement']:.0f}%: {say}"
                by_v3 = audit.get("summaries", {}).get("by V3", 0)
                page.append(f"| {name} | {seed['seed']} | {audit['in']} | {dropped} | {kept} | {judge} | {by_v3} |")
    return [*page, ""]


if __name__ == "__main__":
    sys.exit(arm_by_arm(__doc__ or "", RECIPE, R1_ARMS, keep, write_page))
