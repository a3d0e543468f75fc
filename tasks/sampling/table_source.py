"""Tables on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from artifacts import digest
from artifacts.errors import InputError
from artifacts.reading import blamed_on, opened
from tasks.sampling.config import TableSource
from tasks.sampling.json_lines import ENDINGS, check_format, json_lines
from tasks.sampling.parquet_rows import REMEDY, batches, options, rows_at_once
from tasks.sampling.tables import Records, TableShape, record_batch

_FIELD = "sampling.source.paths"
_MOST_HOLES = 0.5
"""Share of a file that may be holes."""


class OpenTableSource:
    """The rows of some Parquet or JSON-lines files, read in batches.

    Raises:
        InputError: a file does not exist, is of another format, or lacks a column.
    """

    samples = False

    def __init__(self, source: TableSource) -> None:
        self._source = source
        self._shape = TableShape(source.columns, source.language, revision="")
        self.states_licenses = source.columns.license is not None
        for path in source.paths:
            _check(path)

    def describe(self) -> str:
        return "table: " + ", ".join(path.name for path in self._source.paths)

    def fingerprint(self) -> str:
        """Over the contents of the files, whatever their names and order."""
        return digest.of_json(list(self._digests))

    def batches(self) -> Iterator[Records]:
        files = list(self._digests.values())
        rows = rows_at_once([path for path in files if path.suffix == ".parquet"], self._source.columns)
        for path in files:
            yield from self._parquet(path, rows[path]) if path in rows else self._json(path)

    @cached_property
    def _digests(self) -> dict[str, Path]:
        """The files by digest and in its order: a file that is named twice counts once."""
        digests = []
        for path in self._source.paths:
            with blamed_on(path, field=_FIELD, remedy=REMEDY):
                digests.append((digest.of_file(path), path))
        return dict(sorted(digests))

    def _parquet(self, path: Path, rows: int) -> Iterator[Records]:
        import pyarrow.parquet as pq

        with opened(path, field=_FIELD, remedy=REMEDY) as stream, pq.ParquetFile(stream, **options()) as file:
            columns = [self._source.columns.content, *self._shape.facts]
            for batch in batches(file, columns, path.name, rows=rows):
                yield record_batch(batch, self._shape)

    def _json(self, path: Path) -> Iterator[Records]:
        with opened(path, field=_FIELD, remedy=REMEDY) as stream:
            yield from json_lines(stream, path.name, os.fstat(stream.fileno()).st_size, self._shape)


def _check(path: Path) -> None:
    """Refuse what is no table before any of it is read."""
    if not path.name.endswith((".parquet", *ENDINGS)):
        raise InputError(
            f"{path} is neither Parquet nor JSON lines",
            field=_FIELD,
            remedy="convert it to .parquet or .jsonl; what has one JSON object a line needs that ending alone",
        )
    if not path.exists():
        raise InputError(
            f"{path} does not exist", field=_FIELD, remedy=f"name files; {Path.cwd()} is the current folder"
        )
    with opened(path, field=_FIELD, remedy="name a file of rows") as stream:
        if _holes(stream.fileno()) > _MOST_HOLES:
            raise ValueError("most of it is holes that nothing was ever written to")
        if path.suffix != ".parquet":
            check_format(stream, path.name)


def _holes(descriptor: int) -> float:
    """The share of a file that takes no room on the disk, because nothing was written there."""
    size = os.fstat(descriptor).st_size
    data, place = 0, 0
    try:
        while place < size:
            begin = os.lseek(descriptor, place, os.SEEK_DATA)
            place = os.lseek(descriptor, begin, os.SEEK_HOLE)
            data += place - begin
    except OSError:  # no data behind the place, or a file system that does not tell
        pass
    return 1 - data / size if size else 0
