"""Tables of any kind end in a sample or in one message, within bounded time and memory."""

from __future__ import annotations

import gzip
import os
import time
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tasks.sampling import SamplingConfig, json_lines, source_fingerprint
from tests.tasks.sampling import bad_tables
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import dropped, everything, make_socket

COLUMNS = {"content": "content", "repo": "repo", "path": "path", "license": "license", "size": "size"}


def refusal(sample: Sample, path: Path, **columns: str) -> InputError:
    source = {"kind": "table", "paths": [str(path)], "columns": {"content": "content", **columns}}
    with pytest.raises(InputError) as caught:
        source_fingerprint(SamplingConfig.model_validate({"source": source}))
        sample(source=source)
    message = str(caught.value)
    assert caught.value.remedy and len(message) < 1000 and "Traceback" not in message and path.name in message
    return caught.value


@pytest.mark.parametrize("case", bad_tables.JSON_READ)
def test_rows_that_are_none_are_counted_and_the_others_read(case: str, sample: Sample, tmp_path: Path) -> None:
    data, unreadable = bad_tables.JSON_READ[case]
    (tmp_path / "t.jsonl").write_bytes(data)
    result = sample(source={"kind": "table", "paths": [tmp_path / "t.jsonl"], "columns": COLUMNS}, licenses=None)
    paths = {row["path"] for row in everything(result)}
    assert paths >= {row["path"] for row in bad_tables.ROWS}
    assert dropped(result, "source") == ({"not readable as a row": unreadable} if unreadable else {})


@pytest.mark.parametrize("case", bad_tables.JSON_REFUSED)
def test_what_is_no_json_lines_is_named(case: str, sample: Sample, tmp_path: Path) -> None:
    data, word = bad_tables.JSON_REFUSED[case]
    (tmp_path / "t.jsonl").write_bytes(data)
    error = refusal(sample, tmp_path / "t.jsonl")
    assert word in str(error) and "languages" not in str(error.remedy)


@pytest.mark.parametrize("case", bad_tables.GZIP_REFUSED)
def test_damaged_gzip_is_refused(case: str, sample: Sample, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl.gz").write_bytes(bad_tables.GZIP_REFUSED[case])
    refusal(sample, tmp_path / "t.jsonl.gz")


@pytest.mark.parametrize("case", bad_tables.PARQUET_DAMAGED)
def test_damaged_parquet_is_refused(case: str, sample: Sample, tmp_path: Path) -> None:
    good = bad_tables.parquet(tmp_path / "t.parquet")
    (tmp_path / "t.parquet").write_bytes(bad_tables.PARQUET_DAMAGED[case](good))
    assert "t.parquet" in str(refusal(sample, tmp_path / "t.parquet"))


SLOW_TO_WRITE = {"a giant cell": pytest.mark.slow}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=SLOW_TO_WRITE.get(case, ())) for case in bad_tables.PARQUET_REFUSED]
)
def test_parquet_without_text_or_without_bounds_is_refused(case: str, sample: Sample, tmp_path: Path) -> None:
    table, options, word = bad_tables.PARQUET_REFUSED[case]
    bad_tables.parquet(tmp_path / "t.parquet", table(), **options)
    started = time.monotonic()
    assert word in str(refusal(sample, tmp_path / "t.parquet"))
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary", "string_view", "dictionary"])
def test_text_of_every_type_is_read(kind: str, sample: Sample, tmp_path: Path) -> None:
    types = {"dictionary": pa.dictionary(pa.int32(), pa.string())}
    table = pa.Table.from_pylist(bad_tables.ROWS)
    column = table["content"].combine_chunks()
    column = column.dictionary_encode() if kind == "dictionary" else column.cast(types.get(kind) or getattr(pa, kind)())
    pq.write_table(table.set_column(table.schema.get_field_index("content"), "content", column), tmp_path / "t.parquet")
    result = sample(source={"kind": "table", "paths": [tmp_path / "t.parquet"], "columns": COLUMNS})
    assert len(everything(result)) == 30 and result.licenses == {"MIT": 30}


@pytest.mark.parametrize("name", ["t.jsonl", "t.jsonl.gz", "t.parquet"])
@pytest.mark.parametrize("kind", ["FIFO", "socket", "device", "folder", "terabyte", "unreadable"])
def test_what_is_no_file_of_data_is_refused_at_once(kind: str, name: str, sample: Sample, tmp_path: Path) -> None:
    path = tmp_path / name
    match kind:
        case "FIFO":
            os.mkfifo(path)
        case "socket":
            make_socket(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "folder":
            path.mkdir()
        case "terabyte":
            path.write_bytes(bad_tables.PLAIN)
            os.truncate(path, 1 << 40)
        case _:
            path.symlink_to("/proc/self/mem")
    started = time.monotonic()
    assert refusal(sample, path).field == "sampling.source.paths"
    assert time.monotonic() - started < 5


def test_a_small_file_of_gigabytes_is_refused(sample: Sample, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "_UNPACKED", 1 << 24)
    block = gzip.compress(b" " * (64 << 20) + b"\n", 9)
    (tmp_path / "t.jsonl.gz").write_bytes(gzip.compress(bad_tables.PLAIN + b"\n") + block)
    assert "unpacks" in str(refusal(sample, tmp_path / "t.jsonl.gz"))


def outcomes(sample: Sample, folder: Path, seeds: range) -> Counter[str]:
    """What becomes of tables that were damaged by chance: anything but a sample and a message fails the test."""
    forms = [bad_tables.parquet(folder / "good.parquet", **options) for options in bad_tables.GOOD_FORMS]
    counts: Counter[str] = Counter()
    for seed in seeds:
        path = folder / ("t.jsonl" if seed % 3 == 0 else "t.parquet")
        path.write_bytes(
            bad_tables.lines_damaged(seed) if seed % 3 == 0 else bad_tables.damaged(forms[seed % len(forms)], seed)
        )
        try:
            sample(source={"kind": "table", "paths": [path], "columns": COLUMNS}, licenses=None)
            counts["read"] += 1
        except InputError as error:
            assert path.name in str(error) or error.field == "sampling", seed
            counts["refused"] += 1
    return counts


def test_tables_damaged_by_chance(sample: Sample, tmp_path: Path) -> None:
    counts = outcomes(sample, tmp_path, range(12))
    assert counts["read"] >= 3 and counts["refused"] >= 5


@pytest.mark.slow
@pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes; run it with -m slow")
@pytest.mark.timeout(1200)
def test_many_tables_damaged_by_chance(sample: Sample, tmp_path: Path) -> None:
    counts = outcomes(sample, tmp_path, range(1200, 1500))  # 1316 ends a process that reads of its chunks
    assert counts["read"] >= 60 and counts["refused"] >= 100
