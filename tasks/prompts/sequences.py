"""Sequences that the loss is measured on."""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from artifacts.rows import Row, each_row, rows_at
from artifacts.schema import Domain
from tasks.models.vocabulary import CodeTokenizer, decode_bytes
from tasks.prompts.files import AddedLines, HeldOutFile
from tasks.prompts.gaps import spread


@dataclass(frozen=True)
class HeldOutSequence:
    """A held-out sequence."""

    repo: str
    path: str
    chunk: int
    """Number within the file, from 0."""
    input_ids: tuple[int, ...]
    counts: tuple[bool, ...]
    """For each token, whether predicting it from those before counts."""
    language: str = "unknown"
    domain: Domain = "held_out"

    @property
    def tokens(self) -> int:
        """Tokens whose prediction counts."""
        return sum(self.counts)


def choose(
    files: Sequence[Path],
    wanted: int,
    seed: int,
    without: Container[tuple[str, ...]] = (),
    domain: Domain = "held_out",
) -> list[HeldOutSequence]:
    """Chunks of tokenized files, at most `wanted`, spread over the repositories; in the order of the files.

    The prediction of every token counts but that of the first, and where there is a completion mask of the tokens
    outside it. Chunks in which nothing counts are left out, and those of the files `without` (repository, path).
    """
    names = ((row["repo"], row["path"]) for row in each_row(files, ("repo", "path")))
    dropped = {number for number, name in enumerate(names) if name in without}
    rng = random.Random(f"loss {seed}" if domain == "held_out" else f"{domain} loss {seed}")
    repositories = (row["repo"] for row in each_row(files, ("repo",)))
    order = (number for number in spread(repositories, rng) if number not in dropped)
    chosen: dict[int, HeldOutSequence] = {}
    while drawn := list(islice(order, wanted - len(chosen))):
        found = ((number, _sequence(row, domain)) for number, row in rows_at(files, drawn))
        chosen.update((number, one) for number, one in found if one.tokens)
    return [chosen[number] for number in sorted(chosen)]


def _sequence(row: Row, domain: Domain) -> HeldOutSequence:
    """A chunk of which every token counts that can be predicted and is not masked."""
    ids = row["input_ids"]
    mask = row.get("completion_mask") or [1] * len(ids)
    counts = (False, *map(bool, mask[1:]))
    language = row.get("language") or "unknown"
    return HeldOutSequence(row["repo"], row["path"], row["chunk"], tuple(ids), counts, language, domain)


def choose_added(
    chunks: Path,
    files: Iterable[HeldOutFile],
    tokenizer: CodeTokenizer,
    wanted: int,
    seed: int,
    without: Container[tuple[str, ...]] = (),
) -> list[HeldOutSequence]:
    """As `choose`, of files of which only some lines are asked for: the prediction of tokens that begin in those lines
    counts. A chunk with lines of several units is there once for each. `chunks`: of the files, in their order."""

    def found() -> Iterator[HeldOutSequence]:
        left = iter(files)
        for name, rows in groupby(each_row([chunks]), key=lambda row: (row["repo"], row["path"])):
            # of some files, such as empty ones, there are no chunks
            file = next(file for file in left if (file.repo, file.path) == name)
            if name not in without:
                yield from _parts(list(rows), file, tokenizer)

    # made twice: all of them would take forty bytes a token
    order = set(islice(spread((one.repo for one in found()), random.Random(f"loss {seed}")), wanted))
    return [one for number, one in enumerate(found()) if number in order]


def _parts(rows: Sequence[Row], file: HeldOutFile, tokenizer: CodeTokenizer) -> list[HeldOutSequence]:
    """The chunks of a file, each once for each unit that it has lines of."""
    spans = [
        AddedLines(len(file.content[: one.start].encode()), len(file.content[: one.end].encode()), one.unit)
        for one in file.added or ()
    ]  # in bytes
    found = []
    place = 0  # the byte of the file at which a token begins
    for row in rows:
        ids = row["input_ids"]
        lengths = [len(tokenizer.pieces[index]) if index < len(tokenizer.pieces) else 0 for index in ids]
        # a space that SentencePiece puts before a text is none of the file's
        place -= sum(lengths) - len(decode_bytes(tokenizer, ids, continues=row["chunk"] > 0))
        counts: dict[str, list[bool]] = {}
        for number, length in enumerate(lengths):
            start = max(place, 0)
            index = bisect_right(spans, start, key=lambda span: span.start) - 1
            if number and length and index >= 0 and start < spans[index].end:
                counts.setdefault(spans[index].unit, [False] * len(ids))[number] = True
            place += length
        language = row.get("language") or "unknown"
        found += [
            HeldOutSequence(unit, file.path, row["chunk"], tuple(ids), tuple(flags), language)
            for unit, flags in counts.items()
        ]
    return found
