"""Chunks rearranged so that the model learns to fill in the middle, in the order of the model's family, at id level.

    PSM  BOS <PRE> prefix <SUF> suffix <MID> middle <EOT>
    SPM  BOS <PRE> <SUF> suffix <MID> prefix middle <EOT>      a share of them, for families that know this order, too
         BOS <SUF> suffix <PRE> prefix <MID> middle <EOT>      families that have the suffix first always

A share of them stands behind other files of the repository (`tasks.families.context`), which have no part in the loss.

The text is cut at characters and the parts are tokenized apart, without SentencePiece's space before suffix and middle;
in SPM prefix and middle are tokenized as one. Source: Rozière et al., “Code Llama”, https://arxiv.org/abs/2308.12950,
section 2.3. What is drawn depends on the seed, the file's sha256 and the chunk's number, not on order or workers.

Middles drawn as random spans alone teach nothing about single lines, so most are lines, ends of lines and blocks. A
share of them is pieces of syntax (`syntax`); where a file has none, its middles are drawn by lines.
"""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

from tasks.families.context import Names, repository_context
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode_bytes, encode
from tasks.tokenization.chunks import Chunk, Framing, TokenizedFile, causal_end, cut
from tasks.tokenization.config import ContextConfig
from tasks.tokenization.syntax import Kind, Piece, Unreadable, pieces

Span = tuple[int, int]
Drawing = Callable[[str, list[Span], random.Random], Span]

_MARKS = 4
_ATTEMPTS = 8
_BY_LINES = "middle drawn by lines"
_BEHIND = "behind files of its repository"
_ALONE = f"not {_BEHIND}: none is related"


@dataclass(frozen=True)
class Infilling:
    """Which chunks are rearranged, and with which marks."""

    fim: FimTokens
    rate: float
    spm_rate: float
    seed: int
    syntax_rate: float = 0.0
    context: ContextConfig | None = None

    def generator(self, document: TokenizedFile, number: int, purpose: str = "") -> random.Random:
        """The random numbers of one chunk."""
        name = f"{self.seed}:{document.sha256}:{number}{purpose}".encode()
        return random.Random(int.from_bytes(hashlib.sha256(name).digest()[:8]))

    def chunks(self, tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing) -> Iterator[Chunk]:
        """The file in order, some chunks as they stand and some rearranged; a rearranged one carries no EOS."""
        start, number = 0, 0
        file = _File(self, tokenizer, document, framing)
        while start < len(document.ids):
            found = file.rearranged(start, number)
            if found is None:
                end, closing = causal_end(tokenizer, document.ids, start, framing)
                found = end, Chunk([*framing.begin, *document.ids[start:end], *closing])
            yield found[1]
            start, number = found[0], number + 1


