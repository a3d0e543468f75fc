"""Sample completions side by side, with what differs from the truth marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from artifacts.schema import Completion

CONTEXT_LINES = 8
"""Lines shown before the gap, and after it."""
LONGEST = 2000
"""Characters of an answer that are compared and shown."""

_WORDS = re.compile(r"\w+|\s+|.")

Piece = tuple[Literal["same", "differs"], str]


@dataclass(frozen=True)
class Answer:
    """What a model made of the gap."""

    who: str
    pieces: tuple[Piece, ...]
    exact: bool


@dataclass(frozen=True)
class Comparison:
    """One prompt with the truth and both answers."""

    where: str
    kind: str
    before: str
    after: str
    truth: str
    answers: tuple[Answer, ...]


def compare(sample: Completion) -> Comparison:
    """Lay one sample out for reading."""
    return Comparison(
        where=f"{sample.repo} / {sample.path}",
        kind={"line": "next line", "fim": "fill in the middle"}[sample.kind],
        before="".join(sample.prompt.splitlines(keepends=True)[-CONTEXT_LINES:]),
        # the gap is a whole line, and the suffix begins with the line after it
        after="".join(["\n", *sample.suffix.splitlines(keepends=True)[:CONTEXT_LINES]]) if sample.suffix else "",
        truth=sample.truth[:LONGEST],
        answers=(_answer("base", sample.base, sample.truth), _answer("tuned", sample.tuned, sample.truth)),
    )


def _answer(who: str, text: str, truth: str) -> Answer:
    text, truth = text[:LONGEST], truth[:LONGEST]
    exact = text.strip() == truth.strip()
    pieces: tuple[Piece, ...] = (("same", text),) if exact else tuple(_pieces(text, truth))
    return Answer(who, pieces, exact)


def _pieces(text: str, truth: str) -> list[Piece]:
    """The text cut into what stands in the truth too, in order, and what does not: by words, as a reader would."""
    words, wanted = _WORDS.findall(text), _WORDS.findall(truth)
    pieces: list[Piece] = []
    for operation, _, _, start, end in SequenceMatcher(None, wanted, words, autojunk=False).get_opcodes():
        if start < end:
            pieces.append(("same" if operation == "equal" else "differs", "".join(words[start:end])))
    return pieces
