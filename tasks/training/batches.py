"""Which chunks make up which optimizer step, and how they become tensors of one shape.

The order is decided here once, for the whole run, from the seed: shuffled passes over all chunks, one after the
other. Step k takes the same sequences whatever the micro-batch is, and whether or not the run was interrupted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from artifacts.rows import by_parts
from tasks.training.aside import TrainingRows, set_aside
from tasks.training.packing import Sequences, one_each, packed

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
        room: tokens of a sequence, where several chunks are packed into one.
    """

    def __init__(
        self,
        file: Path,
        *,
        size: int,
        steps: int,
        seed: int,
        rows: TrainingRows | None = None,
        room: int | None = None,
    ) -> None:
        self._file, self._size, self._packed = file, size, room is not None
        self.rows = rows or set_aside(file, None, seed)
        sequences, count = arranged(file, self.rows, room), size * steps
        # RandomState is numpy's frozen generator (NEP 19): the same numbers in every version.
        random = np.random.RandomState(seed)
        passes = [random.permutation(len(sequences)) for _ in range(-(-count // len(sequences)))]
        used, self._places = np.unique(np.concatenate(passes)[:count].astype(np.int64), return_inverse=True)
        self._used = sequences.of(used)
        self._table = self._joined(self._used)
        self._lengths = pc.list_value_length(self._table["input_ids"]).to_numpy()[self._places]

    def tokens(self, step: int) -> int:
        """Tokens of an optimizer step (counted from 1), padding left out."""
        return int(self._lengths[(step - 1) * self._size : step * self._size].sum())

    def dataset(self) -> Dataset:
        """What TRL trains on: `input_ids`, `labels` where not every token counts, and `position_ids` where chunks are
        packed. In memory; nothing is cached."""
        from datasets import Dataset

        # Given fingerprints keep `datasets` from hashing the data to name a cache that is never written.
        whole = Dataset(self._table, fingerprint="chunks")
        return whole.select(self._places, keep_in_memory=True, new_fingerprint="run")

    def aside(self) -> list[dict[str, list[int]]]:
        """What is set aside, chunk by chunk: `input_ids`, and `labels` where not every token counts."""
        rows: list[dict[str, list[int]]] = self._labelled(self.rows.aside).to_pylist()
        return rows

    def describe(self, step: int, first: int, count: int) -> str:
        """Where `count` sequences of a step come from, for people: `repo path #chunk`, a line each."""
        start = (step - 1) * self._size + first
        rows = self._used.of(self._places[start : start + count]).rows
        distinct, places = np.unique(rows, return_inverse=True)
        table = _take(self._file, distinct, ["repo", "path", "chunk"]).take(places)
        return "\n".join(f"  {row['repo']} {row['path']} #{row['chunk']}" for row in table.to_pylist())

    def _joined(self, sequences: Sequences) -> pa.Table:
        """A row for each sequence."""
        if not self._packed:  # a row each, in ascending order
            return self._labelled(sequences.rows)
        order = np.sort(sequences.rows)
        chunks = self._labelled(order).take(np.searchsorted(order, sequences.rows)).combine_chunks()
        ids = chunks["input_ids"].combine_chunks()
        ends = np.concatenate([[0], np.cumsum(pc.list_value_length(ids).to_numpy())])
        positions = np.arange(ends[-1]) - np.repeat(ends[:-1], np.diff(ends))
        labels = chunks["labels"].combine_chunks() if "labels" in chunks.column_names else ids
        columns = {
            "input_ids": ids.flatten().to_numpy(),
            "labels": np.where(positions == 0, IGNORED, labels.flatten().to_numpy()),  # no text foretells the next one
            "position_ids": positions,
        }
        offsets = pa.array(ends[sequences.starts], pa.int32())
        lists = {
            name: pa.ListArray.from_arrays(offsets, pa.array(values, pa.int32())) for name, values in columns.items()
        }
        return pa.table(lists)

    def _labelled(self, rows: np.ndarray[Any, np.dtype[np.int64]]) -> pa.Table:
        """Chunks with `input_ids`, and `labels` where not every token counts."""
        names = [name for name in ("input_ids", "completion_mask") if name in pq.read_schema(self._file).names]
        table = _take(self._file, rows, names)
        if "completion_mask" in names:
            labels = _masked(table["input_ids"].combine_chunks(), table["completion_mask"].combine_chunks())
            table = table.drop_columns(["completion_mask"]).append_column("labels", labels)
        return table


def arranged(file: Path, rows: TrainingRows, room: int | None) -> Sequences:
    """Which rows make up which sequence: one each, or as many as fit into `room` tokens."""
    if room is None:
        return one_each(rows.learned)
    lengths = [pc.list_value_length(part.column(0)).to_numpy() for part in _batches(file)]
    return packed(rows.learned, np.concatenate(lengths)[rows.learned].astype(np.int64), room)


def _batches(file: Path) -> Iterator[pa.RecordBatch]:
    with by_parts(file) as parquet:
        yield from parquet.iter_batches(columns=["input_ids"])


def _take(file: Path, rows: np.ndarray[Any, np.dtype[np.int64]], columns: list[str]) -> pa.Table:
    """Some rows, given in ascending order, without holding more than a row group of the others."""
    parts, start = [], 0
    with by_parts(file) as parquet:
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
