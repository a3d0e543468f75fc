"""Token loss of both models on held-out chunks."""

from __future__ import annotations

import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.errors import InputError, StageError
from artifacts.schema import Domain
from tasks.generation.suites import HeldOutFile, spread
from tasks.models.vocabulary import CodeTokenizer, encode_batch
from tasks.tokenization.chunks import Framing, TokenizedFile, causal_chunks

if TYPE_CHECKING:
    import torch

    from tasks.backends.contract import Computing

LOGIT_ROWS = 4096
"""Most positions in one forward pass: their logits in fp32 take half a GiB with a vocabulary of 32,000."""


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


def measure(
    side: Computing,
    chunks: Sequence[HeldOutSequence],
    batch_size: int,
    done: Callable[[int], None] = lambda count: None,
) -> list[float]:
    """Summed negative log-likelihood of each chunk's counted tokens, in nats, computed in fp32 from the logits.

    Args:
        batch_size: chunks of like length computed at once, fewer where they are long.
        done: called with the number of further chunks measured.

    Raises:
        StageError: a loss is not finite.
    """
    sums = [0.0] * len(chunks)
    for batch in batches([len(chunk.input_ids) for chunk in chunks], batch_size):
        losses = side.losses(*_padded([chunks[index] for index in batch]))
        for index, loss in zip(batch, losses.tolist(), strict=True):
            sums[index] = loss
        done(len(batch))
    for chunk, loss in zip(chunks, sums, strict=True):
        if not 0 <= loss < float("inf"):
            raise StageError(
                f"the loss of chunk {chunk.chunk} of {chunk.repo}/{chunk.path} is {loss}",
                remedy="the adapter or the base model is broken: look at the training's loss curve, lower its rate",
            )
    return sums


def batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Indices in batches of like length, the longest first, each of at most `LOGIT_ROWS` positions."""
    remaining = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    found = []
    while remaining:
        size = max(1, min(batch_size, LOGIT_ROWS // max(1, lengths[remaining[0]])))
        found.append(remaining[:size])
        remaining = remaining[size:]
    return found


def _padded(chunks: list[HeldOutSequence]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and which of them count, chunks × longest, padded on the right."""
    import torch

    width = max(len(chunk.input_ids) for chunk in chunks)
    ids = torch.zeros((len(chunks), width), dtype=torch.long)
    counts = torch.zeros((len(chunks), width), dtype=torch.bool)
    for row, chunk in enumerate(chunks):
        ids[row, : len(chunk.input_ids)] = torch.tensor(chunk.input_ids)
        counts[row, : len(chunk.counts)] = torch.tensor(chunk.counts)
    return ids, counts
