"""Token loss of both models on held-out chunks: rows of a prompt set's `losses.parquet`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from artifacts.errors import StageError
from artifacts.rows import Row

if TYPE_CHECKING:
    import torch

    from tasks.backends.contract import Computing

LOGIT_ROWS = 4096
"""Most positions in one forward pass: their logits in fp32 take half a GiB with a vocabulary of 32,000."""


def measure(
    side: Computing,
    chunks: Sequence[Row],
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
    for batch in batches([len(chunk["input_ids"]) for chunk in chunks], batch_size):
        losses = side.losses(*_padded([chunks[index] for index in batch]))
        for index, loss in zip(batch, losses.tolist(), strict=True):
            sums[index] = loss
        done(len(batch))
    for chunk, loss in zip(chunks, sums, strict=True):
        if not 0 <= loss < float("inf"):
            raise StageError(
                f"the loss of chunk {chunk['chunk']} of {chunk['repo']}/{chunk['path']} is {loss}",
                remedy="the adapter or the base model is broken: look at the training's loss curve, lower its rate; "
                "or fp16 overflows: set preflight.fp32_residual=true",
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


def _padded(chunks: list[Row]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and which of them count, chunks × longest, padded on the right."""
    import torch

    width = max(len(chunk["input_ids"]) for chunk in chunks)
    ids = torch.zeros((len(chunks), width), dtype=torch.long)
    counts = torch.zeros((len(chunks), width), dtype=torch.bool)
    for row, chunk in enumerate(chunks):
        ids[row, : len(chunk["input_ids"])] = torch.tensor(chunk["input_ids"])
        counts[row, : len(chunk["counts"])] = torch.tensor(chunk["counts"])
    return ids, counts
