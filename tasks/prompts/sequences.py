"""Sequences that the loss is measured on."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifacts.schema import Domain
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
