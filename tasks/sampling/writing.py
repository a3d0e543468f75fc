"""One side of the split as a Parquet file whose bytes depend on its rows alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

from artifacts.rows import by_parts
from artifacts.schema import SplitSize
from tasks.sampling.candidates import SourceFile
from tasks.sampling.history import Span

_ROWS = 256
"""Rows of a row group, and so what is in memory at once."""


class SideWriter:
    """Writes files in the order given, and counts them; with `lines` also which of their lines are asked for."""

    def __init__(self, path: Path, *, lines: bool = False) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        span = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("unit", pa.string())])
        text = ("repo", "path", "language", "license")
        self._schema = pa.schema(
            [
                *((name, pa.string()) for name in text),
                ("size", pa.int64()),
                ("sha256", pa.string()),
                ("revision", pa.string()),
                ("content", pa.large_string()),
                *([("added", pa.list_(span))] if lines else []),
            ]
        )
        # Everything that could depend on defaults of the installed version and matters is set.
        self._writer = pq.ParquetWriter(
            path,
            self._schema,
            version="2.6",
            compression="zstd",
            compression_level=3,
            use_dictionary=["repo", "license"],
        )
        self._rows: list[dict[str, Any]] = []
        self._files, self._bytes, self._repositories = 0, 0, set[str]()

    def __enter__(self) -> SideWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._flush()
        self._writer.close()

    def write(self, file: SourceFile, added: Iterable[Span] = ()) -> None:
        row = file.row
        self._rows.append(
            {
                "repo": row.repo,
                "path": row.path,
                "language": row.language,
                "license": row.license,
                "size": len(file.content),
                "sha256": file.sha256.hex(),
                "revision": row.revision,
                "content": file.content.decode("utf-8"),
                "added": [span._asdict() for span in added],
            }
        )
        self._files += 1
        self._bytes += len(file.content)
        self._repositories.add(row.repo)
        if len(self._rows) == _ROWS:
            self._flush()

    def copy(self, path: Path) -> None:
        """Take over what another wrote."""
        with by_parts(path) as file:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                self._writer.write_table(table)
                self._files += table.num_rows
                self._bytes += sum(table["size"].to_pylist())
                self._repositories.update(table["repo"].to_pylist())

    def size(self) -> SplitSize:
        return SplitSize(files=self._files, repositories=len(self._repositories), bytes=self._bytes)

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
            self._rows = []
