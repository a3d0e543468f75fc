"""A file's tokens in chunks that fit a sequence: nothing lost, nothing twice, never two files in one.

    causal    BOS  tokens…  [EOS at the end of the file]
    instruct  BOS  [INST] instruction, end of what came before [/INST]  tokens…  [EOS at the end of the file]

Chunks end between characters, so that each decodes to text by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tasks.models.vocabulary import CodeTokenizer, FimTokens, decode_bytes, encode, encode_batch


@dataclass(frozen=True)
class TokenizedFile:
    """One file of the sample with the tokens of its content."""

    repo: str
    path: str
    sha256: str
    language: str
    ids: list[int]


class Chunk(NamedTuple):
    """One sequence, not padded."""

    ids: list[int]
    mask: list[int] | None = None
    """`instruct` only: 1 where the loss counts."""


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


def instruct_chunks(tokenizer: CodeTokenizer, document: TokenizedFile, framing: Framing) -> Iterator[Chunk]:
    """The file as answers to instructions that are derived from it: the answers one after the other are the file.

    The first instruction asks for the file by language and path; each further one shows the end of what came before,
    as much as fits half a sequence. A path of hundreds of characters is left out. The template is that of Llama 2 and
    Code Llama Instruct, to whose tokenizers `[INST]` is plain text.
    """
    ids, start = document.ids, 0
    while start < len(ids):
        prompt = [*framing.begin, *_instruction(tokenizer, document, start, framing.max_length // 2)]
        end, closing = _end(tokenizer, ids, start, framing.max_length - len(prompt), framing.end)
        answer = [*ids[start:end], *closing]
        yield Chunk([*prompt, *answer], [0] * len(prompt) + [1] * len(answer))
        start = end


def _instruction(tokenizer: CodeTokenizer, document: TokenizedFile, start: int, room: int) -> list[int]:
    name = f"{document.path} ({document.language})"
    if not start:
        named, short = encode_batch(
            tokenizer, [f"[INST] Write the file {name}. [/INST]", "[INST] Write a file. [/INST]"]
        )
        return named if named and len(named) <= room else short or []
    named, short = encode_batch(tokenizer, [f"[INST] Continue the file {name}:\n", "[INST] Continue:\n"])
    head = named if named and len(named) <= room // 2 else short or []
    tail = encode(tokenizer, "\n[/INST]", continues=True)
    first = max(0, start - max(0, room - len(head) - len(tail)))
    while first < start and not starts_character(tokenizer, document.ids[first]):
        first += 1
    return [*head, *document.ids[first:start], *tail]


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
    if fim is None or fim.prefix not in ids:
        return [ids]
    at = ids.index(fim.prefix), ids.index(fim.suffix), ids.index(fim.middle)
    prefix, suffix, middle = ids[at[0] + 1 : at[1]], ids[at[1] + 1 : at[2]], ids[at[2] + 1 :]
    return [prefix, middle, suffix] if prefix else [middle, suffix]
