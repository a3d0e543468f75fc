"""Sequences that the loss is measured on."""

from __future__ import annotations

import random
from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path

from artifacts.errors import InputError
from artifacts.schema import Domain
from tasks.models.vocabulary import CodeTokenizer, encode_batch
from tasks.prompts.gaps import HeldOutFile, spread
from tasks.tokenization.chunks import Framing, TokenizedFile, causal_chunks


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


def choose(path: Path, wanted: int, seed: int, without: Container[tuple[str, str]] = ()) -> list[HeldOutSequence]:
    """Chunks of a tokenized file, at most `wanted`, spread over the repositories; in the order of the file.

    The prediction of every token counts but that of the first, and where there is a completion mask of the tokens
    outside it. Chunks in which nothing counts are left out, and those of the files `without` (repository, path).

    Raises:
        InputError: nothing is left.
    """
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    order = spread(table["repo"].to_pylist(), random.Random(f"loss {seed}"))
    chosen: dict[int, HeldOutSequence] = {}
    for index in order:
        if len(chosen) == wanted:
            break
        row = table.slice(index, 1).to_pylist()[0]
        if (row["repo"], row["path"]) in without:
            continue
        ids = row["input_ids"]
        mask = row.get("completion_mask") or [1] * len(ids)
        counts = (False, *map(bool, mask[1:]))
        chunk = HeldOutSequence(
            row["repo"], row["path"], row["chunk"], tuple(ids), counts, row.get("language") or "unknown"
        )
        if chunk.tokens:
            chosen[index] = chunk
    if not chosen:
        raise InputError(
            "no held-out text is left to measure the loss on",
            field="sampling",
            remedy="take files of more repositories, or hold out a larger share of them",
        )
    return [chosen[index] for index in sorted(chosen)]


def cut(
    files: Sequence[HeldOutFile], tokenizer: CodeTokenizer, wanted: int, max_length: int, seed: int
) -> list[HeldOutSequence]:
    """Chunks of files as they stand, at most `wanted`, spread over the repositories, whatever format was trained on."""
    rng = random.Random(f"retention loss {seed}")
    few = [files[index] for index in spread([file.repo for file in files], rng)][: 2 * wanted]
    framing = Framing.of(tokenizer, max_length, add_eos=True)
    found = []
    for file, ids in zip(few, encode_batch(tokenizer, [file.content for file in few]), strict=True):
        document = TokenizedFile(file.repo, file.path, "", file.language, ids or [])
        for number, chunk in enumerate(causal_chunks(tokenizer, document, framing)):
            counts = (False, *[True] * (len(chunk.ids) - 1))
            found.append(
                HeldOutSequence(file.repo, file.path, number, tuple(chunk.ids), counts, file.language, file.domain)
            )
    usable = [chunk for chunk in found if chunk.tokens]
    return [usable[index] for index in spread([chunk.repo for chunk in usable], rng)][:wanted]
