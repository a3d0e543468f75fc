"""The text around a gap as a prompt, in the order and with the marks of the model's family."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, encode

CHARACTERS_PER_TOKEN = 16
"""Text taken for each token of context. Vocabularies have few longer tokens, and encoding whole files is slow."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked, and the text that it sees of it."""

    ids: list[int]
    before: str
    after: str
    start: bytes = b""
    """What the answer has to begin with: the end of `before`, where the last token was taken back."""


@dataclass(frozen=True)
class Before:
    """The end of a text, as tokens and as text."""

    ids: list[int]
    text: str


def gap_prompt(content: str, start: int, end: int, tokenizer: CodeTokenizer, fim: FimTokens, tokens: int) -> Prompt:
    """`BOS <PRE> prefix <SUF> suffix <MID>` of at most `tokens`, from what is nearest to the gap. The suffix gets a
    third of the room, more where the prefix leaves some.

    Raises:
        Unrepresentable: the vocabulary cannot write the text.
    """
    room = tokens - len(fim.prompt(tokenizer.bos, [], []))
    after = encode(tokenizer, content[end : end + room * CHARACTERS_PER_TOKEN], continues=True)[:room]
    before = text_before(content, start, tokenizer, max(room - len(after), room - room // 3))
    suffix = after[: room - len(before.ids)]
    ids = fim.prompt(tokenizer.bos, before.ids, suffix)
    return Prompt(ids, before.text, decode(tokenizer, suffix, continues=True))


def text_before(content: str, end: int, tokenizer: CodeTokenizer, room: int) -> Before:
    """The last tokens before a place in a file. Raises as `gap_prompt`."""
    start = max(0, end - room * CHARACTERS_PER_TOKEN)
    ids = encode(tokenizer, content[start:end], continues=start > 0)
    kept = ids[max(0, len(ids) - room) :]
    whole = start == 0 and len(kept) == len(ids)
    return Before(kept, decode(tokenizer, kept, continues=not whole))
