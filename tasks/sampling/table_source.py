"""Tables on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from artifacts import digest
from artifacts.errors import InputError
from tasks.sampling.configuration import TableSource
from tasks.sampling.tables import BATCH, Records, TableShape, check_columns, json_lines, record_batch

_FIELD = "sampling.source.paths"


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
            _check_path(path)

    def describe(self) -> str:
        return "table: " + ", ".join(path.name for path in self._source.paths)

    def fingerprint(self) -> str:
        """Over the contents of the files, whatever their names and order."""
        return digest.of_json(list(self._digests))

    def portions(self) -> Iterator[Records]:
        for path in self._digests.values():
            yield from self._parquet(path) if path.suffix == ".parquet" else self._json(path)

    @cached_property
    def _digests(self) -> dict[str, Path]:
        """The files by digest and in its order: a file that is named twice counts once."""
        return dict(sorted((digest.of_file(path), path) for path in self._source.paths))

    def _parquet(self, path: Path) -> Iterator[Records]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                check_columns(self._source.columns, file.schema_arrow.names, path.name)
                columns = [self._source.columns.content, *self._shape.facts]
                for batch in file.iter_batches(BATCH, columns=columns, use_threads=False):
                    yield record_batch(batch, self._shape)
        except pa.ArrowException as error:
            raise InputError(
                f"{path} cannot be read as Parquet: {error}", field=_FIELD, remedy="check that the file is complete"
            ) from error

    def _json(self, path: Path) -> Iterator[Records]:
        try:
            with path.open("rb") as stream:
                yield from json_lines(stream, path.name, self._shape)
        except (EOFError, OSError) as error:
            raise InputError(
                f"{path} cannot be read: {error}", field=_FIELD, remedy="check that it is complete"
            ) from error


def _check_path(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"{path} is no file", field=_FIELD, remedy=f"name files; {Path.cwd()} is the current folder")
    if not path.name.endswith((".parquet", ".jsonl", ".jsonl.gz")):
        raise InputError(
            f"{path} is neither Parquet nor JSON lines", field=_FIELD, remedy="convert it to .parquet or .jsonl"
        )
