"""Rows in Parquet files: what stages hand to each other beside their handles."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, Any]
IDS, FLAGS = "ids", "flags"
"""Columns of lists: of int32, and of true and false."""
_AT_ONCE = 16
"""Rows in memory at once, where a file is not read whole."""


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


def by_parts(path: Path) -> Any:
    """A file that is read by its row groups or batches, as pyarrow's `ParquetFile`, which is to be closed. Unless it is
    told otherwise, that keeps all that it has read."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(path, pre_buffer=False)


def count_rows(path: Path) -> int:
    """How many rows a file has."""
    import pyarrow.parquet as pq

    return int(pq.read_metadata(path).num_rows)


def each_row(paths: Sequence[Path], columns: Collection[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of some files in order, few of them in memory at once. `columns`: those of these that a file has; all
    without."""
    for path in paths:
        with by_parts(path) as file:
            for batch in file.iter_batches(_AT_ONCE, columns=_of(file.schema_arrow.names, columns)):
                yield from batch.to_pylist()


def rows_at(
    paths: Sequence[Path], numbers: Iterable[int], columns: Collection[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Some of the rows that `each_row` gives, by their numbers, in order. Row groups that have none of them are not
    read."""
    wanted, start = sorted(numbers), 0
    for path in paths:
        with by_parts(path) as file:
            names = _of(file.schema_arrow.names, columns)
            for group in range(file.num_row_groups):
                end = start + file.metadata.row_group(group).num_rows
                if bisect_left(wanted, start) < bisect_left(wanted, end):
                    for batch in file.iter_batches(_AT_ONCE, row_groups=[group], columns=names):
                        for number in wanted[bisect_left(wanted, start) : bisect_left(wanted, start + batch.num_rows)]:
                            yield number, batch.slice(number - start, 1).to_pylist()[0]
                        start += batch.num_rows
                start = end


def _of(names: Iterable[str], wanted: Collection[str] | None) -> list[str]:
    return [name for name in names if wanted is None or name in wanted]
