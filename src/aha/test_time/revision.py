"""Sequential revision: the model is shown its earlier thinking and the answer it led to, and thinks on, round by round.

Where a vote spends tokens side by side, this spends them one after another (R1 supplement E.4 sees the model do so by
itself, within one long thought). What the model is shown stands in its own context, so it costs no sampled token.
"""

from __future__ import annotations

from collections.abc import Sequence

from aha.test_time.candidates import Candidate, Outcome, Respondent, Trace, outcome
from aha.text.tags import find_tag
from aha.text.tokenizer import END_THINK
from aha.types import FinishReason, Language, Problem

DOUBTS: dict[Language, tuple[str, str]] = {
    "en": ("\nThe answer is {answer}? Check", "\nWait"),
    "zh": ("\n答案是{answer}？检查", "\n等等"),
}
"""What stands after the earlier thinking: with the answer that it led to, or where it led to none."""


def revise(respondent: Respondent, problems: Sequence[Problem], rounds: int, number: int = 0) -> list[list[Outcome]]:
    """Answers, then revises `rounds` times; result[i][r] is what stands for problem i after r revisions.

    The last candidate with an answer stands. A question whose completion never began to think, or that has no room
    left for another round, is not revised any more: its outcome repeats, at no further cost.

    Args:
        respondent: the model; its prompt style must have thinking.
        problems: what is asked.
        rounds: revisions after the first answer.
        number: for independent repetitions.

    Raises:
        ValueError: no thinking to take hold of.
    """
    respondent.require_thinking("revision")
    traces = [Trace(problem) for problem in problems]
    seen: list[list[Candidate]] = [[] for _ in problems]
    results: list[list[Outcome]] = [[] for _ in problems]
    active = list(range(len(problems)))
    for turn in range(rounds + 1):
        if turn:
            active = [index for index in active if _reopen(respondent, traces[index], seen[index][-1])]
        requests = [
            respondent.continuation(
                problems[index],
                respondent.seed_for("revision", problems[index], number, turn),
                _limit(respondent, traces[index]),
                traces[index].token_ids,
            )
            for index in active
        ]
        completions = respondent.generator.generate(requests) if requests else []
        for index, (completion,) in zip(active, completions, strict=True):
            traces[index].take(completion)
            traces[index].ended = completion.finish_reason is FinishReason.STOP
            seen[index].append(respondent.candidate(traces[index]))
        for own, candidates in zip(results, seen, strict=True):
            standing = next((one for one in reversed(candidates) if one.vote is not None), None)
            own.append(outcome(standing, candidates))
    return results


def _reopen(respondent: Respondent, trace: Trace, last: Candidate) -> bool:
    """Takes a trace back into its thinking, with a doubt about the answer; the counts begin anew.

    Thinking that was cut off by its limit simply goes on.
    """
    tokenizer = respondent.tokenizer
    closed = find_tag(tokenizer, trace.token_ids, END_THINK)
    ends = respondent.style.stops(tokenizer)
    thought = closed.before if closed else [token for token in trace.token_ids if token not in ends]
    if not respondent.thinks(thought):
        return False
    with_answer, without = DOUBTS[trace.problem.language]
    doubt = with_answer.format(answer=last.answer) if last.vote is not None else without
    forced = tokenizer.encode(doubt) if closed or trace.ended else []
    reopened = Trace(trace.problem, thought)
    reopened.force(forced)
    if _limit(respondent, reopened) < 1:
        return False
    trace.token_ids, trace.sampled, trace.forced, trace.logprobs = reopened.token_ids, 0, len(forced), 0.0
    return True


def _limit(respondent: Respondent, trace: Trace) -> int:
    return min(respondent.sampling.max_completion_tokens, respondent.room - len(trace.token_ids))
