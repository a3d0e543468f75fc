"""The sample's Parquet files as what `find` takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts.rows import each_row
from tasks.contamination.overlap import Documents, EvaluationText, TrainingText

_COLUMNS = ("repo", "path", "content")


def documents(path: Path) -> Documents:
    """The files of a side of a sample (`DatasetSample`), a few at a time."""
    return Documents(lambda: (TrainingText(_name(row), row["content"]) for row in each_row([path], _COLUMNS)))


def files(path: Path) -> Iterator[EvaluationText]:
    """The same as items, called `repo/path`."""
    return (EvaluationText(_name(row), {"file": row["content"]}) for row in each_row([path], _COLUMNS))


def _name(row: Mapping[str, Any]) -> str:
    return f"{row['repo']}/{row['path']}"
