"""From files to rows of token ids, half of them plain, half of them infilling examples.

Infilling examples are cut from one piece of one file and built at id level, as Code Llama's are:

    PSM  <s> ▁<PRE> prefix ▁<SUF> suffix ▁<MID> middle ▁<EOT>
    SPM  <s> ▁<PRE> ▁<SUF> suffix ▁<MID> prefix middle ▁<EOT>

An example is never torn: a row is filled with whole examples, and what is left in front of them is plain
text. Random spans alone would teach nothing about lines, so most middles are lines, ends of lines and blocks.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from base_model.corpus import SourceFile
from base_model.tokenizer import BOS, EOS, EOT, MID, PRE, SUF, without_leading_space

PIECE_CHARACTERS = (120, 3000)
"""Length of the text that an infilling example is cut from, drawn log-uniformly."""
MIDDLE_TOKENS = 384
"""A longer middle is not used."""
EMPHASIS = 0x8000
"""Bit that marks the ids of a middle and its end: few among all, they weigh more in the loss."""

Span = tuple[int, int]
Rows = npt.NDArray[np.uint16]


def whole_line(text: str, lines: list[Span], rng: random.Random) -> Span:
    """One line, sometimes without its indentation, sometimes with its newline."""
    start, end = rng.choice(lines)
    if rng.random() < 0.3:
        start += len(text[start:end]) - len(text[start:end].lstrip())
    return start, min(len(text), end + (rng.random() < 0.3))


def end_of_line(text: str, lines: list[Span], rng: random.Random) -> Span:
    """From anywhere in a line to its end."""
    start, end = rng.choice(lines)
    indentation = len(text[start:end]) - len(text[start:end].lstrip())
    return rng.randrange(start + indentation, end), end


def span_in_line(text: str, lines: list[Span], rng: random.Random) -> Span:
    """Two places in one line."""
    start, end = rng.choice(lines)
    first, second = sorted((rng.randint(start, end), rng.randint(start, end)))
    return first, second


def block(text: str, lines: list[Span], rng: random.Random) -> Span:
    """Two to eight lines."""
    first = rng.randrange(len(lines))
    last = min(len(lines) - 1, first + rng.randint(1, 7))
    return lines[first][0], min(len(text), lines[last][1] + (rng.random() < 0.3))


def anywhere(text: str, lines: list[Span], rng: random.Random) -> Span:
    """Two places in the text."""
    first, second = sorted((rng.randint(0, len(text)), rng.randint(0, len(text))))
    return first, second


MIDDLES: list[tuple[Callable[[str, list[Span], random.Random], Span], float]] = [
    (whole_line, 0.48),
    (end_of_line, 0.22),
    (span_in_line, 0.10),
    (block, 0.10),
    (anywhere, 0.10),
]


def filled_lines(text: str) -> list[Span]:
    """Start and end, without the newline, of the lines that are not blank."""
    spans, start = [], 0
    for line in text.split("\n"):
        if line.strip():
            spans.append((start, start + len(line)))
        start += len(line) + 1
    return spans


def pieces(text: str, rng: random.Random) -> Iterator[tuple[int, str]]:
    """Cut a text at line ends into pieces of varied length; yield their offsets and texts."""
    low, high = np.log(PIECE_CHARACTERS[0]), np.log(PIECE_CHARACTERS[1])
    start = 0
    while start < len(text):
        end = text.find("\n", start + int(np.exp(rng.uniform(low, high)))) + 1 or len(text)
        yield start, text[start:end]
        start = end


@dataclass(frozen=True)
class Infilling:
    """Builds infilling examples at id level."""

    tokenizer: Tokenizer
    """Puts a space before the text, as at the start of a file."""
    continued: Tokenizer
    """Does not: for suffixes, middles, and prefixes from within a file."""
    length: int
    """Longest example, in tokens; the far ends of suffix and prefix are cut off to meet it."""

    @classmethod
    def of(cls, tokenizer: Tokenizer, length: int) -> "Infilling":
        return cls(tokenizer, without_leading_space(tokenizer), length)

    def ids(self, text: str, *, first: bool = False) -> list[int]:
        """Ids of a text, without special tokens."""
        tokenizer = self.tokenizer if first else self.continued
        return tokenizer.encode(text, add_special_tokens=False).ids

    def example(self, piece: str, rng: random.Random, *, first: bool) -> list[int] | None:
        """One example from a piece of a file; None if the piece has no line or the middle is too long."""
        lines = filled_lines(piece)
        if not lines:
            return None
        kind = rng.choices([kind for kind, _ in MIDDLES], [weight for _, weight in MIDDLES])[0]
        start, end = kind(piece, lines, rng)
        suffix_first, joined = rng.random() < 0.5, rng.random() < 0.5
        prefix = self.ids(piece[:start], first=first) if start else []
        middle = self.ids(piece[start:end]) if start < end else []
        if suffix_first and joined and start < end:
            whole = self.ids(piece[:end], first=first)
            cut = min(len(prefix), len(whole))
            prefix, middle = whole[:cut], whole[cut:]
        if len(middle) > MIDDLE_TOKENS:
            return None
        return self.assemble(prefix, middle, self.ids(piece[end:]) if end < len(piece) else [], suffix_first)

    def prompt(self, prefix: list[int], suffix: list[int], suffix_first: bool) -> list[int]:
        """Everything that comes before the middle."""
        bos, pre, suf, mid = (self.tokenizer.token_to_id(token) for token in (BOS, PRE, SUF, MID))
        if suffix_first:
            return [bos, pre, suf, *suffix, mid, *prefix]
        return [bos, pre, *prefix, suf, *suffix, mid]

    def assemble(self, prefix: list[int], middle: list[int], suffix: list[int], suffix_first: bool) -> list[int]:
        """One whole example of at most `length` tokens; the middle and its end are marked."""
        room = self.length - len(middle) - 5
        excess = max(0, len(prefix) + len(suffix) - room)
        cut = min(len(suffix), excess)
        prefix, suffix = prefix[excess - cut :], suffix[: len(suffix) - cut]
        marked = [token | EMPHASIS for token in (*middle, self.tokenizer.token_to_id(EOT))]
        return [*self.prompt(prefix, suffix, suffix_first), *marked]


def encode_files(files: Sequence[SourceFile], tokenizer: Tokenizer, context: int, seed: int) -> Rows:
    """Encode files, each as plain text or as infilling examples, into shuffled rows of `context` + 1 ids."""
    rng = random.Random(seed)
    infilling = Infilling.of(tokenizer, context + 1)
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    plain: list[int] = []
    examples: list[list[int]] = []
    for file in rng.sample(files, len(files)):
        if rng.random() < 0.5:
            plain += [bos, *infilling.ids(file.text, first=True), eos]
            continue
        made = (infilling.example(piece, rng, first=start == 0) for start, piece in pieces(file.text, rng))
        examples += [example for example in made if example]
    rng.shuffle(examples)
    return fill_rows(plain, examples, context + 1, rng)


def fill_rows(plain: list[int], examples: list[list[int]], length: int, rng: random.Random) -> Rows:
    """Pack whole examples into rows and fill what is left, and further rows, with the plain stream."""
    rows: list[list[int]] = []
    position, row = 0, list[int]()
    for example in examples:
        if len(row) + len(example) > length:
            gap = length - len(row)
            rows.append(plain[position : position + gap] + row)
            position += gap
            row = []
        row += example
    rows += [plain[at : at + length] for at in range(position, len(plain), length)]
    rows = [row for row in rows if len(row) == length]
    rng.shuffle(rows)
    return np.array(rows, dtype=np.uint16)


def write_pass(files: Sequence[SourceFile], tokenizer: Tokenizer, context: int, seed: int, path: Path) -> None:
    """Encode one share of the corpus for one pass over it; the file appears when it is complete."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as out:
        np.save(out, encode_files(files, tokenizer, context, seed))
    partial.rename(path)
