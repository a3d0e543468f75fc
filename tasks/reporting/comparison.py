"""Sample completions side by side, with what differs from the truth marked."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Literal

from artifacts.lines import lines_of
from artifacts.schema import Completion
from tasks.evaluation.words import suite_in_words

CONTEXT_LINES = 8
"""Lines shown before the gap, and after it."""
LONGEST = 2000
"""Characters of an answer that are compared and shown."""

PROGRAM_LINES = 24
"""Lines of a program that are shown: small models repeat themselves."""
PASSED = "passed"

_WORDS = re.compile(r"\w+|\s+|.")

Piece = tuple[Literal["same", "differs"], str]


@dataclass(frozen=True)
class ModelCompletion:
    """What a model made of the gap."""

    who: str
    pieces: tuple[Piece, ...]
    exact: bool
    """It is the truth, or a program that passed."""
    judgement: str = ""


@dataclass(frozen=True)
class SideBySide:
    """One prompt with the truth and both answers."""

    where: str
    kind: str
    before: str
    after: str
    truth: str
    answers: tuple[ModelCompletion, ...]
    chosen: str = "random"


def compare(sample: Completion) -> SideBySide:
    """Lay one sample out for reading."""
    program = bool(sample.base_reason)
    after = lines_of(sample.suffix)[:CONTEXT_LINES]
    if after and not program:
        after = ["\n", *after]  # it begins with the line after the gap, which is a whole line
    return SideBySide(
        where=sample.repo  # a file, where lines of files are held out
        if sample.repo.endswith(f"/{sample.path}")
        else " / ".join(dict.fromkeys((sample.repo, sample.path))),
        kind=suite_in_words(sample.kind) + (", from elsewhere" if sample.domain == "retention" and not program else ""),
        chosen=sample.chosen,
        before="".join(lines_of(sample.prompt)[-CONTEXT_LINES:]),
        after="".join(after),
        truth=sample.truth[:LONGEST],
        answers=_programs(sample)
        if program
        else (
            _answer("base", sample.base, sample.truth, sample.base_score),
            _answer("tuned", sample.tuned, sample.truth, sample.tuned_score),
        ),
    )


def _programs(sample: Completion) -> tuple[ModelCompletion, ...]:
    """Both programs against each other: there are many ways to solve a problem."""
    cut = (lines_of(text[:LONGEST]) for text in (sample.base, sample.tuned))
    base, tuned = ("".join(lines[:PROGRAM_LINES]) + ("…" if len(lines) > PROGRAM_LINES else "") for lines in cut)
    return (
        ModelCompletion("base", tuple(_pieces(base, tuned)), _passed(sample.base_reason), sample.base_reason),
        ModelCompletion("tuned", tuple(_pieces(tuned, base)), _passed(sample.tuned_reason), sample.tuned_reason),
    )


def _passed(reason: str | None) -> bool:
    return (reason or "").startswith(PASSED)


def _answer(who: str, text: str, truth: str, score: float | None) -> ModelCompletion:
    text, truth = text[:LONGEST], truth[:LONGEST]
    exact = text.strip() == truth.strip()
    pieces: tuple[Piece, ...] = (("same", text),) if exact else tuple(_pieces(text, truth))
    judgement = "exact" if exact else "differs" if score is None else f"{score:.0%} alike"
    return ModelCompletion(who, pieces, exact, judgement)


def _pieces(text: str, truth: str) -> list[Piece]:
    """The text cut into what stands in the truth too, in order, and what does not: by words, as a reader would."""
    words, wanted = _WORDS.findall(text), _WORDS.findall(truth)
    pieces: list[Piece] = []
    for operation, _, _, start, end in SequenceMatcher(None, wanted, words, autojunk=False).get_opcodes():
        if start < end:
            pieces.append(("same" if operation == "equal" else "differs", "".join(words[start:end])))
    return pieces
