"""The rows of a file of problems or completions: JSON Lines, plain or gzipped, a JSON array, or Parquet."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from artifacts import reading
from artifacts.errors import InputError
from tasks.processes import bounded

REMEDY = "mend the file, or take the original one from where it is published"
LARGEST = 1 << 30
"""Bytes of a file, unpacked; HumanEval+ and MBPP+ with all their inputs have under 100 MB."""


def rows_of(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with its place in words; empty lines are passed over.

    Raises:
        InputError: the file cannot be read, or a row is no JSON object.
    """
    if not path.exists():
        raise InputError("there is no such file", field=str(path), remedy="name a .jsonl, .jsonl.gz or .parquet file")
    if path.suffix == ".parquet":
        yield from _parquet(path)
        return
    text = _text(path)
    if text.lstrip()[:1] == b"[" and (array := _array(text)) is not None:
        for number, row in enumerate(array, 1):
            yield f"row {number} of {path.name}", _object(row, f"row {number}", path)
        return
    for number, line in enumerate(text.split(b"\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise InputError(f"line {number} is no JSON: {error}", field=str(path), remedy=REMEDY) from error
            yield f"line {number} of {path.name}", _object(row, f"line {number}", path)


def _text(path: Path) -> bytes:
    try:
        with reading.opened(path) as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source = gzip.GzipFile(fileobj=file) if packed else file
            text = source.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"the file cannot be read: {error}", field=str(path), remedy=REMEDY) from error
    if len(text) > LARGEST:
        raise InputError(f"the file has more than {LARGEST >> 30} GiB", field=str(path), remedy=REMEDY)
    return text.removeprefix(b"\xef\xbb\xbf")


def _array(text: bytes) -> list[Any] | None:
    """The items of a file that is one JSON array; None if it is something else, such as lines that begin with one."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list) and all(isinstance(item, dict) for item in found) else None


def _object(row: Any, place: str, path: Path) -> dict[str, Any]:
    if not isinstance(row, dict):
        raise InputError(f"{place} is no JSON object", field=str(path), remedy=REMEDY)
    return row


def _parquet(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    # Some damage ends the process that reads, and a few bytes may stand for any number of rows.
    bounded.ask(f"{__name__}:count", path, field=str(path), remedy=REMEDY)
    for number, row in enumerate(_read(path), 1):
        yield f"row {number} of {path.name}", row


def count(path: Path) -> int:
    """The rows of a Parquet file; for a process of its own."""
    rows = _read(path)
    if sum(len(value) for row in rows for value in row.values() if isinstance(value, (str, bytes))) > LARGEST:
        raise ValueError(f"it holds more than {LARGEST >> 30} GiB")
    return len(rows)


def _read(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    with reading.opened(path, field=str(path), remedy=REMEDY) as file:
        rows: list[dict[str, Any]] = pq.read_table(file).to_pylist()
    return rows
