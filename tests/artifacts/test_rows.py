"""Rows of several files, a few at a time, or those of some numbers."""

from __future__ import annotations

import random
from collections import deque
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.installation import PROJECT
from artifacts.rows import count_rows, each_row, rows_at
from tests.memory import peak


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Of 150, no and 70 rows, in row groups of 40; only the first has lengths."""
    files = []
    for number, rows in enumerate((range(150), range(0), range(150, 220))):
        files.append(tmp_path / f"{number}.parquet")
        columns = {"name": pa.array([f"row {row}" for row in rows], pa.string())}
        if number == 0:
            columns["length"] = pa.array([*rows], pa.int64())
        pq.write_table(pa.table(columns), files[-1], row_group_size=40)
    return files


def test_all_rows_come_in_order(files: list[Path]) -> None:
    assert [row["name"] for row in each_row(files)] == [f"row {number}" for number in range(220)]
    assert [count_rows(file) for file in files] == [150, 0, 70]


@pytest.mark.parametrize("numbers", [[], [0], [219, 3], [39, 40, 149, 150, 151], range(0, 220, 7), range(220)])
def test_rows_are_found_by_their_numbers(files: list[Path], numbers: list[int]) -> None:
    assert list(rows_at(files, numbers, ["name"])) == [(one, {"name": f"row {one}"}) for one in sorted(numbers)]


def test_what_was_read_does_not_stay_in_memory(tmp_path: Path) -> None:
    texts = [random.Random(number).randbytes(8_000).hex() for number in range(300)]  # nearly as long when packed
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet", row_group_size=10, compression="zstd")
    whole = (tmp_path / "a.parquet").stat().st_size
    assert peak(lambda: deque(each_row([tmp_path / "a.parquet"]), maxlen=0)) < whole / 2 > 1_000_000
    assert peak(lambda: deque(rows_at([tmp_path / "a.parquet"], range(0, 300, 10)), maxlen=0)) < whole / 2


def test_all_that_is_read_by_parts_is_opened_so() -> None:
    """Arrow's own default keeps what it has read of a file until it is closed. What others made is opened with bounds
    besides (`tasks.sampling.parquet_rows`)."""
    ours = {
        path.relative_to(PROJECT).as_posix()
        for folder in ("artifacts", "tasks", "flows")
        for path in (PROJECT / folder).rglob("*.py")
        if "ParquetFile(" in path.read_text()
    }
    assert ours == {"artifacts/rows.py", "tasks/sampling/hub_source.py", "tasks/sampling/table_source.py"}


def test_columns_that_a_file_lacks_are_left_out(files: list[Path]) -> None:
    assert dict(rows_at(files, [1, 150], ["length", "name"])) == {
        1: {"name": "row 1", "length": 1},
        150: {"name": "row 150"},
    }
