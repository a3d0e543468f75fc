"""Rows of tables as rows of source files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from artifacts.errors import InputError
from tasks.sampling.candidates import Row
from tasks.sampling.config import Columns
from tasks.sampling.languages import known, language_of
from tasks.sampling.licence_ids import all_of, canonical

if TYPE_CHECKING:
    import pyarrow as pa

BATCH = 256
"""Rows that are in memory at once."""


@dataclass(frozen=True)
class TableShape:
    """What is needed to make sense of a table's rows."""

    columns: Columns
    language: str | None
    """Language of rows that do not tell it."""
    revision: str

    def row(self, values: dict[str, Any], place: Callable[[], str]) -> Row:
        """A row from its cells by column name. `place` names it where the table does not."""
        path = _text(values.get(self.columns.path or "")) or place()
        language = known(_text(values.get(self.columns.language or "")) or "") or language_of(path) or self.language
        size = values.get(self.columns.size or "")
        return Row(
            repo=_repository(values.get(self.columns.repo or "")) or place(),
            path=path,
            license=_license(values.get(self.columns.license or "")),
            language=language,
            revision=self.revision,
            size=size if type(size) is int and size >= 0 else None,
        )

    @property
    def facts(self) -> list[str]:
        """The columns that are read before the contents."""
        columns = self.columns
        names = (columns.repo, columns.path, columns.license, columns.language, columns.size)
        return [name for name in names if name is not None]


def check_columns(columns: Columns, existing: Iterable[str], table: str) -> None:
    """Refuse a mapping that names columns which the table does not have.

    Raises:
        InputError: names the missing column and the existing ones.
    """
    names = list(existing)
    for role, column in columns.model_dump().items():
        if column is not None and column not in names:
            raise InputError(
                f"{table} has no column {column!r}; it has {', '.join(names) or 'none'}",
                field=f"sampling.source.columns.{role}",
                remedy="name the column that holds it" + ("" if role == "content" else ", or null if there is none"),
            )


@dataclass(frozen=True)
class Records:
    """Some rows with everything in memory."""

    shape: TableShape
    values: Sequence[dict[str, Any] | None]
    """Cells by column; None for what is no row."""

    def rows(self) -> Sequence[Row | None]:
        return [None if record is None else self._row(record) for record in self.values]

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        for number in wanted:
            record = self.values[number]
            yield None if record is None else as_bytes(record.get(self.shape.columns.content))

    def portable(self, wanted: Callable[[Row | None], bool]) -> Records:
        """As it is: everything is in memory."""
        return self

    def _row(self, record: dict[str, Any]) -> Row:
        def place() -> str:
            # A name for a row that has none, from its content: it depends on no order.
            content = as_bytes(record.get(self.shape.columns.content)) or b""
            return "row-" + hashlib.sha256(content).hexdigest()[:16]

        return self.shape.row(record, place)


def record_batch(batch: pa.RecordBatch, shape: TableShape) -> Records:
    """A record batch as rows; text is taken as bytes, so that broken UTF-8 reaches the filters instead of raising."""
    cells = {name: cells_of(batch.column(name)) for name in batch.schema.names}
    return Records(shape, [dict(zip(cells, values, strict=True)) for values in zip(*cells.values(), strict=True)])


def cells_of(column: pa.Array) -> list[Any]:
    """The cells of a column as Python values, text as bytes."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_dictionary(kind):
        # the entries of a dictionary are shared, not copied for every row
        entries = cells_of(column.dictionary)
        return [None if index is None else entries[index] for index in column.indices.to_pylist()]
    for is_text, as_binary in (
        (pa.types.is_string, pa.binary),
        (pa.types.is_large_string, pa.large_binary),
        (pa.types.is_string_view, pa.binary_view),
    ):
        if is_text(kind):
            column = column.cast(as_binary())
    cells: list[Any] = column.to_pylist()
    return cells


def as_bytes(value: Any) -> bytes | None:
    """A content cell as bytes; None for one that holds no text."""
    # JSON may spell lone surrogates, which are no text: they become bytes that are no UTF-8, and are dropped as such.
    return (
        value.encode("utf-8", "surrogatepass")
        if isinstance(value, str)
        else value
        if isinstance(value, bytes)
        else None
    )


def _text(value: Any) -> str | None:
    """A cell that names something; numbers may, for repositories have ids."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        return None
    return str(value).encode("utf-8", "replace").decode()


def _repository(value: Any) -> str | None:
    """A cell that tells repositories apart, which a list, a structure or a fraction does, too: by what it holds."""
    if value is None or isinstance(value, (str, bytes)) or type(value) is int:
        return _text(value)
    if isinstance(value, float) and value.is_integer():  # ids of a column in which some are missing
        return str(int(value))
    return json.dumps(value, sort_keys=True, default=str)


def _license(value: Any) -> str:
    if isinstance(value, list):
        return all_of(map(_license, value))
    return canonical(_text(value) or "")
