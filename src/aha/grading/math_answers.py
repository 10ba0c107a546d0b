r"""Final answers in text: numbers (GSM8K), the content of \boxed (MATH), a letter (multiple choice). Exact, no library.

Every reading gives one answer or none: "17 or 18", two different boxes and "A or B" have none. So an answer cannot be
bought by listing candidates.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

MAX_CHARACTERS = 2000
"""Of the part of a text that is read for an answer; MATH's longest gold answers have about 160."""
LAST_CHARACTERS = 10_000
"""Of a text are searched for boxes."""
MAX_DIGITS = 40
_NUMBER = re.compile(
    r"(?P<sign>[+-]\s?)?(?:[$€£¥]\s?)?"
    r"(?:(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?P<decimals>\.[0-9]+)?|(?P<bare>\.[0-9]+))"
    r"(?:\s?/\s?(?P<divisor>[0-9]+)|\s(?P<upper>[0-9]+)\s?/\s?(?P<lower>[0-9]+))?",
    re.ASCII,
)
_BOLD = re.compile(r"(?<![\w)\]*])(\*\*|\*|`)(?=\S)([^*`]*\S)\1(?![\w(*])")
_FRACTION = re.compile(r"\\[dt]?frac\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))\s*(?:\{\s*([0-9]+)\s*\}|([0-9]))", re.ASCII)
_JOINED_BEFORE = re.compile(r"[A-Za-z_.)\]]$|[-+*/×^]\s*$")
_JOINED_AFTER = re.compile(
    r"\s*(?:[\^_*π]|/\s*[A-Za-z]\b|(?:k|thousand|million|billion|hundred|dozens?)\b)|[(\[]", re.IGNORECASE
)
_CUE = re.compile(r"(?:final answer|answer|答案)\s*(?:is|are|=|:|：|是|为)+\s*:?\s*(?P<answer>[^\n]*)", re.IGNORECASE)
_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf|mbox)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,;:! ()\[\]]|\\left|\\right|\\\$|\\%")
_LETTER = re.compile(r"(?<![A-Za-z0-9])\(?([A-Z])\)?(?![A-Za-z0-9])")
_LEADING_LETTER = re.compile(r"\s*(?:[(\[]\s*([A-Z])\s*[)\]]|([A-Z])\s*(?:[.:)]|$))", re.MULTILINE)


def stated(text: str) -> str | None:
    r"""What a text states as its final answer.

    In this order: after the last `####`; in `\boxed` (if there are several, they must agree); after the last "answer
    is" or "answer:".

    Returns:
        The answer as written, or None where nothing is stated or boxes disagree.
    """
    if "####" in text:
        return text.rsplit("####", 1)[1].strip().split("\n", 1)[0][:MAX_CHARACTERS]
    boxes = boxed(text)
    if boxes:
        return boxes[0] if len({"".join(box.split()) for box in boxes}) == 1 else None
    cues = list(_CUE.finditer(text))
    return cues[-1]["answer"].strip(" *")[:MAX_CHARACTERS] if cues else None


def boxed(text: str) -> list[str]:
    r"""The contents of all `\boxed{...}` and `\fbox{...}` in a text's last part, in order; braces must balance."""
    text = text[-LAST_CHARACTERS:]
    contents = []
    for match in re.finditer(r"\\(?:boxed|fbox)\s*\{", text):
        depth = 1
        for at in range(match.end(), min(len(text), match.end() + MAX_CHARACTERS)):
            depth += {"{": 1, "}": -1}.get(text[at], 0)
            if depth == 0:
                contents.append(text[match.end() : at].strip())
                break
    return contents


def number(text: str) -> Fraction | None:
    r"""Reads the one number of a text, exactly.

    Thousands separators, decimals, fractions (3/4, 1 1/2, \frac{3}{4}, \frac34), currency signs, percent signs and
    units around the number are understood. After an equals sign only what follows the last one counts.

    Returns:
        None where there is no number, more than one, or digits that belong to a word, an exponent or a list.
    """
    text = _SPACING.sub(" ", text[: MAX_CHARACTERS + 1].replace("−", "-").replace("{,}", ","))
    if len(text) > MAX_CHARACTERS:
        return None
    text = _TEXT.sub(r" \1 ", _FRACTION.sub(r" \1\2/\3\4 ", text)).rsplit("=", 1)[-1]
    text = _BOLD.sub(r"\2", text)
    found = list(_NUMBER.finditer(text))
    if len(found) != 1:
        return None
    match = found[0]
    before, after = text[: match.start()], text[match.end() :]
    if any(character.isdigit() or character in "\\√" for character in before + after):
        return None
    if _JOINED_BEFORE.search(before) or _JOINED_AFTER.match(after) or sum(map(str.isdigit, match[0])) > MAX_DIGITS:
        return None
    whole = (match["whole"] or "0").replace(",", "")
    value = Fraction(whole + (match["decimals"] or match["bare"] or ""))
    lower = match["divisor"] or match["lower"]
    if lower is not None and int(lower) == 0:
        return None
    if match["divisor"]:
        value /= int(match["divisor"])
    elif match["upper"]:
        value += Fraction(int(match["upper"]), int(match["lower"]))
    return -value if (match["sign"] or "").startswith("-") else value


def given_answer(text: str) -> str:
    """What a text gives as its answer: what it states, else its last line; empty if its boxes disagree."""
    answer = stated(text)
    if answer is None:
        return "" if boxed(text) else text.strip().rsplit("\n", 1)[-1]
    return answer


def number_answer(text: str) -> Fraction | None:
    """The number that a text gives as its answer."""
    return number(given_answer(text))


def same_number(text: str, gold: str) -> bool:
    """Whether a text's answer equals the gold answer's number (GSM8K). Never raises."""
    answer, right = number_answer(text), number_answer(gold)
    return answer is not None and answer == right


def letter(text: str, choices: Mapping[str, str] | None = None) -> str | None:
    """The letter that a text chooses: stated, boxed or alone ("B", "(B)", "B. because"), or by a choice's full text.

    Returns:
        None where no letter or more than one is chosen.
    """
    answer = stated(text)
    if answer is None:
        if "####" in text or boxed(text):
            return None
        answer = text
    if len(answer) > MAX_CHARACTERS:
        return None
    answer = _TEXT.sub(r"\1", answer).strip().strip("*$. ")
    spelled = [name for name, content in (choices or {}).items() if _plain(content) == _plain(answer)]
    if len(spelled) == 1:
        return spelled[0]
    leading = _LEADING_LETTER.match(answer)
    named = {found for found in _LETTER.findall(answer) if not choices or found in choices} - _words(answer)
    if leading is not None:
        chosen = leading[1] or leading[2]
        return chosen if named <= {chosen} and (not choices or chosen in choices) else None
    return named.pop() if len(named) == 1 else None


def _plain(text: str) -> str:
    return " ".join(text.split()).strip("*$. ").casefold()


def _words(text: str) -> set[str]:
    """Letters that are words in this text: "A dog" and "I think" choose nothing."""
    return {word for word in ("A", "I") if re.search(rf"(?<![(\w]){word} (?!or|and|because|as|since|is)[a-z]", text)}
