"""The sample's Parquet files as what `find` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tasks.contamination.overlap import Documents, EvaluationText, TrainingText


def documents(path: Path) -> Documents:
    """The files of a side of a sample (`DatasetSample`), a few at a time."""
    return Documents(lambda: (TrainingText(_name(row), row["content"]) for row in _rows(path)))


def files(path: Path) -> Iterator[EvaluationText]:
    """The same as items, called `repo/path`."""
    return (EvaluationText(_name(row), {"file": row["content"]}) for row in _rows(path))


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['repo']}/{row['path']}"


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(64, columns=["repo", "path", "content"]):
            yield from batch.to_pylist()
