"""Which chunks make up which optimizer step, and how they become tensors of one shape.

The order is decided here once, for the whole run, from the seed: shuffled passes over all chunks, one after the
other. Step k takes the same sequences whatever the micro-batch is, and whether or not the run was interrupted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tasks.training.aside import TrainingRows, set_aside

if TYPE_CHECKING:
    from datasets import Dataset

IGNORED = -100
"""The label of a position that has no part in the loss."""
FILLER = 0
"""What stands in a padded position (`<unk>` in Llama vocabularies). Padding is masked by length, so that any id would
do: adding a pad token would change the vocabulary, and using EOS makes a model that never stops."""


class Batches:
    """The sequences of a run in the order of their use.

    Args:
        file: `train.parquet` of the tokenization stage.
        size: sequences in one optimizer step.
        steps: optimizer steps of the run.
        rows: which are learned from and which set aside; by default all are learned from.
    """

    def __init__(self, file: Path, *, size: int, steps: int, seed: int, rows: TrainingRows | None = None) -> None:
        self._file, self._size = file, size
        self.rows = rows or set_aside(file, None, seed)
        learned, count = self.rows.learned, size * steps
        # RandomState is numpy's frozen generator (NEP 19): the same numbers in every version.
        random = np.random.RandomState(seed)
        passes = [learned[random.permutation(len(learned))] for _ in range(-(-count // len(learned)))]
        self._order = np.concatenate(passes)[:count]
        used, self._places = np.unique(self._order, return_inverse=True)
        self._table = self._labelled(used)
        self._lengths = pc.list_value_length(self._table["input_ids"]).to_numpy()[self._places]

    def tokens(self, step: int) -> int:
        """Tokens of an optimizer step (counted from 1), padding left out."""
        return int(self._lengths[(step - 1) * self._size : step * self._size].sum())

    def dataset(self) -> Dataset:
        """What TRL trains on: `input_ids`, and `labels` where not every token counts. In memory; nothing is cached."""
        from datasets import Dataset

        # Given fingerprints keep `datasets` from hashing the data to name a cache that is never written.
        whole = Dataset(self._table, fingerprint="chunks")
        return whole.select(self._places, keep_in_memory=True, new_fingerprint="run")

    def aside(self) -> list[dict[str, list[int]]]:
        """What is set aside, in the same form."""
        rows: list[dict[str, list[int]]] = self._labelled(self.rows.aside).to_pylist()
        return rows

    def _labelled(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
        """Chunks with `input_ids`, and `labels` where not every token counts."""
        names = [name for name in ("input_ids", "completion_mask") if name in pq.read_schema(self._file).names]
        table = _take(self._file, rows, names)
        if "completion_mask" in names:
            labels = _masked(table["input_ids"].combine_chunks(), table["completion_mask"].combine_chunks())
            table = table.drop_columns(["completion_mask"]).append_column("labels", labels)
        return table

    def describe(self, step: int, first: int, count: int) -> str:
        """Where `count` sequences of a step come from, for people: `repo path #chunk`, a line each."""
        start = (step - 1) * self._size + first
        rows = self._order[start : start + count]
        distinct, places = np.unique(rows, return_inverse=True)
        table = _take(self._file, distinct, ["repo", "path", "chunk"]).take(places)
        return "\n".join(f"  {row['repo']} {row['path']} #{row['chunk']}" for row in table.to_pylist())


def _take(file: Path, rows: np.ndarray[Any, np.dtype[np.int64]], columns: list[str]) -> pa.Table:
    """Some rows, given in ascending order, without holding more than a row group of the others."""
    parts, start = [], 0
    with pq.ParquetFile(file) as parquet:
        for number in range(parquet.num_row_groups):
            stop = start + parquet.metadata.row_group(number).num_rows
            inside = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)] - start
            if len(inside):
                parts.append(parquet.read_row_group(number, columns=columns).take(inside))
            start = stop
    return pa.concat_tables(parts)


def _masked(ids: pa.ListArray, mask: pa.ListArray) -> pa.ListArray:
    """The ids with `IGNORED` where the mask is 0."""
    labels = np.where(mask.flatten().to_numpy() != 0, ids.flatten().to_numpy(), IGNORED)
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(ids).to_numpy())])
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(labels, pa.int32()))
