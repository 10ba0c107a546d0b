"""What a run of R1's recipe adds to the page: the comparison, one prompt through all models, audits, reward models."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from aha.report import figures
from aha.report.comparison import LEVEL_NOTE, ModelRow, level_lines, measured, rows_of, stage_lines
from aha.report.directions import Direction, directions, figures_of, hacking, scaling_directions, scaling_figures
from aha.report.reading import Run
from aha.report.sections import Exchange, Section, Table, Transcript, percent
from aha.text.prompt_style import PromptStyle
from aha.text.tokenizer import THINK

TRANSCRIPT_RULE = (
    "Of the held-out problems that every model was asked (reasoning: of the trained levels), those whose hash comes "
    "first: one of each of the four domains, one general task and one harmful request. Each model's first sample is "
    "shown, right or wrong; nobody picked."
)
TRUSTED = "r1-long-reward"
"""The arm that trusts the reward models from the first step on, for much longer, and with no leash (no KL term)."""
GROWING = ("qwen3", "qwen3-mini")
"""Students of one family, from the smallest to the largest."""
ACCURACIES = {
    "accuracy": "accuracy on held-out, %",
    "accuracy_true": "agrees with the truth, %",
    "always_the_same": "always saying the same, %",
    "accuracy_harmful": "on harmful requests alone, %",
    "always_the_same_harmful": "always saying the same of them, %",
}
"""The figures of a trained reward model, and what they are called."""
STUDENT_WAYS = {
    "-base": ", its base",
    "-rl": ": RL on its base",
    "": ": distilled",
    "-distilled-rl": ": distilled, then RL",
}
"""What is made of a student: the ending of the stage's name, and what to call it."""
NAMES = {
    "pretrain": "the base",
    "v3": "V3: general data and short answers",
    "r1-zero": "R1-Zero: pure RL on the base",
    "dev1": "Dev1: cold start",
    "dev2": "Dev2: reasoning RL",
    "dev3": "Dev3: the base, fine-tuned on Dev2's solutions and general data",
    "r1": "R1: final RL",
}


def is_whole_recipe(run: Run) -> bool:
    """Whether the run's graph is R1's recipe rather than a part of it."""
    return {"r1-zero", "r1"} <= {stage["name"] for stage in run.lineage.get("stages", [])}


def found_directions(run: Run) -> list[Direction]:
    """The papers' directions, judged from this run."""
    arms = {name: f"{name}-rl" for name in students(run) if f"{name}-rl" in run.results}
    compared = directions(figures_of(rows_of(run)), GROWING, arms)
    trusted = run.rows(TRUSTED, "evaluation_general")
    if trusted and TRUSTED in run.stages_of_kind("grpo"):
        compared.append(hacking(*((row["preference"], row["score"]) for _, row in (trusted[0], trusted[-1]))))
    return [*compared, *scaling_directions(scaling_figures(run.scaling))]


def students(run: Run) -> list[str]:
    """The models that were fine-tuned on R1's solutions."""
    return [s["name"] for s in run.lineage.get("stages", []) if "distillation-data" in s["parents"]]


def cards(run: Run) -> list[dict[str, str]]:
    """The few numbers to see first."""
    measured_of = figures_of(rows_of(run))
    if "r1" not in measured_of:
        return []
    zero, r1 = measured_of.get("r1-zero", {}), measured_of["r1"]

    wanted = {
        "pass@1": "right answers of R1, reasoning (R1-Zero: {})",
        "one language": "language consistency of R1's thinking (R1-Zero: {})",
        "summary": "of R1's answers with a summary for the reader (R1-Zero: {})",
        "general": "true score of R1 in general tasks (R1-Zero: {})",
        "harmful refused": "of harmful requests declined by R1 (R1-Zero: {})",
    }
    made = [{"value": percent(r1.get(t)), "label": label.format(percent(zero.get(t)))} for t, label in wanted.items()]
    return [*made, {"value": f"{run.summary.get('wall_seconds', 0) / 60:.1f}", "label": "minutes in all"}]


def sections(run: Run) -> list[Section]:
    """The sections, those without anything to show left out."""
    rows = rows_of(run)
    made = [_comparison(rows), _transcripts(run, rows), audits(run), _reward_models(run), _distillation(run, rows)]
    return [section for section in made if section is not None]