@dataclass
class _File:
    """One file on its way into chunks."""

    infilling: Infilling
    tokenizer: CodeTokenizer
    document: TokenizedFile
    framing: Framing

    def rearranged(self, start: int, number: int) -> tuple[int, Chunk] | None:
        """Where the rearranged chunk ends, and the chunk; None where it stays as it stands."""
        infilling, framing = self.infilling, self.framing
        if infilling.generator(self.document, number).random() >= infilling.rate:
            return None
        before, made = self._before(number)
        most = framing.max_length - len(before)
        # The parts may have a few tokens more than the chunk had: then less text is taken, and all is drawn again.
        room = most - len(framing.begin) - _MARKS
        for _ in range(_ATTEMPTS):
            if room < 1:
                break
            end = cut(self.tokenizer, self.document.ids, start, room)
            body = self._body(start, end, number)
            if body is None:
                break
            ids = [*framing.begin, *body.ids]
            if len(ids) <= most:
                mask = [0] * len(before) + [1] * len(ids) if before else None
                return end, Chunk([*before, *ids], mask, (*body.made, *made))
            room = min(room, end - start) - (len(ids) - most)
        return None

    def _before(self, number: int) -> tuple[list[int], tuple[str, ...]]:
        """What of its repository stands before a chunk, without a part in the loss, and what is counted of it."""
        infilling, document, context = self.infilling, self.document, self.infilling.context
        if not context or infilling.generator(document, number, ":context").random() >= context.share:
            return [], ()
        names = Names(document.repo, document.path) if context.names == "own" else Names()
        try:
            room = min(context.max_tokens, self.framing.max_length // 2)
            ids = repository_context(self.tokenizer, infilling.fim, document.related, names, room)
        except Unrepresentable:
            ids = []
        return ids, (_BEHIND if ids else _ALONE,)

    def _body(self, start: int, end: int, number: int) -> Chunk | None:
        """The rearranged text with its marks; None where there is nothing to rearrange."""
        infilling, is_first = self.infilling, number == 0
        raw = decode_bytes(self.tokenizer, self.document.ids[start:end], continues=not is_first)
        generator = infilling.generator(self.document, number)
        generator.random()  # the one that chose the chunk
        suffix_first = generator.random() < infilling.spm_rate
        least = 1 if is_first else 0
        try:
            text = raw.decode()
            span: Span | None = None
            made: tuple[str, ...] = ()
            if infilling.syntax_rate:
                made = (_BY_LINES,)
                if generator.random() < infilling.syntax_rate:
                    span, made = self._piece(raw, start, generator, least)
            span = span or draw_span(text, generator, least=least)
            return None if span is None else Chunk(self._assemble(text, span, suffix_first, is_first), made=made)
        except (UnicodeDecodeError, Unrepresentable):  # a single token that ends within a character
            return None

    def _piece(
        self, raw: bytes, start: int, generator: random.Random, least: int
    ) -> tuple[Span | None, tuple[str, ...]]:
        """A piece of syntax within a chunk as start and end of characters, and what is counted of it."""
        found = self._pieces
        if isinstance(found, str):
            return None, (f"{_BY_LINES}: {found}",)
        place = self._places[start]
        whole = found[bisect_left(found, (place + least,)) : bisect_left(found, (place + len(raw),))]
        whole = [piece for piece in whole if piece.end <= place + len(raw)]
        if not whole:
            return None, (f"{_BY_LINES}: no whole piece in the chunk",)
        piece = draw_piece(whole, generator)
        first, last = piece.start - place, piece.end - place
        line = raw.rfind(b"\n", 0, first) + 1
        # as with whole lines: mostly with the indentation, sometimes with the newline
        if not raw[line:first].strip() and line >= least and generator.random() < 0.7:
            first = line
        if raw[last : last + 1] == b"\n" and generator.random() < 0.3:
            last += 1
        return (len(raw[:first].decode()), len(raw[:last].decode())), (f"middle along syntax: {piece.kind}",)

    @cached_property
    def _pieces(self) -> list[Piece] | str:
        """Those of the file, or why there are none."""
        document = self.document
        try:
            return pieces(document.language, document.path, decode_bytes(self.tokenizer, document.ids))
        except Unreadable as error:
            return str(error)

    @cached_property
    def _places(self) -> list[int]:
        """Where each token begins in the file, in bytes."""
        lengths = (len(self.tokenizer.pieces[index]) for index in self.document.ids)
        # the space that SentencePiece puts first is no part of the file
        return [max(0, place - self.tokenizer.leading_space) for place in accumulate(lengths, initial=0)]

    def _assemble(self, text: str, span: Span, suffix_first: bool, is_first: bool) -> list[int]:
        start, end = span
        tokenizer, fim = self.tokenizer, self.infilling.fim
        suffix = encode(tokenizer, text[end:], continues=True)
        if suffix_first and fim.both_orders and fim.middle is not None:
            joined = encode(tokenizer, text[:end], continues=not is_first)
            return [fim.prefix, fim.suffix, *suffix, fim.middle, *joined, fim.end]
        prefix = encode(tokenizer, text[:start], continues=not is_first)
        middle = encode(tokenizer, text[start:end], continues=True)
        return [*fim.prompt(None, prefix, suffix), *middle, fim.end]


def draw_piece(whole: list[Piece], generator: random.Random) -> Piece:
    """One of some pieces: first which kind, then which of it. Statements are many, bodies few."""
    kinds = [kind for kind in _KINDS if any(piece.kind == kind for piece in whole)]
    chosen = generator.choices(kinds, [_KINDS[kind] for kind in kinds])[0]
    return generator.choice([piece for piece in whole if piece.kind == chosen])


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
_KINDS: dict[Kind, float] = {"statement": 0.4, "arguments": 0.2, "block": 0.15, "body": 0.25}
"""Kinds of pieces with their weights."""
