"""Budget forcing: how long a model thinks is decided from outside, both ways.

The idea is that of s1 ("simple test-time scaling"): to think less, the thinking is cut off at a budget, its end tag is
put there, and the model has to answer; to think more, the end tag that the model wrote is taken away and "Wait" is put
in its place, so that it goes on. R1 supplement E.4 gives the reason to want both: an R1 spends by itself about what a
question needs, and this asks what more or less would have bought.

Nothing is asked of the engine but to continue: forced tokens are appended to the prompt (`types.Request`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aha.tasks.families import GENERAL
from aha.test_time.candidates import Candidate, Respondent, Trace, whole
from aha.text.tags import find_tag
from aha.text.tokenizer import ANSWER, END_ANSWER, END_THINK, Tokenizer
from aha.types import Completion, FinishReason, Language, Problem, Request

WAIT: dict[Language, str] = {"en": "Wait", "zh": "等等"}
"""What stands where the end of the thinking stood, in the language of the question."""
CUES: dict[Language, str] = {"en": "The answer is", "zh": "答案是"}
"""The words that open a forced answer in the chat form."""
ANSWER_TOKENS = 48
"""Room for the answer after a forced thinking, in tokens, where nobody says otherwise."""
CLOSING_TOKENS = 24
"""Room for the forced end of a thinking, in tokens: no form needs more, even byte by byte."""


def end_thinking_at(
    respondent: Respondent,
    problems: Sequence[Problem],
    drawn: Sequence[Sequence[Completion]],
    budget: int,
    answer_tokens: int = ANSWER_TOKENS,
) -> list[list[Candidate]]:
    """Samples as they would be with thinking of at most `budget` tokens: then its end, and an answer, are forced.

    A sample whose thinking ended before is left alone; any other is taken up to the budget, and only the answer is
    sampled. So budgets, and no budget at all, are compared on the same thinking, which is paid for once.

    Args:
        respondent: the model; its prompt style must have thinking.
        problems: what was asked.
        drawn: whole samples (`Respondent.samples`), those of problem i at place i. One that reached its limit in the
            middle of its thinking has to answer there, where the budget is larger.
        budget: tokens from the prompt to the end of the thinking, its tag and an opening one that the model writes
            included.
        answer_tokens: room for the answer after a forced thinking.

    Raises:
        ValueError: no thinking to take hold of, or no room for the budget and an answer.
    """
    _room_for_thinking(respondent, problems, budget, answer_tokens)
    traces = [
        [_cut(respondent, problem, completion, budget) for completion in completions]
        for problem, completions in zip(problems, drawn, strict=True)
    ]
    forced = [(trace, number) for own in traces for number, trace in enumerate(own) if trace.thinking_forced]
    _answer(respondent, forced, "end thinking", answer_tokens)
    return [[respondent.candidate(trace) for trace in own] for own in traces]


def think_at_least(
    respondent: Respondent,
    problems: Sequence[Problem],
    budget: int,
    samples: int = 1,
    answer_tokens: int = ANSWER_TOKENS,
) -> list[list[Candidate]]:
    """Thinking of at least `budget` tokens: whenever it ends before, its end is suppressed and it goes on with "Wait".

    Where the room runs out, its end is forced as in `end_thinking_at`. Suppressed end tags were sampled, and count.

    Args:
        respondent: the model; its prompt style must have thinking.
        problems: what is asked.
        budget: tokens from the prompt to the end of the thinking, those put in included.
        samples: independent candidates per problem.
        answer_tokens: room for the answer after a forced thinking. One that ended by itself has all that is left.

    Raises:
        ValueError: no thinking to take hold of, or no room for the budget and an answer.
    """
    most = _room_for_thinking(respondent, problems, budget, answer_tokens)
    traces = [[Trace(problem) for _ in range(samples)] for problem in problems]
    numbered = [(trace, number) for own in traces for number, trace in enumerate(own)]
    _think(respondent, numbered, budget, most)
    going_on = [(trace, number) for trace, number in numbered if not trace.ended]
    _answer(respondent, going_on, "think at least", answer_tokens)
    return [[respondent.candidate(trace) for trace in own] for own in traces]


def think_again(
    respondent: Respondent, problems: Sequence[Problem], drawn: Sequence[Sequence[Completion]], turn: int = 0
) -> list[list[Completion]]:
    """Whole samples whose thinking goes on once where it ended: its end is taken back, and "Wait" put there.

    Samples that never ended a thinking, or have no room left, stay as they are.

    Args:
        respondent: the model; its prompt style must have thinking.
        problems: what was asked.
        drawn: samples (`Respondent.samples`, or what this function made of them), those of problem i at place i.
        turn: how often this was done before, for the seeds.
    """
    respondent.require_thinking("thinking again")
    begun: list[tuple[int, int, list[int], int]] = []
    requests = []
    for place, (problem, completions) in enumerate(zip(problems, drawn, strict=True)):
        for number, completion in enumerate(completions):
            end = find_tag(respondent.tokenizer, completion.token_ids, END_THINK)
            if end is None or not respondent.thinks(end.before):
                continue
            start = [*end.before, *wait_tokens(respondent.tokenizer, end.before, problem.language)]
            if len(start) >= respondent.room:
                continue
            seed = respondent.seed_for("think again", problem, number, turn)
            requests.append(respondent.continuation(problem, seed, respondent.room - len(start), start))
            begun.append((place, number, start, len(end.before)))
    again = [list(completions) for completions in drawn]
    for (place, number, start, known), one in zip(begun, _one_each(respondent, requests), strict=True):
        logprobs = *drawn[place][number].logprobs[:known], *[0.0] * (len(start) - known), *one.logprobs
        again[place][number] = replace(one, token_ids=(*start, *one.token_ids), logprobs=logprobs)
    return again


def _room_for_thinking(respondent: Respondent, problems: Sequence[Problem], budget: int, answer_tokens: int) -> int:
    """The most tokens of thinking that leave room for an answer to any of the problems.

    Raises:
        ValueError: the model does not think, or the budget is not among them.
    """
    respondent.require_thinking("budget forcing")
    most = respondent.room - answer_tokens - max((len(_closing(respondent, p)) for p in problems), default=0)
    if not 1 <= budget <= most:
        raise ValueError(
            f"a thinking budget of {budget} tokens: expected 1 to {most}, which leaves room for an answer in "
            f"{respondent.room} tokens"
        )
    return most


def _cut(respondent: Respondent, problem: Problem, completion: Completion, budget: int) -> Trace:
    """A sample with its thinking cut off at the budget and its end forced; as it is where it ended in time.

    A sentence that ends inside the thinking (no end tag) does not end the trace: its last token is taken away.
    """
    trace = whole(problem, completion)
    place = find_tag(respondent.tokenizer, trace.token_ids, END_THINK)
    if place is not None and place.through <= budget:
        return trace
    if len(trace.token_ids) > budget:
        kept = Completion(completion.token_ids[:budget], completion.logprobs[:budget], FinishReason.LENGTH)
        trace = whole(problem, kept)
    if respondent.thinks(trace.token_ids):
        if trace.ended:
            trace.token_ids.pop()
            trace.ended = False
        _force_end(respondent, trace)
    return trace


def _force_end(respondent: Respondent, trace: Trace) -> None:
    trace.force(_closing(respondent, trace.problem))
    trace.thinking_forced = True


def _think(respondent: Respondent, traces: Sequence[tuple[Trace, int]], minimum: int, maximum: int) -> None:
    """Lets all traces think to the end, their own or the forced one. A trace that ended with no thinking is `ended`.

    A sentence that ends inside the thinking (no end tag) does not end the trace: its last token is taken away.
    """
    active, turn = list(traces), 0
    while active:
        requests = [
            respondent.continuation(
                trace.problem,
                respondent.seed_for("think at least", trace.problem, number, turn),
                maximum - len(trace.token_ids),
                trace.token_ids,
                (END_THINK,),
            )
            for trace, number in active
        ]
        going_on = []
        for (trace, number), completion in zip(active, _one_each(respondent, requests), strict=True):
            trace.take(completion)
            stopped = completion.finish_reason is FinishReason.STOP
            if place := find_tag(respondent.tokenizer, trace.token_ids, END_THINK):
                del trace.token_ids[place.through :]
                if _prolong(respondent, trace, place.before, minimum, maximum):
                    going_on.append((trace, number))
            elif not respondent.thinks(trace.token_ids):
                trace.ended = stopped
            else:
                thought = trace.token_ids[:-1] if stopped else trace.token_ids
                if _prolong(respondent, trace, thought, minimum, maximum):
                    going_on.append((trace, number))
                else:
                    trace.token_ids = thought
                    _force_end(respondent, trace)
        active, turn = going_on, turn + 1


def _prolong(respondent: Respondent, trace: Trace, thought: list[int], minimum: int, maximum: int) -> bool:
    """Replaces the end of a thinking that is too short; False where it is long enough, or where no room is left."""
    if len(thought) >= minimum or not respondent.thinks(thought):
        return False
    forced = wait_tokens(respondent.tokenizer, thought, trace.problem.language)
    if len(thought) + len(forced) >= maximum:
        return False
    trace.token_ids = thought
    trace.force(forced)
    return True


def wait_tokens(tokenizer: Tokenizer, thought: Sequence[int], language: Language) -> list[int]:
    """The tokens that stand where the end of a thinking stood, so that it goes on.

    Args:
        tokenizer: of the model.
        thought: the completion up to there.
        language: of the question.
    """
    return tokenizer.encode(wait_after(tokenizer.decode(thought[-1:])[-1:], WAIT[language]))


def wait_after(last: str, wait: str) -> str:
    """The word to go on with as it is written after a thinking's last character: a line by itself after a line.

    Args:
        last: the character; empty where there is none, or where it is not known.
        wait: the word.
    """
    if last == "\n":
        return wait + "\n"
    return f" {wait}" if wait.isascii() and last and not last.isspace() else wait


def _answer(respondent: Respondent, traces: Sequence[tuple[Trace, int]], method: str, answer_tokens: int) -> None:
    """Lets traces that have thought answer; those that never began to think stay cut off."""
    tokenizer = respondent.tokenizer
    ready = [(trace, number) for trace, number in traces if find_tag(tokenizer, trace.token_ids, END_THINK)]
    answer_tags = respondent.style.answer_tags
    requests = [
        respondent.continuation(
            trace.problem,
            respondent.seed_for(f"{method}: answer", trace.problem, number),
            min(answer_tokens if trace.thinking_forced else respondent.room, respondent.room - len(trace.token_ids)),
            trace.token_ids,
            (END_ANSWER,) if answer_tags and trace.thinking_forced else (),
        )
        for trace, number in ready
    ]
    for (trace, _), completion in zip(ready, _one_each(respondent, requests), strict=True):
        trace.take(completion)
        trace.ended = completion.finish_reason is FinishReason.STOP
        if answer_tags and trace.thinking_forced and (place := find_tag(tokenizer, trace.token_ids, END_ANSWER)):
            del trace.token_ids[place.through :]
            trace.ended = True


def _closing(respondent: Respondent, problem: Problem) -> list[int]:
    """The forced end of a thinking and the beginning of an answer, as each prompt style has it."""
    tokenizer = respondent.tokenizer
    if respondent.style.answer_tags:
        return tokenizer.encode_markup(f"{END_THINK}\n{ANSWER}")
    cue = "" if problem.family in GENERAL else CUES[problem.language]
    return tokenizer.encode_markup(f"\n{END_THINK}\n\n") + tokenizer.encode(cue)


def _one_each(respondent: Respondent, requests: Sequence[Request]) -> list[Completion]:
    return [completions[0] for completions in respondent.generator.generate(requests)] if requests else []
