"""What is found out about a Parquet file before its rows are read, in this process: the stage asks in another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tasks.sampling import parquet_rows
from tasks.sampling.config import Columns
from tasks.sampling.tables import BATCH

TEXT = "x = 1\n" * 2000


def write(path: Path, *texts: str, other: str = "", **options: Any) -> Path:
    table = pa.table({"content": list(texts), "note": [other] * len(texts)})
    pq.write_table(table, path, **{"compression": "zstd", "row_group_size": 1, **options})
    return path


def inspected(*paths: Path) -> list[int]:
    columns = Columns(content="content").model_dump_json()
    return parquet_rows.inspect(paths[0], json.dumps([str(path) for path in paths]), columns)


def test_fewer_rows_at_once_where_they_are_told_by_differences(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.parquet", "x = 1", "y = 2")
    encoded = {"use_dictionary": False, "column_encoding": {"content": "DELTA_BYTE_ARRAY", "note": "PLAIN"}}
    deltas = write(tmp_path / "b.parquet", "x = 1", "y = 2", **encoded)
    swapped = {"content": "PLAIN", "note": "DELTA_BYTE_ARRAY"}  # in a column that is not read
    aside = write(tmp_path / "c.parquet", "x = 1", "y = 2", use_dictionary=False, column_encoding=swapped)
    assert inspected(plain, deltas, aside) == [BATCH, parquet_rows._ROWS_OF_DELTAS, BATCH]


def limits(monkeypatch: pytest.MonkeyPatch, unpacked: int, ratio: int, dictionary: int) -> None:
    for name, value in (("_UNPACKED", unpacked), ("_RATIO", ratio), ("_DICTIONARY", dictionary)):
        monkeypatch.setattr(parquet_rows, name, value)


@pytest.mark.parametrize("dictionaries", [True, False])
def test_what_unpacks_to_too_much_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dictionaries: bool
) -> None:
    last = write(tmp_path / "a.parquet", "x = 1", TEXT, use_dictionary=dictionaries)
    aside = write(tmp_path / "b.parquet", "x = 1", other=TEXT, use_dictionary=dictionaries)
    limits(monkeypatch, 1000, 2, 1 << 20)
    assert inspected(aside) == [BATCH]  # that column is not read
    with pytest.raises(InputError) as refusal:
        inspected(aside, last)
    assert refusal.value.field == "sampling.source" and "a.parquet" in str(refusal.value)
    for allowed in ((20_000, 2, 1 << 20), (1000, 1000, 1 << 20)):  # by its size, or by what it takes in the file
        limits(monkeypatch, *allowed)
        assert inspected(last) == [BATCH]


def test_a_dictionary_has_a_limit_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", TEXT, other=TEXT * 2)
    size = len(TEXT) + 4
    limits(monkeypatch, 1 << 28, 300, size)
    assert inspected(path) == [BATCH]
    limits(monkeypatch, 1 << 28, 300, size - 1)
    with pytest.raises(InputError):
        inspected(path)


@pytest.mark.parametrize("length", [1, 59, 60, 124, 8187, 8188, 1 << 20])
def test_the_size_of_a_page_is_read_from_its_header(tmp_path: Path, length: int) -> None:
    path = write(tmp_path / "a.parquet", "x" * length)
    chunk = pq.read_metadata(path).row_group(0).column(0)
    with path.open("rb") as stream:
        assert parquet_rows._unpacked_page(stream, chunk.dictionary_page_offset) == length + 4
        assert parquet_rows._unpacked_page(stream, path.stat().st_size) == 0  # nothing is there


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        inspected(write(tmp_path / "a.parquet", "x"), tmp_path / "none.parquet")
    assert refusal.value.field == "sampling.source.paths"
