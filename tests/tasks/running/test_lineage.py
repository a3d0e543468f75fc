"""Writing down where an export comes from."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts import lineage as lineages
from artifacts.lineage import ROW, SPLITS
from artifacts.rows import read_rows
from tasks.running import lineage
from tests.memory import peak


def sample(folder: Path, files: int) -> Path:
    """Its tables, as far as the lineage reads them."""
    folder.mkdir()
    for split in SPLITS:
        columns = {
            "repo": ["one"] * files,
            "path": [f"{split}/{number}.py" for number in range(files)],
            "license": ["mit"] * files,
            "sha256": [sha256(b"%d" % number).hexdigest() for number in range(files)],
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet", row_group_size=256)  # as sampling does
    return folder


def test_every_file_is_told_in_order(tmp_path: Path) -> None:
    assert lineage._write_sources(sample(tmp_path / "sample", 5000), tmp_path / "sources.parquet") == {"mit": 10_000}
    rows = read_rows(tmp_path / "sources.parquet")
    assert [row["path"] for row in rows] == [f"{split}/{number}.py" for split in SPLITS for number in range(5000)]
    assert {tuple(row) for row in rows} == {ROW}


@pytest.mark.parametrize(("held_out", "verdict"), [(0, "ok"), (1, "fault")])
def test_a_side_without_files_fits_a_sample_that_has_none(held_out: int, verdict: str, tmp_path: Path) -> None:
    made = sample(tmp_path / "sample", 3)
    pq.write_table(pq.read_table(made / "held_out.parquet").slice(0, 0), made / "held_out.parquet")
    licenses = dict(lineage._write_sources(made, tmp_path / "sources.parquet"))
    handle = {"train": {"files": 3}, "held_out": {"files": held_out}, "licenses": licenses}
    data = {"files": {"train": 3, "held_out": held_out}, "licenses": licenses}
    told = {"data": data, "inputs": {"sample": {"handle": handle}}}
    assert lineages._check_rows(tmp_path / "sources.parquet", told).verdict == verdict


def test_many_files_take_no_more_memory(tmp_path: Path) -> None:
    def writing(files: int) -> int:
        made = sample(tmp_path / str(files), files)
        return peak(lambda: lineage._write_sources(made, tmp_path / "sources.parquet"))

    writing(10)  # imports
    few, many = writing(5000), writing(50_000)
    assert many < few + 90_000 * 10, (few, many)  # bytes a row
