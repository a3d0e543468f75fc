"""Which chunks make up which step."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.schema import TokenizedDataset
from tasks.training.batches import IGNORED, Batches
from tests.tasks.training import jobs


def batches(tokens: TokenizedDataset, steps: int, seed: int = 1) -> Batches:
    return Batches(tokens.path / "train.parquet", size=4, steps=steps, seed=seed)


def test_every_chunk_is_used_once_before_any_is_used_again(tokens: TokenizedDataset) -> None:
    seen = [tuple(row["input_ids"]) for row in batches(tokens, 12).dataset()]
    known = sorted(tuple(row["input_ids"]) for row in jobs.rows())
    assert len(seen) == 48
    assert sorted(seen[:24]) == sorted(seen[24:]) == known
    assert seen[:24] != seen[24:]


def test_a_longer_run_begins_with_the_same_steps(tokens: TokenizedDataset) -> None:
    short, long = batches(tokens, 2).dataset(), batches(tokens, 9).dataset()
    assert list(long.select(range(8))) == list(short)
    assert list(batches(tokens, 2, seed=2).dataset()) != list(short)


def test_steps_know_their_tokens_and_where_they_come_from(tokens: TokenizedDataset) -> None:
    run = batches(tokens, 8)
    sequences = [row["input_ids"] for row in run.dataset()]
    assert run.tokens(3) == sum(len(ids) for ids in sequences[8:12])
    described = run.describe(3, 1, 2).splitlines()
    first = next(row for row in jobs.rows() if row["input_ids"] == sequences[9])
    assert described[0].split() == [first["repo"], first["path"], "#0"]
    assert len(described) == 2


def test_labels_follow_the_completion_mask(tmp_path: Path) -> None:
    chunks = jobs.rows(6, completion_mask=lambda length: [0] * (length - 2) + [1, 1])
    for row in batches(jobs.dataset(tmp_path / "instruct", chunks), 2).dataset():
        assert row["labels"] == [IGNORED] * (len(row["input_ids"]) - 2) + row["input_ids"][-2:]


@pytest.mark.parametrize("steps", [1, 5])
def test_nothing_is_cached_on_disk(tokens: TokenizedDataset, steps: int) -> None:
    assert batches(tokens, steps).dataset().cache_files == []
