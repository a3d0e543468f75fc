"""The loss on what was set aside: measured every so many steps, it says when to stop and which weights to keep.

Everything that it decides by is in the trainer's history and in the checkpoints, so that a run that is interrupted
decides as an undisturbed one does. Measuring draws no random numbers. Imports torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file

from artifacts.schema import ScaledLoss, ValidationResult
from tasks.processes import ranks
from tasks.training.batches import FILLER, IGNORED, Batches
from tasks.training.config import ValidationSettings

BEST = "best.safetensors"
"""In a checkpoint: the best weights so far."""
SCALES = (0.6, 0.7, 0.8, 0.9)
"""Weights of the adapter that are tried in the end, beside 1."""
PIECE_TOKENS = 1024
"""Tokens that are computed at a time, padding included; one sequence at least."""

Sums = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Ids and labels, sequences × tokens, → the summed loss of the labels that count, in nats."""


class Validation:
    """What was set aside, and the best weights so far.

    Args:
        length: tokens that every sequence is filled up to.
    """

    def __init__(self, settings: ValidationSettings, batches: Batches, length: int) -> None:
        self.settings = settings
        self._chunks = batches.rows
        rows = batches.aside()
        rest = [length - len(row["input_ids"]) for row in rows]
        labels = [row.get("labels", row["input_ids"]) for row in rows]
        self._ids = torch.tensor([[*row["input_ids"], *[FILLER] * left] for row, left in zip(rows, rest, strict=True)])
        self._labels = torch.tensor([[*one, *[IGNORED] * left] for one, left in zip(labels, rest, strict=True)])
        self.tokens = sum(length - left for left in rest)
        """Of the text, whether they count or not."""
        self._counted = int((self._labels[:, 1:] != IGNORED).sum())
        self._best: dict[str, torch.Tensor] = {}

    def due(self, step: int, last: int) -> bool:
        """Whether there is something to measure after a step."""
        return step == last or step % self.settings.steps == 0

    def loss(self, sums: Sums) -> float:
        """The mean over all tokens, in nats; every process measures its share, and all have the sum."""
        total = torch.zeros((), dtype=torch.float64)
        for ids, labels in self._pieces():
            total += sums(ids, labels).double().cpu()
        if ranks.count() > 1:
            on_device = total.to(torch.device("cuda") if dist.get_backend() == "nccl" else "cpu")
            dist.all_reduce(on_device)
            total = on_device.cpu()
        return float(total) / max(1, self._counted)

    def _pieces(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        mine = slice(ranks.rank(), None, ranks.count())
        size = max(1, PIECE_TOKENS // self._ids.shape[1])
        yield from zip(self._ids[mine].split(size), self._labels[mine].split(size), strict=True)

    def note(self, history: Sequence[dict[str, Any]], weights: dict[str, torch.Tensor]) -> None:
        """Keep the weights if the last measurement is the best."""
        best = best_of(history)
        if self.settings.keep == "best" and best is not None and best is measured(history)[-1]:
            self._best = {name: weight.detach().to("cpu", copy=True) for name, weight in weights.items()}

    def hand_over(self, weights: dict[str, torch.Tensor]) -> None:
        """Make `weights` the best ones, if those are to be kept."""
        for name, weight in self._best.items():
            weights[name].data.copy_(weight)

    def save(self, folder: Path) -> None:
        """Into a checkpoint."""
        if self._best:
            save_file(self._best, folder / BEST)

    def restore(self, folder: Path) -> None:
        """From a checkpoint."""
        if (folder / BEST).exists():
            self._best = load_file(folder / BEST)

    def result(self, history: Sequence[dict[str, Any]], scaled: dict[float, float]) -> ValidationResult:
        """What is told of it in the end. `scaled`: losses by weight of the adapter, for what is handed over."""
        before = next((entry for entry in history if entry.get("step") == 0 and "validation_loss" in entry), None)
        best, last = best_of(history), measured(history)[-1]
        kept = best if self.settings.keep == "best" and best is not None else last
        return ValidationResult(
            sequences=len(self._ids),
            tokens=self._counted,
            unit=self._chunks.unit,
            units=self._chunks.units,
            loss_before=before["validation_loss"] if before else None,
            kept_step=kept["step"],
            kept_loss=kept["validation_loss"],
            last_step=last["step"],
            last_loss=last["validation_loss"],
            scaled=tuple(ScaledLoss(scale=scale, loss=loss) for scale, loss in sorted(scaled.items())),
        )


def measured(history: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The measurements after a step."""
    return [entry for entry in history if "validation_loss" in entry and entry["step"] > 0]


def best_of(history: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The measurement with the lowest loss, of equal ones the first; None where none is a number."""
    finite = [entry for entry in measured(history) if math.isfinite(entry["validation_loss"])]
    return min(finite, key=lambda entry: entry["validation_loss"], default=None)


def out_of_patience(history: Sequence[dict[str, Any]], settings: ValidationSettings | None) -> bool:
    """Whether so many measurements in a row were no better that training ends."""
    best = best_of(history)
    if settings is None or settings.patience is None or best is None:
        return False
    no_better = [entry for entry in measured(history) if entry["step"] > best["step"]]
    return len(no_better) >= settings.patience