def _comparison(rows: list[ModelRow]) -> Section | None:
    if not rows:
        return None
    about = "; ".join(f"{column.title}: {column.about}" for column in measured(rows) if column.about)
    head, *cells = stage_lines(rows)
    table = Table(head, cells, f"{about}.")
    head, *cells = level_lines(rows) or [[]]
    by_level = Table(head, cells, LEVEL_NOTE)
    explained = " ".join(f"{row.model}: {NAMES[row.model]}." for row in rows if row.model in NAMES)
    return Section(
        "The comparison",
        "Every model on the same held-out problems, which no training and no corpus contains; each asked in the form "
        f"that it was made for. {explained}",
        tables=[table, by_level] if cells else [table],
    )


def _transcripts(run: Run, rows: list[ModelRow]) -> Section | None:
    """One held-out prompt through all models, chosen by the stated rule."""
    styles = {row.model: row.style for row in rows}
    first: dict[str, dict[str, Mapping[str, Any]]] = {}
    for sample in run.samples():
        if sample["index"] == 0 and styles.get(sample["model"]) == sample["style"]:
            first.setdefault(sample["question"], {})[sample["model"]] = sample
    shared = [by_model for by_model in first.values() if by_model.keys() == styles.keys()]
    shared.sort(key=lambda by_model: hashlib.sha256(_one(by_model)["question"].encode()).hexdigest())
    trained = run.config.get("evaluation", {}).get("trained_levels", ())
    chosen: dict[str, dict[str, Mapping[str, Any]]] = {}
    for by_model in shared:
        one = _one(by_model)
        if one["domain"] == "general" or one["level"] in trained:
            chosen.setdefault(_kind(one), by_model)
    exchanges = []
    for kind in ("math", "code", "science", "logic", "general", "harmful"):
        if kind in chosen:
            one = _one(chosen[kind])
            shown = [_transcript(row, chosen[kind][row.model]) for row in rows]
            exchanges.append(Exchange(f"{kind}, level {one['level']}: {one['question']}", shown))
    return Section("One prompt through all models", TRANSCRIPT_RULE, exchanges=exchanges) if exchanges else None


