"""The same work for base, base again and tuned."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from artifacts.errors import InputError
from artifacts.lines import first_line
from artifacts.progress import Progress
from tasks.backends.contract import Decoding
from tasks.families.marks import FimTokens
from tasks.generation import losses, suites
from tasks.generation.config import GenerationConfig
from tasks.generation.models import SIDES, Pair, Side
from tasks.generation.problems import Asked
from tasks.models.healing import beginning_with
from tasks.models.vocabulary import CodeTokenizer, decode_bytes

TITLES = {"line": "completing lines", "fim": "filling in lines", "block": "filling in blocks"}


@dataclass(frozen=True)
class Measured:
    """What one side did."""

    losses: list[float | None]
    """By chunk; None where not measured."""
    answers: list[str | None] = field(default_factory=list)
    """By item; None where not asked."""
    tokens: int = 0
    """Of the answers."""
    completions: int = 0
    seconds: float = 0.0
    """That they took."""


@dataclass(frozen=True)
class Work:
    """What every side is put through, in the same order and batches."""

    config: GenerationConfig
    tokenizer: CodeTokenizer
    chunks: Sequence[losses.HeldOutSequence]
    items: Sequence[suites.Item]
    functional: Mapping[str, Asked]
    progress: Progress

    @property
    def longest(self) -> int:
        """Tokens of the longest text that a model will see."""
        prompts = (len(item.prompt_ids) + self._limit(item.suite) for item in self.items)
        return max(*(len(chunk.input_ids) for chunk in self.chunks), *prompts, 0)

    def measure(self, pair: Pair) -> dict[Side, Measured]:
        """Every side in turn, once it is known that both compute numbers.

        Raises:
            InputError: one does not.
            StageError: a loss is not finite.
        """
        texts = [*(chunk.input_ids for chunk in self.chunks), *(item.prompt_ids for item in self.items)]
        for side in ("base", "tuned"):
            pair.check(side, min(texts, key=len))
        return {side: self._measure(pair, side) for side in SIDES}

    def _measure(self, pair: Pair, side: Side) -> Measured:
        share = self.config.repeated if side == "again" else 1.0
        chosen = _part(range(len(self.chunks)), share)
        found: list[float | None] = [None] * len(self.chunks)
        with pair.side(side) as computing:
            self.progress.begin(f"loss, {side}", len(chosen), "chunks")
            chunks = [self.chunks[index] for index in chosen]
            sums = losses.measure(computing, chunks, self.config.batch_size, self.progress.advance)
            for index, loss in zip(chosen, sums, strict=True):
                found[index] = loss
            answers: list[str | None] = [None] * len(self.items)
            tokens, completions, seconds = 0, 0, 0.0
            for suite in dict.fromkeys(item.suite for item in self.items):
                indices = _part([index for index, item in enumerate(self.items) if item.suite == suite], share)
                self.progress.begin(f"{TITLES.get(suite, suite)}, {side}", len(indices), "prompts")
                prompts = [self.items[index].prompt_ids for index in indices]
                started = time.perf_counter()
                starts = [self.items[index].start for index in indices]
                made = computing.generate(prompts, self._decoding(suite, starts), self.progress.advance)
                seconds += time.perf_counter() - started
                for index, answer in zip(indices, made, strict=True):
                    answers[index] = self._text(self.items[index], answer)
                tokens, completions = tokens + sum(map(len, made)), completions + len(made)
        return Measured(found, answers, tokens, completions, seconds)

    def _limit(self, suite: str) -> int:
        """Most tokens of an answer; one more than asked for where prompts gave their last away."""
        given = any(item.start for item in self.items if item.suite == suite)
        if suite in self.functional:
            return self.functional[suite].new_tokens + given
        return suites.answer_tokens(suite, self.config) + given  # type: ignore[arg-type]

    def _decoding(self, suite: str, starts: Sequence[bytes]) -> Decoding:
        """Lines end with a token that holds a line break; everything ends with the middle or the text."""
        tokenizer = self.tokenizer
        single = suite in ("line", "fim")
        breaks = suites.line_breaks(tokenizer) if single else set()
        ends = {index for index in (tokenizer.eos, _end_of_middle(tokenizer)) if index is not None}
        asked = self.functional.get(suite)
        start = starts[0] if len({*starts}) == 1 else None
        # Asked of an answer without its prompt, so not where answers begin with different ends of prompts.
        ended = (lambda ids: asked.ended(self._decode(ids, start))) if asked and start is not None else None
        first = [beginning_with(tokenizer, one) for one in starts]
        return Decoding(self.config.batch_size, self._limit(suite), frozenset(breaks | ends), ended, first)

    def _text(self, item: suites.Item, answer: list[int]) -> str:
        text = self._decode(answer, item.start)
        if item.suite in self.functional:
            return self.functional[item.suite].stopped(text, item.path)
        return first_line(text) if item.suite in ("line", "fim") else text

    def _decode(self, answer: list[int], start: bytes) -> str:
        return decode_bytes(self.tokenizer, answer, continues=True)[len(start) :].decode(errors="replace")


def rows(work: Work, measured: Mapping[Side, Measured]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Losses and completions, a row per chunk and per item, as `Generations` describes them."""
    loss_names = ("domain", "repo", "path", "language", "chunk", "tokens")
    names = ("domain", "suite", "repo", "path", "language", "line", "prompt", "suffix", "truth")
    by_chunk = [
        {
            **{name: getattr(chunk, name) for name in loss_names},
            **{side: measured[side].losses[index] for side in SIDES},
        }
        for index, chunk in enumerate(work.chunks)
    ]
    by_item = [
        {
            "item": index,
            **{name: getattr(item, name) for name in names},
            **{side: measured[side].answers[index] for side in SIDES},
        }
        for index, item in enumerate(work.items)
    ]
    return by_chunk, by_item


def _part(indices: Sequence[int], share: float) -> list[int]:
    """A share of them, evenly from first to last, so that it has its part of what is held out and what is kept; at
    least one."""
    wanted = min(len(indices), max(1, round(len(indices) * share)))
    return [indices[number * len(indices) // wanted] for number in range(wanted)]


def _end_of_middle(tokenizer: CodeTokenizer) -> int | None:
    try:
        return FimTokens.of(tokenizer).end
    except InputError:
        return None
