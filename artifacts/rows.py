"""Rows in Parquet files: what stages hand to each other beside their handles."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
IDS, FLAGS = "ids", "flags"
"""Columns of lists: of int32, and of true and false."""


def write_rows(rows: Iterable[Row], path: Path, columns: Mapping[str, str]) -> None:
    """Write a file of these columns, by name with their type as Arrow calls it, or `IDS` or `FLAGS`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    lists = {IDS: pa.list_(pa.int32()), FLAGS: pa.list_(pa.bool_())}
    schema = pa.schema([(name, lists.get(kind) or pa.type_for_alias(kind)) for name, kind in columns.items()])
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """All rows of a file."""
    import pyarrow.parquet as pq

    rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return rows
