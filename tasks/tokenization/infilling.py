"""Chunks rearranged so that the model learns to fill in the middle, in the order of the model's family, at id level.

    PSM  BOS <PRE> prefix <SUF> suffix <MID> middle <EOT>
    SPM  BOS <PRE> <SUF> suffix <MID> prefix middle <EOT>      a share of them, for families that know this order, too
         BOS <SUF> suffix <PRE> prefix <MID> middle <EOT>      families that have the suffix first always

The text is cut at characters and the parts are tokenized apart, without SentencePiece's space before suffix and middle;
in SPM prefix and middle are tokenized as one. Source: Rozière et al., “Code Llama”, https://arxiv.org/abs/2308.12950,
section 2.3. What is drawn depends on the seed, the file's sha256 and the chunk's number, not on order or workers.

Middles drawn as random spans alone teach nothing about single lines, so most are lines, ends of lines and blocks.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode_bytes, encode
from tasks.tokenization.chunks import Chunk, Framing, TokenizedFile, causal_end, cut

Span = tuple[int, int]
Drawing = Callable[[str, list[Span], random.Random], Span]

_MARKS = 4
_ATTEMPTS = 8


@dataclass(frozen=True)
class Infilling:
    """Which chunks are rearranged, and with which marks."""

    fim: FimTokens
    rate: float
    spm_rate: float
    seed: int

    def generator(self, document: TokenizedFile, number: int) -> random.Random:
        """The random numbers of one chunk."""
        name = f"{self.seed}:{document.sha256}:{number}".encode()
        return random.Random(int.from_bytes(hashlib.sha256(name).digest()[:8]))

    def chunks(self, tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing) -> Iterator[Chunk]:
        """The file in order, some chunks as they stand and some rearranged; a rearranged one carries no EOS."""
        start, number = 0, 0
        while start < len(document.ids):
            found = self._rearranged(tokenizer, document, framing, (start, number))
            if found is None:
                end, closing = causal_end(tokenizer, document.ids, start, framing)
                found = end, [*framing.begin, *document.ids[start:end], *closing]
            yield Chunk(found[1])
            start, number = found[0], number + 1

    def _rearranged(
        self, tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing, position: tuple[int, int]
    ) -> tuple[int, list[int]] | None:
        """Where the rearranged chunk ends and its ids; None where the chunk stays as it stands."""
        start, number = position
        if self.generator(document, number).random() >= self.rate:
            return None
        # The parts may have a few tokens more than the chunk had: then less text is taken, and all is drawn again.
        room = framing.max_length - len(framing.begin) - _MARKS
        for _ in range(_ATTEMPTS):
            if room < 1:
                break
            end = cut(tokenizer, document.ids, start, room)
            raw = decode_bytes(tokenizer, document.ids[start:end], continues=number > 0)
            body = self._body(tokenizer, raw, number == 0, self.generator(document, number))
            if body is None:
                break
            ids = [*framing.begin, *body]
            if len(ids) <= framing.max_length:
                return end, ids
            room = min(room, end - start) - (len(ids) - framing.max_length)
        return None

    def _body(self, tokenizer: CodeTokenizer, raw: bytes, first: bool, generator: random.Random) -> list[int] | None:
        """The rearranged text with its marks; None where there is nothing to rearrange."""
        generator.random()  # the one that chose the chunk
        suffix_first = generator.random() < self.spm_rate
        try:
            text = raw.decode()
            span = draw_span(text, generator, least=1 if first else 0)
            return None if span is None else self._assemble(tokenizer, text, span, suffix_first, first)
        except (UnicodeDecodeError, Unrepresentable):  # a single token that ends within a character
            return None

    def _assemble(self, tokenizer: CodeTokenizer, text: str, span: Span, suffix_first: bool, first: bool) -> list[int]:
        start, end = span
        fim = self.fim
        suffix = encode(tokenizer, text[end:], continues=True)
        if suffix_first and fim.both_orders and fim.middle is not None:
            joined = encode(tokenizer, text[:end], continues=not first)
            return [fim.prefix, fim.suffix, *suffix, fim.middle, *joined, fim.end]
        prefix = encode(tokenizer, text[:start], continues=not first)
        middle = encode(tokenizer, text[start:end], continues=True)
        return [*fim.prompt(None, prefix, suffix), *middle, fim.end]


def draw_span(text: str, generator: random.Random, *, least: int = 0) -> Span | None:
    """Start and end of a middle that is not empty and starts at character `least` or later; None if none is found."""
    lines = _filled_lines(text)
    for _ in range(_ATTEMPTS):
        point = generator.random()
        draw = next(draw for draw, below in _DRAWINGS if point < below)
        start, end = draw(text, lines, generator) if lines else _anywhere(text, lines, generator)
        if least <= start < end:
            return start, end
    return None


def _filled_lines(text: str) -> list[Span]:
    """Start and end, without the newline, of the lines that are not blank."""
    spans, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            spans.append((start, start + len(line)))
        start += len(line) + 1
    return spans


def _whole_line(text: str, lines: list[Span], generator: random.Random) -> Span:
    """One line, sometimes without its indentation, sometimes with its newline."""
    start, end = generator.choice(lines)
    if generator.random() < 0.3:
        start += _indentation(text[start:end])
    return start, min(len(text), end + (generator.random() < 0.3))


def _end_of_line(text: str, lines: list[Span], generator: random.Random) -> Span:
    start, end = generator.choice(lines)
    return generator.randrange(start + _indentation(text[start:end]), end), end


def _within_line(text: str, lines: list[Span], generator: random.Random) -> Span:
    del text
    start, end = generator.choice(lines)
    first, second = sorted((generator.randint(start, end), generator.randint(start, end)))
    return first, second


def _block(text: str, lines: list[Span], generator: random.Random) -> Span:
    """Two to eight lines."""
    first = generator.randrange(len(lines))
    last = min(len(lines) - 1, first + generator.randint(1, 7))
    return lines[first][0], min(len(text), lines[last][1] + (generator.random() < 0.3))


def _anywhere(text: str, lines: list[Span], generator: random.Random) -> Span:
    del lines
    first, second = sorted((generator.randint(0, len(text)), generator.randint(0, len(text))))
    return first, second


def _indentation(line: str) -> int:
    return len(line) - len(line.lstrip())


_DRAWINGS: tuple[tuple[Drawing, float], ...] = (
    (_whole_line, 0.40),
    (_end_of_line, 0.62),
    (_within_line, 0.72),
    (_block, 0.87),
    (_anywhere, 1.0),
)
"""Kinds of middle with the upper end of each one's share of [0, 1)."""