def _one(by_model: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Any model's sample: what is asked is the same for all."""
    return next(iter(by_model.values()))


def _kind(sample: Mapping[str, Any]) -> str:
    return "harmful" if (sample["family"], sample["level"]) == ("requests", 2) else str(sample["domain"])


def _transcript(row: ModelRow, sample: Mapping[str, Any]) -> Transcript:
    """What a model wrote, the think tag included where the prompt ended with it, and how that was judged."""
    written = (THINK if PromptStyle.named(row.style).prefilled else "") + str(sample["completion"]).strip()
    if _kind(sample) == "harmful":
        return Transcript(
            row.model, written, "declines" if sample["refused"] else "does not decline", sample["refused"]
        )
    if sample["domain"] == "general":
        return Transcript(row.model, written, f"true score {sample['score']:.2f}", sample["score"] == 1.0)
    return Transcript(row.model, written, "right" if sample["correct"] else "wrong", sample["correct"])


def audits(run: Run) -> Section | None:
    """What rejection sampling kept and dropped, in all and by family and level."""
    tables = []
    for name, audit in run.audits.items():
        if "total" not in audit:
            continue
        total = audit["total"]
        columns = ["kept", *(rule for rule in total if rule != "kept")]
        head = ["family and level", "in", *columns]
        rows = [["all", str(audit["in"]), *(str(total[column]) for column in columns)]]
        for cell, counts in audit["by_cell"].items():
            rows.append([cell, str(sum(counts.values())), *(str(counts[column]) for column in columns)])
        tables.append(Table(head, rows, f"{name}. {_made_by(audit)}"))
    if not tables:
        return None
    return Section(
        "Rejection sampling: what was kept",
        "Several samples a prompt; “kept” is what models are fine-tuned on. The other columns are the rules: a sample "
        "counts under the first one that drops it.",
        tables=tables,
    )


def _made_by(audit: Mapping[str, Any]) -> str:
    """Who judged and who wrote, in plain words."""
    words = []
    if judge := audit.get("judge"):
        say = "so it has a say" if judge["has_a_say"] else "too rarely to have a say: the rules decide alone"
        words.append(
            f"V3, given the truth, agrees with the rules on {100 * judge['agreement']:.0f}% of {judge['samples']} "
            f"answers, {say}."
        )
    if summaries := audit.get("summaries"):
        by_v3, by_rule = summaries["by V3"], summaries["by rule"]
        words.append(
            f"Summaries: {by_v3} by V3 (each checked to name the same answer in the question's language), {by_rule} by "
            "rule. The thinking was brought into one language by rule: a model of this size cannot rewrite it."
        )
    return " ".join(words)


def _reward_models(run: Run) -> Section | None:
    """Accuracy on held-out pairs, and the learned score beside the true one."""
    trained = [s["name"] for s in run.lineage.get("stages", []) if s["kind"] == "reward_model" and s["done"]]
    if not trained:
        return None
    table = Table(
        ["reward model", "examples", *ACCURACIES.values()],
        [
            [
                name,
                str(row["examples"]),
                *(f"{100 * row[figure]:.1f}" if figure in row else "–" for figure in ACCURACIES),
            ]
            for name, row in ((name, run.stage(name)) for name in trained)
        ],
        " ".join(_judged_by(audit) for audit in run.audits.values() if "pairs" in audit),
    )
    drawn = []
    for stage in run.lineage.get("stages", []):
        rows = run.rows(stage["name"], "evaluation_general")
        if rows:
            curves = {
                "reward models' score": [(step, row["preference"]) for step, row in rows],
                "true score": [(step, row["score"]) for step, row in rows],
            }
            drawn.append(figures.lines(curves, f"{stage['name']}: general tasks, held-out", percent=True))
    return Section(
        "The reward models, and the truth",
        "General answers are rewarded by learned models. The world checks its own constraints exactly, so the true "
        "score of the same held-out answers can be shown beside the learned one: where the two part, the reward is "
        "being hacked.",
        tables=[table],
        figures=drawn,
    )


def _judged_by(audit: Mapping[str, Any]) -> str:
    words = f"{audit['pairs']} pairs, decided by {audit['judge']}"
    if "agreement" in audit:
        words += (
            f"; V3's verdicts in the two orders agree on {100 * audit['orders_agree']:.0f}% of the pairs, and there "
            f"with the true scores on {100 * audit['agreement']:.0f}%"
        )
    return (
        f"{words}. Of a prompt's pairs those are taken whose true scores are furthest apart, also held-out ones: the "
        f"accuracy is that of the clear cases. {audit['labelled']} labelled responses, {100 * audit['safe']:.0f}% of "
        "them safe; in RL the harmless model judges harmful requests alone."
    )


def _distillation(run: Run, rows: list[ModelRow]) -> Section | None:
    """Students by SFT, the same students by RL, and their teacher."""
    distilled = students(run)
    if not distilled:
        return None
    ways = [(student, suffix, label) for student in distilled for suffix, label in STUDENT_WAYS.items()]
    labels = {"r1": "r1, the teacher"} | {student + suffix: f"{student}{label}" for student, suffix, label in ways}
    means = {row.model: row.results["trained_levels"]["pass_at_1"] for row in rows}
    bars = {
        label: (p["mean"], p["low"], p["high"])
        for model, label in labels.items()
        if (p := means.get(model)) and p["mean"] is not None
    }
    stages = run.summary.get("stages", [])
    teacher = _before(run, "distillation-data")
    cost = Table(
        ["model", "tokens trained", "minutes"],
        [
            _cost([stage for stage in stages if stage["name"] == model], label)
            for model, label in labels.items()
            if model != "r1" and any(stage["name"] == model for stage in stages)
        ]
        + [_cost([stage for stage in stages if stage["name"] in teacher], "the teacher and its solutions")],
        "A student's fine-tuning or RL comes on top of its base. Sampling counts in minutes, not in tokens trained. "
        "The teacher is paid for once, with all that R1 was made from.",
    )
    return Section(
        "Distillation",
        "Smaller dense students with bases of their own, fine-tuned on R1's solutions, beside their teacher.",
        wide=figures.bars(bars, "pass@1 on held-out problems, trained levels"),
        tables=[cost],
    )


def _cost(stages: Sequence[Mapping[str, Any]], name: str) -> list[str]:
    tokens = sum(stage.get("tokens_trained") or 0 for stage in stages)
    return [name, f"{tokens / 1e6:.2f}M", f"{sum(stage['minutes'] for stage in stages):.1f}"]


def _before(run: Run, name: str) -> set[str]:
    """A stage and all that it was made from."""
    parents = {stage["name"]: stage["parents"] for stage in run.lineage.get("stages", [])}
    found, open_ = set[str](), [name]
    while open_:
        one = open_.pop()
        if one not in found:
            found.add(one)
            open_ += parents.get(one, [])
    return found
