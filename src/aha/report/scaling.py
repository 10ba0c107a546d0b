"""“Thinking longer”: what more tokens at test time bought the models of a run, from its scaling stage's results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from aha.evals.scaling import METHODS
from aha.report import figures
from aha.report.reading import Run
from aha.report.sections import Section, Table

XLABEL = "tokens per question"
LEVELS_AT = 256
TEXT = (
    "Held-out questions, answered with more and more tokens: several samples and a vote (over answers that mean the "
    "same, not over strings; by confidence, each vote weighs as much as its sample was probable), a vote whose samples "
    "go where the vote is most in doubt, thinking that is cut off and has to answer, thinking whose end is taken away "
    "and replaced by “Wait”, and revision of what was thought before. “Any right” looks at the truth: no choice "
    "among the same samples does better. Tokens are all that were sampled; bars are 95% intervals over problems."
)
Result = Mapping[str, Any]


def section(run: Run) -> Section | None:
    """The section, or None where the run has no finished scaling stage."""
    named = {
        f"{model}, asked as {style}": result
        for model, by_style in run.scaling.items()
        for style, result in by_style.items()
        if result["curves"]
    }
    if not named:
        return None
    drawn = [curves_figure(result, name) for name, result in named.items()]
    votes = {name: result["curves"]["majority"] for name, result in named.items() if "majority" in result["curves"]}
    if len(votes) > 1:
        drawn.insert(0, _lines(votes, "majority vote, all models"))
    drawn += [levels_figure(points, f"{name}: majority vote by level") for name, points in votes.items()]
    tables = [_equal(name, result) for name, result in named.items()]
    tables += [table for name, result in named.items() if (table := _forced(name, result)) is not None]
    tables += [table for name, result in named.items() if (table := levels_table(result, name)) is not None]
    tables += [table for name, result in named.items() if (table := _spent(name, result)) is not None]
    return Section("Thinking longer", TEXT, tables=tables, figures=drawn)


def curves_figure(result: Result, title: str) -> Markup:
    """All methods of one model: accuracy against tokens per question."""
    return _lines({_title(method): points for method, points in result["curves"].items()}, title)


def budgets_figure(scaling: Mapping[str, Mapping[str, Result]]) -> Markup | None:
    """Accuracy against the budget at which thinking is cut off, all models; None where that was not measured."""
    measured = {
        model: sorted(result["curves"]["end_thinking"], key=lambda point: point["setting"])
        for model, by_style in scaling.items()
        for result in by_style.values()
        if result["curves"].get("end_thinking")
    }
    series = {model: [(one["setting"], one["accuracy"]["mean"]) for one in own] for model, own in measured.items()}
    title = "right answers by how long they may think"
    label = "tokens of thinking, then the answer is forced"
    return figures.lines(series, title, label, percent=True, log_x=True) if series else None


def _title(method: str) -> str:
    return next((about.title for name, about in METHODS.items() if name == method), method)


def levels_figure(points: Sequence[Result], title: str) -> Markup:
    """One method of one model, a curve for each level."""
    levels = sorted({level for point in points for level in point["by_level"]}, key=int)
    curves = {
        f"level {level}": [point["by_level"][level] for point in points if level in point["by_level"]]
        for level in levels
    }
    return _lines(curves, title)


def _lines(curves: Mapping[str, Sequence[Result]], title: str) -> Markup:
    series = {
        name: [(point["tokens"], point["accuracy"]["mean"]) for point in points] for name, points in curves.items()
    }
    bands = {
        name: [(point["tokens"], point["accuracy"]["low"], point["accuracy"]["high"]) for point in points]
        for name, points in curves.items()
    }
    return figures.lines(series, title, XLABEL, percent=True, bands=bands, log_x=True)


def _equal(name: str, result: Result) -> Table:
    """Methods side by side at the same number of tokens per question."""
    methods = list(result["curves"])
    rows = [
        [budget, *(_cell(by_method[method]) for method in methods)]
        for budget, by_method in result["at_equal_tokens"].items()
    ]
    return Table(
        [f"{name}: {XLABEL}", *(_title(method) for method in methods)],
        rows,
        f"Accuracy at equal tokens, %, with 95% intervals over {_problems(result)} problems. –: even the "
        "cheapest setting costs more. Between two settings: choosing one of the two by a coin. A method that gets "
        "worse with more tokens stays as bad as its dearest setting.",
    )


def forced(result: Result) -> dict[int, dict[str, Result]]:
    """Thinking that is forced: by its budget in tokens, each such method's point by the method's title."""
    found: dict[int, dict[str, Result]] = {}
    for name, about in METHODS.items():
        for point in result["curves"].get(name, ()) if about.setting == "tokens" else ():
            found.setdefault(point["setting"], {})[about.title] = point
    return dict(sorted(found.items()))


def _forced(name: str, result: Result) -> Table | None:
    """What forced thinking costs and brings."""
    budgets = forced(result)
    if not budgets:
        return None
    titles = list(dict.fromkeys(title for points in budgets.values() for title in points))
    rows = []
    for budget, points in budgets.items():
        own = [points.get(title) for title in titles]
        cells = [(_cell(point), f"{point['tokens']:.0f}" if point else "–") for point in own]
        rows.append([str(budget), *(text for pair in cells for text in pair)])
    head = [f"{name}: budget", *(column for title in titles for column in (title, "tokens"))]
    note = "Accuracy, %, and tokens per question, where the thinking is cut off at a budget or prolonged to it."
    return Table(head, rows, note)


def levels_budget(result: Result) -> str | None:
    """The number of tokens at which levels are compared: the largest up to 256; None where all are larger."""
    return max((budget for budget in result["at_equal_tokens"] if int(budget) <= LEVELS_AT), key=int, default=None)


def levels_table(result: Result, name: str) -> Table | None:
    """All methods by level, at one number of tokens per question: the largest that is compared up to 256."""
    budget = levels_budget(result)
    if budget is None:
        return None
    by_method = {m: point for m, point in result["at_equal_tokens"][budget].items() if point is not None}
    levels = sorted({level for point in by_method.values() for level in point["by_level"]}, key=int)
    rows = [
        [
            _title(method),
            *(_cell(point["by_level"].get(level)) for level in levels),
            *(f"{point['by_level'][level]['tokens']:.0f}" for level in levels),
        ]
        for method, point in by_method.items()
    ]
    head = [name, *(f"level {level}" for level in levels), *(f"tokens, {level}" for level in levels)]
    note = f"Accuracy by level, %, at {budget} tokens per question on average, and what each level got."
    return Table(head, rows, note)


def _cell(point: Result | None) -> str:
    if point is None:
        return "–"
    accuracy = point["accuracy"]
    return f"{100 * accuracy['mean']:.1f} [{100 * accuracy['low']:.0f}, {100 * accuracy['high']:.0f}]"


def _problems(result: Result) -> int:
    return int(next(iter(result["curves"].values()))[0]["problems"])


def _spent(name: str, result: Result) -> Table | None:
    """Where the adaptive vote put its tokens, beside one sample of each question."""
    adaptive, plain = result["curves"].get("adaptive"), result["curves"].get("majority")
    if not adaptive or not plain:
        return None
    levels = sorted(adaptive[0]["by_level"], key=int)
    rows = [
        [f"adaptive, {point['setting']} samples on average", *(f"{point['by_level'][x]['tokens']:.0f}" for x in levels)]
        for point in adaptive
    ]
    first = ["one sample", *(f"{plain[0]['by_level'][level]['tokens']:.0f}" for level in levels)]
    return Table(
        ["tokens per question", *(f"level {level}" for level in levels)],
        [first, *rows],
        f"{name}: where the adaptive vote spends. A vote over a fixed number spends in proportion to the first line.",
    )
