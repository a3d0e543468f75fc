"""A family's fill-in-the-middle marks as ids of a vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from artifacts.errors import InputError
from tasks.families.table import FAMILIES, Marks
from tasks.models.vocabulary import CodeTokenizer

ALL = tuple(dict.fromkeys(family.marks for family in FAMILIES if family.marks))
"""The marks of all families, each once."""


def marks_of(tokenizer: CodeTokenizer) -> Marks | None:
    """The names of this vocabulary's marks, or None where it has none."""
    return next((marks for marks in ALL if FimTokens.named(marks, tokenizer)), None)


@dataclass(frozen=True)
class FimTokens:
    """The ids that mark the parts of a fill-in-the-middle sequence."""

    prefix: int
    suffix: int
    middle: int | None
    """None where the middle follows the prefix without a mark."""
    end: int
    suffix_first: bool = False
    both_orders: bool = False
    repository: int | None = None
    file: int | None = None
    """See `tasks.families.table.Marks`."""

    @classmethod
    def of(cls, tokenizer: CodeTokenizer) -> FimTokens:
        """The marks of this vocabulary.

        Raises:
            InputError: it has none.
        """
        if found := cls.find(tokenizer):
            return found
        pieces = [marks.prefix for marks in ALL if tokenizer.rust.token_to_id(marks.prefix) is not None]
        if pieces:  # which text that looks like them may come to
            raise InputError(
                f"the model's tokenizer.json has {pieces[0]} among the pieces of text, not among its added tokens",
                field="tokenization.format",
                remedy="use tokenization.format=causal, or a tokenizer.json that adds the fill-in-the-middle tokens",
            )
        raise InputError(
            "the model's vocabulary has no fill-in-the-middle tokens of a family that codetune knows",
            field="tokenization.format",
            remedy="use tokenization.format=causal, or a model with " + ", ".join(f"{marks.prefix}…" for marks in ALL),
        )

    @classmethod
    def find(cls, tokenizer: CodeTokenizer) -> FimTokens | None:
        """The marks of this vocabulary, or None where it has none."""
        return next((found for marks in ALL if (found := cls.named(marks, tokenizer))), None)

    @classmethod
    def named(cls, marks: Marks, tokenizer: CodeTokenizer) -> FimTokens | None:
        """The marks of these names, or None where this vocabulary lacks one."""
        names = [marks.prefix, marks.suffix, *filter(None, (marks.middle, marks.end))]
        if not all(name in tokenizer.ids for name in names):
            return None
        middle = tokenizer.ids[marks.middle] if marks.middle else None
        end = tokenizer.ids[marks.end] if marks.end else tokenizer.eos
        if end is None:
            return None
        prefix, suffix = tokenizer.ids[marks.prefix], tokenizer.ids[marks.suffix]
        repository, file = (tokenizer.ids.get(name) if name else None for name in (marks.repository, marks.file))
        return cls(prefix, suffix, middle, end, marks.suffix_first, marks.both_orders, repository, file)

    def prompt(self, bos: int | None, prefix: Sequence[int], suffix: Sequence[int]) -> list[int]:
        """What the model continues with the middle and the end, in the family's order.

        As Code Llama was trained: encode the prefix as the beginning of a text and the suffix with `continues=True`,
        and decode the middle with `continues=True`. Source: `infilling_prompt_tokens` in
        https://github.com/meta-llama/codellama/blob/main/llama/generation.py.
        """
        start = [] if bos is None else [bos]
        parts = [[self.prefix, *prefix], [self.suffix, *suffix]]
        first, second = reversed(parts) if self.suffix_first else parts
        return [*start, *first, *second, *([] if self.middle is None else [self.middle])]

    def parts(self, ids: Sequence[int]) -> tuple[list[int], list[int], list[int]] | None:
        """Prefix, suffix and middle of a sequence that has these marks (without what begins and ends it); None for one
        that has not. In the other order of `both_orders` the prefix is empty, and the middle has it."""
        if self.prefix not in ids:
            return None
        marks = sorted((place, ids[place]) for place in (ids.index(one) for one in self._marks))
        ends = [place for place, _ in marks[1:]] + [len(ids)]
        found = {mark: list(ids[place + 1 : end]) for (place, mark), end in zip(marks, ends, strict=True)}
        middle = found[self.prefix if self.middle is None else self.middle]
        return ([] if self.middle is None else found[self.prefix]), found[self.suffix], middle

    @property
    def _marks(self) -> list[int]:
        return [self.prefix, self.suffix, *([] if self.middle is None else [self.middle])]
