"""Parquet and JSON-lines tables."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import PROGRAM, bytes_of, dropped, everything, programs, write_jsonl

COLUMNS = {"content": "content", "repo": "repo", "path": "path"}


def test_parquet_and_json_lines_give_the_same_bytes(sample: Sample, tmp_path: Path) -> None:
    records = programs(40)
    plain = write_jsonl(tmp_path / "t.jsonl", records)
    packed = tmp_path / "t.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    pq.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    results = [
        sample(source={"kind": "table", "paths": [path], "columns": COLUMNS})
        for path in (plain, packed, tmp_path / "t.parquet")
    ]
    assert len({bytes_of(result) for result in results}) == 1 and len(everything(results[0])) == 40


def test_missing_column_is_named_with_the_existing_ones(sample: Sample, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"text": "x = 1", "name": "a.py"}])
    with pytest.raises(InputError, match=r"t\.jsonl .*'content'.* text, name\n") as refusal:
        sample(source={"kind": "table", "paths": [path]})
    assert refusal.value.field == "sampling.source.columns.content"
    pq.write_table(pa.table({"content": ["x = 1"]}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="no column 'origin'"):
        sample(source={"kind": "table", "paths": [tmp_path / "t.parquet"], "columns": {"repo": "origin"}})


@pytest.mark.parametrize(
    ("name", "words"),
    [("none.parquet", "does not exist"), ("t.csv", "neither Parquet"), ("bad.parquet", "cannot be read")],
)
def test_unusable_files_are_refused(name: str, words: str, sample: Sample, tmp_path: Path) -> None:
    if not name.startswith("none"):
        (tmp_path / name).write_text("this,is,csv\n")
    with pytest.raises(InputError, match=words):
        sample(source={"kind": "table", "paths": [tmp_path / name]})


def test_lines_that_are_no_records_are_counted(sample: Sample, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", programs(10))
    path.write_text(path.read_text() + "{broken\n[1]\n" + json.dumps({**programs(1)[0], "content": None}) + "\n")
    result = sample(source={"kind": "table", "paths": [path], "columns": COLUMNS})
    assert dropped(result, "source") == {"not readable as a row": 2}
    assert dropped(result, "content") == {"cannot be read": 1} and len(everything(result)) == 10


def test_broken_text_in_a_string_column_is_dropped_not_raised(sample: Sample, tmp_path: Path) -> None:
    good = [record["content"].encode() for record in programs(8)]
    content = pa.array([*good, b"\xff\xfe = 1", b"\0"], pa.binary()).view(pa.string())
    table = pa.table({"content": content, "repo": [f"r{n}" for n in range(10)], "path": ["a.py"] * 10})
    pq.write_table(table, tmp_path / "t.parquet")
    result = sample(source={"kind": "table", "paths": [tmp_path / "t.parquet"], "columns": COLUMNS})
    assert dropped(result, "content") == {"not UTF-8": 1, "NUL bytes": 1} and len(everything(result)) == 8


def test_lone_surrogates_of_json_are_no_text(sample: Sample, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [*programs(5), {**programs(1)[0], "content": "x = '\ud800'"}])
    assert dropped(sample(source={"kind": "table", "paths": [path], "columns": COLUMNS}), "content") == {"not UTF-8": 1}


def test_content_alone_needs_a_language_and_makes_each_row_a_repository(sample: Sample, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", [{"content": PROGRAM.format(n)} for n in range(10)])
    with pytest.raises(InputError, match="no known language 10"):
        sample(source={"kind": "table", "paths": [path]})
    result = sample(source={"kind": "table", "paths": [path], "language": "python"})
    assert len({row["repo"] for row in everything(result)}) == 10


def test_language_column_goes_before_the_extension(sample: Sample, tmp_path: Path) -> None:
    path = write_jsonl(tmp_path / "t.jsonl", programs(10, lang="rust"))
    columns = {**COLUMNS, "language": "lang"}
    result = sample(source={"kind": "table", "paths": [path], "columns": columns}, languages=["RUST"])
    assert result.languages == {"Rust": 10}


@pytest.mark.parametrize(
    "name", [lambda n: ["owner", n], lambda n: {"id": n}, lambda n: n + 0.5, float, bool, lambda n: f"r{n}", int]
)
def test_rows_of_one_repository_stay_together_whatever_names_it(
    name: Callable[[int], Any], tmp_path: Path, sample: Sample
) -> None:
    rows = [row | {"repo": name(number % 2)} for number, row in enumerate(programs(12))]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = sample(source={"kind": "table", "paths": [str(tmp_path / "t.jsonl")], "columns": COLUMNS})
    assert result.train.repositories == result.held_out.repositories == 1


@pytest.mark.parametrize(("kind", "named"), [("table", "sampling.source.language"), ("local", "sampling.source.kind")])
def test_rows_whose_language_nothing_tells_are_told_how(kind: str, named: str, sample: Sample, tmp_path: Path) -> None:
    """And a table among one's own files that it is a table."""
    path = write_jsonl(tmp_path / "t.jsonl", programs(10))
    with pytest.raises(InputError) as refused:
        sample(source={"kind": kind, "paths": [str(path)]})
    assert refused.value.remedy and named in refused.value.remedy
