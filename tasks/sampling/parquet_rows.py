"""Rows of Parquet files, read in batches of bounded size. What is damaged ends in one message that names the file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from artifacts.errors import InputError
from artifacts.reading import blamed_on, opened
from tasks.processes import bounded
from tasks.sampling.config import Columns
from tasks.sampling.tables import BATCH, check_columns

if TYPE_CHECKING:
    from pyarrow import parquet

_FIELD = "sampling.source"
REMEDY = "check that the file is complete"
_MOST_COLUMNS = 10_000
_STREAM_BUFFER = 4 * 1024 * 1024
"""Bytes that are read at once while a column is read: a row group of any size needs no more memory than this."""
_UNPACKED, _RATIO = 1 << 28, 300
"""Bytes that a column of a row group may hold however small it is in the file, and how many times its size beyond."""
_DICTIONARY = 1 << 24
"""Bytes of a dictionary; writers stop at a megabyte. Each of 256 rows may be the longest of its entries."""
_ROWS_OF_DELTAS = 4
"""Rows at once where each is told by what differs from the one before: any number of long ones takes a few bytes."""
_PAGE_HEADER = 64
"""Bytes that hold the first two numbers of one."""


def check_schema(metadata: parquet.FileMetaData, columns: Columns, name: str) -> None:
    """Refuse a file by what its columns are.

    Raises:
        InputError: it lacks one, or the contents are no text.
    """
    if metadata.num_columns > _MOST_COLUMNS:
        raise InputError(
            f"{name} has {metadata.num_columns:,} columns", field=_FIELD, remedy="keep those that sampling reads"
        )
    schema = metadata.schema.to_arrow_schema()
    check_columns(columns, schema.names, name)
    kind = schema.field(columns.content).type
    if not _is_text(kind):
        raise InputError(
            f"the column {columns.content!r} of {name} holds {kind}, no text",
            field=f"{_FIELD}.columns.content",
            remedy="name the column that holds the files' contents",
        )


def rows_at_once(paths: list[Path], columns: Columns) -> dict[Path, int]:
    """How many rows of each file may be in memory, after a look at the files in a process of its own: some damage ends
    the process that reads of a chunk of a column (`std::terminate` in pyarrow 26).

    Raises:
        InputError: a file is damaged, lacks a column, or takes more memory than reading a table may.
    """
    if not paths:
        return {}
    try:
        found = _asked(paths, columns)
    except InputError:
        if len(paths) == 1:
            raise
        found = [count for path in paths for count in _asked([path], columns)]  # names the file that it is
    return dict(zip(paths, found, strict=True))


def _asked(paths: list[Path], columns: Columns) -> list[int]:
    function, names = f"{__name__}:inspect", json.dumps([str(path) for path in paths])
    found = bounded.ask(function, paths[0], names, columns.model_dump_json(), field=f"{_FIELD}.paths", remedy=REMEDY)
    return [int(count) for count in found]


def inspect(_: Path, names: str, columns: str) -> list[int]:
    """The same, in that process: arguments and result as JSON."""
    return [_inspect(Path(name), Columns.model_validate_json(columns)) for name in json.loads(names)]


def _inspect(path: Path, columns: Columns) -> int:
    import pyarrow.parquet as pq

    with opened(path, field=f"{_FIELD}.paths", remedy=REMEDY) as stream:
        metadata = pq.read_metadata(stream)
        check_schema(metadata, columns, path.name)
        wanted = frozenset(columns.model_dump().values())
        rows = BATCH
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(number)
                if chunk.path_in_schema.split(".")[0] in wanted:
                    _check_size(chunk, stream, path.name)
                    if "DELTA_BYTE_ARRAY" in chunk.encodings:
                        rows = _ROWS_OF_DELTAS
        return rows


def batches(
    file: parquet.ParquetFile, columns: list[str], name: str, *, rows: int = BATCH, groups: list[int] | None = None
) -> Iterator[Any]:
    """Record batches of some columns and row groups.

    Raises:
        InputError: the file is damaged.
    """
    with blamed_on(Path(name), field=_FIELD, remedy=REMEDY):
        yield from file.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False)


def options() -> dict[str, Any]:
    """How a file is opened: without reading ahead, and with bounds for what its footer may hold."""
    return {
        "pre_buffer": False,
        "buffer_size": _STREAM_BUFFER,
        "thrift_string_size_limit": 1 << 26,
        "thrift_container_size_limit": 200_000,
    }


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    tests = (
        types.is_string,
        types.is_large_string,
        types.is_string_view,
        types.is_binary,
        types.is_large_binary,
        types.is_binary_view,
        types.is_fixed_size_binary,
    )
    return any(test(kind) for test in tests)


def _check_size(chunk: parquet.ColumnChunkMetaData, stream: IO[bytes], name: str) -> None:
    unpacked, packed = chunk.total_uncompressed_size, chunk.total_compressed_size
    dictionary = _unpacked_page(stream, chunk.dictionary_page_offset) if chunk.has_dictionary_page else 0
    if unpacked > max(_UNPACKED, _RATIO * packed) or dictionary > _DICTIONARY:
        raise InputError(
            f"the column {chunk.path_in_schema!r} of {name} unpacks to {max(unpacked, dictionary) / 1e6:,.0f} MB"
            f" from {packed / 1e6:,.1f} MB, which takes more memory than reading a table may",
            field=_FIELD,
            remedy="leave out rows that are no files of code, and write it again with smaller dictionaries",
        )


def _unpacked_page(stream: IO[bytes], offset: int) -> int:
    """The size of a page when it is unpacked: the second number in its header (Thrift's compact protocol)."""
    stream.seek(offset)
    header = stream.read(_PAGE_HEADER)
    place, number = 0, 0
    for _ in range(2):
        place, number, shift = place + 1, 0, 0  # the byte that says which field follows
        while place < len(header):
            number |= (header[place] & 0x7F) << shift
            shift, place = shift + 7, place + 1
            if not header[place - 1] & 0x80:
                break
    return number >> 1  # zigzag
