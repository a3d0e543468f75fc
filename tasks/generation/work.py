"""What both models are put through, file by file of a prompt set: losses, or the answers to one suite."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from artifacts.lines import first_line
from artifacts.progress import Progress
from artifacts.rows import Row
from tasks import functional
from tasks.backends.contract import Computing, Decoding
from tasks.families.marks import FimTokens
from tasks.functional import Problem
from tasks.generation import losses
from tasks.generation.models import SIDES, Pair, Side
from tasks.models.healing import beginning_with
from tasks.models.vocabulary import CodeTokenizer, decode_bytes, line_breaks

TITLES = {
    "line": "completing lines",
    "fim": "filling in lines",
    "block": "filling in blocks",
    "context": "filling in lines behind other files",
}
_LINES = ("line", "fim", "context")
"""Suites whose answers are one line."""


class Work(ABC):
    """One file of a prompt set, and how it is put to a model."""

    rows: Sequence[Row]
    unit: str
    """What a row is, for people."""
    ids: str
    """The column with the tokens that a model sees."""

    @property
    @abstractmethod
    def title(self) -> str:
        """What is done, for people."""

    @property
    @abstractmethod
    def longest(self) -> int:
        """Tokens of the longest text that a model will see."""

    @abstractmethod
    def put(self, computing: Computing, rows: Sequence[Row], done: Callable[[int], None]) -> Sequence[Any]:
        """What one side makes of some of the rows, by row."""


@dataclass
class Losses(Work):
    """Chunks whose loss is measured."""

    rows: Sequence[Row]
    batch_size: int
    title = "loss"
    unit = "chunks"
    ids = "input_ids"

    @property
    def longest(self) -> int:
        return max(len(row["input_ids"]) for row in self.rows)

    def put(self, computing: Computing, rows: Sequence[Row], done: Callable[[int], None]) -> list[float]:
        """Summed losses in nats.

        Raises:
            StageError: one is not finite.
        """
        return losses.measure(computing, rows, self.batch_size, done)


@dataclass
class Answering(Work):
    """The prompts of one suite, and how long answering took."""

    suite: str
    rows: Sequence[Row]
    tokenizer: CodeTokenizer
    batch_size: int
    programs: Programs | None = None
    """For a functional suite."""
    tokens: int = 0
    """Of all answers so far."""
    completions: int = 0
    seconds: float = 0.0
    """That they took."""
    unit = "prompts"
    ids = "prompt_ids"

    @property
    def title(self) -> str:
        return TITLES.get(self.suite, self.suite)

    @property
    def limit(self) -> int:
        """Most tokens of an answer; one more than asked for where prompts gave their last away."""
        asked: int = max(row["new_tokens"] for row in self.rows)
        return asked + any(row["start"] for row in self.rows)

    @property
    def longest(self) -> int:
        return max(len(row["prompt_ids"]) for row in self.rows) + self.limit

    def put(self, computing: Computing, rows: Sequence[Row], done: Callable[[int], None]) -> list[str]:
        """Greedy answers, as far as they count."""
        started = time.perf_counter()
        made = computing.generate(
            [row["prompt_ids"] for row in rows], self._decoding([row["start"] for row in rows]), done
        )
        self.seconds += time.perf_counter() - started
        self.tokens, self.completions = self.tokens + sum(map(len, made)), self.completions + len(made)
        return [self._text(row, answer) for row, answer in zip(rows, made, strict=True)]

    def _decoding(self, starts: Sequence[bytes]) -> Decoding:
        """Lines end with a token that holds a line break; everything ends with the middle or the text."""
        tokenizer, fim = self.tokenizer, FimTokens.find(self.tokenizer)
        breaks = line_breaks(tokenizer) if self.suite in _LINES else set()
        ends = {index for index in (tokenizer.eos, fim.end if fim else None) if index is not None}
        first = [beginning_with(tokenizer, one) for one in starts]
        decoding = Decoding(self.batch_size, self.limit, frozenset(breaks | ends), first=first)
        # Asked of an answer without its prompt, so not where answers begin with different ends of prompts.
        if (programs := self.programs) is None or len({*starts}) > 1:
            return decoding
        return replace(decoding, ended=lambda ids: programs.ended(self._decode(ids, starts[0])))

    def _text(self, row: Row, answer: list[int]) -> str:
        text = self._decode(answer, row["start"])
        if self.programs:
            return self.programs.stopped(text, row["path"])
        return first_line(text) if self.suite in _LINES else text

    def _decode(self, answer: list[int], start: bytes) -> str:
        return decode_bytes(self.tokenizer, answer, continues=True)[len(start) :].decode(errors="replace")


@dataclass(frozen=True)
class Programs:
    """Where the answers to a functional suite end."""

    problems: Sequence[Problem]
    instructed: bool

    @classmethod
    def read(cls, path: Path, *, instructed: bool) -> Programs:
        """Of the problems of a prompt set."""
        return cls(functional.read_problems(path).problems, instructed)

    def stopped(self, answer: str, task_id: str) -> str:
        """What of an answer is the completion, by the rules of the suite's paper."""
        problem = self._by_id[task_id]
        return functional.completion_of_answer(answer, problem) if self.instructed else functional.stop(answer, problem)

    def ended(self, answer: str) -> bool:
        """Whether those rules have ended an answer, whichever of the problems it is to."""
        if self.instructed:
            return functional.answer_ended(answer)
        return all(functional.ended(answer, problem) for problem in self._one_of_each_form)

    @cached_property
    def _by_id(self) -> dict[str, Problem]:
        return {problem.task_id: problem for problem in self.problems}

    @cached_property
    def _one_of_each_form(self) -> list[Problem]:
        return list({problem.form: problem for problem in self.problems}.values())


def measure(
    work: Work, pair: Pair, repeated: float, progress: Progress, sides: Sequence[Side] = SIDES
) -> list[dict[str, Any]]:
    """What every side makes of every row, in the same order and batches: a row each with `base, again, tuned`; `again`
    is None where it was not repeated.

    Raises:
        InputError: one of the models computes no numbers.
        StageError: a loss is not finite.
    """
    pair.prepare(work.longest)
    for side in sides:
        if side != "again":
            pair.check(side, min((row[work.ids] for row in work.rows), key=len))
    found: list[dict[str, Any]] = [dict.fromkeys(sides) for _ in work.rows]
    for side in sides:
        indices = _part(len(work.rows), repeated if side == "again" else 1.0)
        progress.begin(f"{work.title}, {side}", len(indices), work.unit)
        with pair.side(side) as computing:
            made = work.put(computing, [work.rows[index] for index in indices], progress.advance)
        for index, one in zip(indices, made, strict=True):
            found[index][side] = one
    return found


def _part(count: int, share: float) -> list[int]:
    """The indices of a share of so many, evenly from first to last, so that it has its part of what is held out and of
    what is from elsewhere; at least one."""
    wanted = min(count, max(1, round(count * share)))
    return [number * count // wanted for number in range(wanted)]
