"""A file's tokens in chunks that fit a sequence: nothing lost, nothing twice, never two files in one.

    causal    BOS  tokens…  [EOS at the end of the file]
    instruct  the chat template's question: an instruction, end of what came before;  tokens…  [its end of an answer]

Chunks end between characters, so that each decodes to text by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

from tasks.families.chat import ChatTemplate, join_marks, split_marks
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode_bytes
from tasks.related import RelatedFile


@dataclass(frozen=True)
class TokenizedFile:
    """One file of the sample with the tokens of its content."""

    repo: str
    path: str
    sha256: str
    language: str
    ids: list[int]
    related: Sequence[RelatedFile] = ()
    """Other files of its repository, where they are wanted; the most related first."""


class Chunk(NamedTuple):
    """One sequence, not padded."""

    ids: list[int]
    mask: list[int] | None = None
    """1 where the loss counts; None where it counts everywhere."""
    made: tuple[str, ...] = ()
    """What was made of it, in words that are counted."""


@dataclass(frozen=True)
class Framing:
    """What stands around the tokens of a chunk."""

    max_length: int
    begin: list[int]
    """BOS, or nothing where the model is used without."""
    end: list[int]
    """EOS after the last token of a file, or nothing."""

    @classmethod
    def of(cls, tokenizer: CodeTokenizer, max_length: int, *, add_eos: bool) -> Framing:
        begin = [] if tokenizer.bos is None else [tokenizer.bos]
        return cls(max_length, begin, [tokenizer.eos] if add_eos and tokenizer.eos is not None else [])


def cut(tokenizer: CodeTokenizer, ids: Sequence[int], start: int, room: int) -> int:
    """Where a chunk from `start` of at most `room` tokens ends: between characters, if there is such a place."""
    end = min(start + room, len(ids))
    for place in range(end, start, -1):
        if place == len(ids) or starts_character(tokenizer, ids[place]):
            return place
    return end


def starts_character(tokenizer: CodeTokenizer, index: int) -> bool:
    """Whether a token begins with the first byte of a character (bytes 10xxxxxx continue one in UTF-8)."""
    return tokenizer.pieces[index][0] & 0xC0 != 0x80


def causal_chunks(tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing) -> Iterator[Chunk]:
    """The file as it stands."""
    start = 0
    while start < len(document.ids):
        end, closing = causal_end(tokenizer, document.ids, start, framing)
        yield Chunk([*framing.begin, *document.ids[start:end], *closing])
        start = end


def causal_end(tokenizer: CodeTokenizer, ids: Sequence[int], start: int, framing: Framing) -> tuple[int, list[int]]:
    """Where the causal chunk from `start` ends, and what closes it.

    EOS never stands alone: where it no longer fits behind the last tokens, some of them go with it to the next chunk.
    """
    return _end(tokenizer, ids, start, framing.max_length - len(framing.begin), framing.end)


def _end(
    tokenizer: CodeTokenizer, ids: Sequence[int], start: int, room: int, closing: list[int]
) -> tuple[int, list[int]]:
    left = len(ids) - start
    if left + len(closing) <= room:
        return len(ids), closing
    return cut(tokenizer, ids, start, min(room, left - 1)), []


def instruct_chunks(
    tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing, template: ChatTemplate
) -> Iterator[Chunk]:
    """The file as answers to instructions that are derived from it: the answers one after the other are the file.

    The first instruction asks for the file by language and path; each further one shows the end of what came before,
    as much as fits half a sequence. A path of hundreds of characters is left out. `template`: the model's own.
    """
    ids, start = document.ids, 0
    ends = template.ends(tokenizer) if framing.end else []
    while start < len(ids):
        prompt = _instruction(tokenizer, template, document, start, framing.max_length // 2)
        end, closing = _end(tokenizer, ids, start, framing.max_length - len(prompt), ends)
        answer = [*ids[start:end], *closing]
        yield Chunk([*prompt, *answer], [0] * len(prompt) + [1] * len(answer))
        start = end


def _instruction(
    tokenizer: CodeTokenizer, template: ChatTemplate, document: TokenizedFile, start: int, room: int
) -> list[int]:
    name = f"{document.path} ({document.language})"
    if not start:
        named = _written(partial(template.ask, tokenizer, f"Write the file {name}."))
        return named if named and len(named) <= room else template.ask(tokenizer, "Write a file.")
    before = split_marks(tokenizer, template.before)
    named = _written(partial(join_marks, tokenizer, [*before, f"Continue the file {name}:\n"]))
    short = join_marks(tokenizer, [*before, "Continue:\n"])
    head = named if named and len(named) <= room // 2 else short
    tail = join_marks(tokenizer, ["\n", *split_marks(tokenizer, template.after.lstrip(" "))], continues=True)
    first = max(0, start - max(0, room - len(head) - len(tail)))
    while first < start and not starts_character(tokenizer, document.ids[first]):
        first += 1
    return [*head, *document.ids[first:start], *tail]


def _written(write: Callable[[], list[int]]) -> list[int] | None:
    """What it writes; None where the vocabulary cannot: a file's name may hold anything."""
    try:
        return write()
    except Unrepresentable:
        return None


def decode_chunks(tokenizer: CodeTokenizer, rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The file that the chunks of one file came from, whatever their format.

    Args:
        rows: all rows of one file in order: `input_ids`, `chunk`, and `completion_mask` where there is one.
    """
    return b"".join(_decode_chunk(tokenizer, row) for row in rows)


def _decode_chunk(tokenizer: CodeTokenizer, row: Mapping[str, Any]) -> bytes:
    ids, mask = list(row["input_ids"]), row.get("completion_mask")
    if mask is not None:
        ids = [index for index, counts in zip(ids, mask, strict=True) if counts]
    first, *others = _parts(tokenizer, ids)
    # SentencePiece's space stands before the first part only, and only where the file begins.
    raw = [decode_bytes(tokenizer, first, continues=row["chunk"] > 0)]
    return b"".join([*raw, *(decode_bytes(tokenizer, part, continues=True) for part in others)])


def _parts(tokenizer: CodeTokenizer, ids: list[int]) -> list[list[int]]:
    """The parts of a chunk in the order of the file: one, or with FIM marks (prefix and) middle and suffix."""
    fim = FimTokens.find(tokenizer)
    parts = fim.parts(ids) if fim else None
    if parts is None:
        return [ids]
    prefix, suffix, middle = parts
    return [prefix, middle, suffix] if prefix else [middle, suffix]
