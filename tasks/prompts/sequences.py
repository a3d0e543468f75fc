"""Sequences that the loss is measured on."""

from __future__ import annotations

import random
import sys
from bisect import bisect_right
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path

from artifacts.rows import Row
from artifacts.schema import Domain
from tasks.models.vocabulary import CodeTokenizer, decode_bytes
from tasks.prompts.gaps import AddedLines, HeldOutFile, spread


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
    without: Container[tuple[str, str]] = (),
    domain: Domain = "held_out",
) -> list[HeldOutSequence]:
    """Chunks of tokenized files, at most `wanted`, spread over the repositories; in the order of the files.

    The prediction of every token counts but that of the first, and where there is a completion mask of the tokens
    outside it. Chunks in which nothing counts are left out, and those of the files `without` (repository, path).
    """
    import pyarrow.parquet as pq

    tables = [pq.read_table(file) for file in files]
    repositories = [repo for table in tables for repo in table["repo"].to_pylist()]
    rows = [(table, index) for table in tables for index in range(table.num_rows)]
    chosen: dict[int, HeldOutSequence] = {}
    rng = random.Random(f"loss {seed}" if domain == "held_out" else f"{domain} loss {seed}")
    for number in spread(repositories, rng):
        if len(chosen) == wanted:
            break
        table, index = rows[number]
        row = table.slice(index, 1).to_pylist()[0]
        if (row["repo"], row["path"]) in without:
            continue
        ids = row["input_ids"]
        mask = row.get("completion_mask") or [1] * len(ids)
        counts = (False, *map(bool, mask[1:]))
        language = row.get("language") or "unknown"
        chunk = HeldOutSequence(row["repo"], row["path"], row["chunk"], tuple(ids), counts, language, domain)
        if chunk.tokens:
            chosen[number] = chunk
    return [chosen[number] for number in sorted(chosen)]


def choose_added(
    chunks: Path, files: Sequence[HeldOutFile], tokenizer: CodeTokenizer, wanted: int, seed: int
) -> list[HeldOutSequence]:
    """As `choose`, of files of which only some lines are asked for: the prediction of tokens that begin in those lines
    counts. A chunk with lines of several units is there once for each. `chunks`: all of the files, in order."""
    import pyarrow.parquet as pq

    by_name = {(file.repo, file.path): file for file in files}

    def found() -> Iterator[HeldOutSequence]:
        with pq.ParquetFile(chunks) as file:
            read = (row for batch in file.iter_batches(64) for row in batch.to_pylist())
            for name, rows in groupby(read, key=lambda row: (row["repo"], row["path"])):
                if name in by_name:
                    yield from _parts(list(rows), by_name[name], tokenizer)

    # made twice: all of them would take forty bytes a token
    units = [sys.intern(one.repo) for one in found()]
    order = set(islice(spread(units, random.Random(f"loss {seed}")), wanted))
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
