"""The loss is the model's negative log-likelihood of what counts, and of nothing else."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from artifacts.errors import StageError
from artifacts.rows import Row
from tasks.backends.transformers.inference import Modules
from tasks.generation.losses import LOGIT_ROWS, batches, measure
from tests.tasks.generation.world import toy


def chunk(ids: list[int], counts: list[bool] | None = None) -> Row:
    counted = counts or [False] + [True] * (len(ids) - 1)
    return {"repo": "repo", "path": "a.py", "chunk": 0, "input_ids": ids, "counts": counted}


def by_hand(ids: list[int], counted: list[int]) -> float:
    """Sum over positions in `counted`, in float64 from one chunk's logits."""
    with torch.inference_mode():
        logits = toy()(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    logits -= logits.max(-1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return float(-sum(np.log(probabilities[position - 1, ids[position]]) for position in counted))


def test_loss_is_the_cross_entropy_computed_by_hand() -> None:
    long, short = list(range(5, 45)), [7, 3, 9, 9]
    sums = measure(Modules(toy()), [chunk(short), chunk(long)], batch_size=2)
    assert sums[0] == pytest.approx(by_hand(short, [1, 2, 3]), rel=1e-5)
    assert sums[1] == pytest.approx(by_hand(long, list(range(1, 40))), rel=1e-5)


def test_only_what_counts_is_counted() -> None:
    ids = [1, 20, 30, 40, 50]
    sums = measure(Modules(toy()), [chunk(ids, [False, False, True, False, True])], batch_size=1)
    assert sums[0] == pytest.approx(by_hand(ids, [2, 4]), rel=1e-5)


def test_padding_and_batch_mates_change_nothing() -> None:
    chunks = [chunk(list(range(3, 3 + length))) for length in (4, 30, 9, 17, 30)]
    assert measure(Modules(toy()), chunks, batch_size=5) == pytest.approx(
        measure(Modules(toy()), chunks, batch_size=1), rel=1e-5
    )


def test_batches_hold_like_lengths_and_bounded_positions() -> None:
    lengths = [3, 900, 5, 2000, 4, 1000]
    found = batches(lengths, 3)
    assert sorted(index for batch in found for index in batch) == list(range(6))
    assert found[0] == [3, 5] and found[1] == [1, 2, 4]
    assert all(len(batch) * max(lengths[i] for i in batch) <= LOGIT_ROWS for batch in found)
    assert batches([2 * LOGIT_ROWS], 8) == [[0]]


def test_a_loss_that_is_not_finite_names_the_chunk() -> None:
    model = toy()
    model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(StageError, match=r" 0 of repo/a\.py .*nan"):
        measure(Modules(model), [chunk([3, 4, 5])], batch_size=1)
