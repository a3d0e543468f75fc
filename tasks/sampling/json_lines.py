"""Rows of JSON-lines files: one object a line, in UTF-8, perhaps packed by gzip.

A line that is no object is a row that could not be read. A file that is something else as a whole (an array, objects
over several lines, another encoding, another format) is refused with what makes JSON lines of it.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
from collections.abc import Iterator
from typing import IO, Any, NoReturn, cast

from artifacts.errors import InputError
from tasks.sampling.tables import BATCH, Records, TableShape, check_columns

log = logging.getLogger(__name__)

ENDINGS = (".jsonl", ".jsonl.gz")
_FIELD = "sampling.source"
_LONGEST_LINE = 64 * 1024 * 1024
"""Bytes of one line; longer ones are skipped without being kept in memory."""
_BLOCK = 64 * 1024 * 1024
"""Bytes of the lines that are in memory at once, but for the last of them."""
_MOST_DIGITS = 64
_MOST_KEYS = 1000
"""Names of columns that are remembered for a message."""
_UNPACKED, _RATIO = 1 << 30, 300
"""Bytes that a packed file may give however small it is, and how many times its size beyond that: text is packed to a
twentieth, and gzip packs zeros to a thousandth."""
_BOM = b"\xef\xbb\xbf"
_FORMATS = (
    (b"PAR1", "is Parquet", "name it `.parquet`"),
    (b"\x1f\x8b", "is packed by gzip", "name it `.jsonl.gz`"),
    (b"\x28\xb5\x2f\xfd", "is packed by zstd", "unpack it with `zstd -d`"),
    (b"BZh", "is packed by bzip2", "unpack it with `bunzip2`"),
    (b"\xfd7zXZ", "is packed by xz", "unpack it with `unxz`"),
    (b"PK\x03\x04", "is a zip archive", "unpack it"),
    (b"\xff\xfe", "is UTF-16", "convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "is UTF-16", "convert it with `iconv -f UTF-16 -t UTF-8`"),
)
"""What files begin with that are no JSON lines as they are."""


def json_lines(stream: IO[bytes], name: str, size: int, shape: TableShape) -> Iterator[Records]:
    """The rows of a file.

    Args:
        stream: at the beginning of the file.
        size: of the file as it is stored, in bytes.

    Raises:
        InputError: it is no JSON lines, or no row has one of the columns that are asked for.
    """
    most = max(_UNPACKED, _RATIO * size) if name.endswith(".gz") else None
    stream = check_format(stream, name)
    rows = records = 0
    columns: dict[str, None] = {}
    wanted = {column for column in shape.columns.model_dump().values() if column is not None}
    finished = False
    try:
        for block in _blocks(_lines(stream, name, most)):
            values = [_record(line) for line in block]
            for record in values:
                if record is not None and len(columns) < _MOST_KEYS:
                    columns |= dict.fromkeys(record)
            records += sum(record is not None for record in values)
            rows += len(values)
            yield Records(shape, [record and {key: record[key] for key in wanted & record.keys()} for record in values])
        finished = True
    finally:
        missing = sorted(wanted - columns.keys())
        if records and missing and not finished:
            log.warning("none of the first %d rows of %s has a column %s", rows, name, " or ".join(missing))
    if rows and not records:
        _refuse(name, "has no line that is a JSON object", "write one object a line: `jq -c . FILE`")
    if not rows:
        log.warning("%s holds no rows", name)
    elif len(columns) < _MOST_KEYS:
        check_columns(shape.columns, columns, name)


def check_format(stream: IO[bytes], name: str) -> IO[bytes]:
    """The same file, unpacked where its name says so and without a byte order mark.

    Raises:
        InputError: by its beginning it is something else.
    """
    if name.endswith(".gz"):
        stream = cast("IO[bytes]", io.BufferedReader(gzip.GzipFile(fileobj=stream)))
    head = cast("io.BufferedReader", stream).peek(8192)[:8192]
    for magic, what, remedy in _FORMATS:
        if head.startswith(magic):
            _refuse(name, f"{what}, not JSON lines", remedy)
    if head.startswith(_BOM):
        stream.read(len(_BOM))
        head = head[len(_BOM) :]
    if b"\0" in head:
        _refuse(name, "holds NUL bytes, which no text does", "write JSON lines in UTF-8")
    start = head.lstrip()
    if start.startswith(b"[") and not _is_row(start):
        _refuse(name, "is one JSON array, not JSON lines", "make a line of each of its objects: `jq -c '.[]' FILE`")
    if start.split(b"\n")[0].strip() == b"{":
        _refuse(name, "has its objects over several lines", "make a line of each object: `jq -c . FILE`")
    return stream


def _is_row(head: bytes) -> bool:
    """Whether the first line is a whole list, and others follow: then it is a row of a wrong type."""
    line, _, rest = head.partition(b"\n")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return False
    return bool(rest.strip()) and not any(isinstance(item, dict) for item in value)


def _lines(stream: IO[bytes], name: str, most: int | None) -> Iterator[bytes | None]:
    """The lines that are not blank, None for one that is too long."""
    read = 0
    while line := stream.readline(_LONGEST_LINE):
        read += len(line)
        whole: bytes | None = line
        while not line.endswith(b"\n") and (line := stream.readline(_LONGEST_LINE)):
            read, whole = read + len(line), None
            _check_packing(name, read, most)
        _check_packing(name, read, most)
        if whole is None or whole.strip():
            yield whole


def _check_packing(name: str, read: int, most: int | None) -> None:
    if most is not None and read > most:
        _refuse(name, f"unpacks to more than {_RATIO} times its size, as no text does", "unpack it, and look at it")


def _blocks(lines: Iterator[bytes | None]) -> Iterator[list[bytes | None]]:
    block: list[bytes | None] = []
    size = 0
    for line in lines:
        block.append(line)
        size += len(line or b"")
        if len(block) == BATCH or size >= _BLOCK:
            yield block
            block, size = [], 0
    if block:
        yield block


def _record(line: bytes | None) -> dict[str, Any] | None:
    """The object in a line; None where there is none, or none of one meaning."""
    if line is None:
        return None
    try:
        value = json.loads(
            line,
            object_pairs_hook=_unambiguous,
            # longer ones are in columns that nobody asks for, and take Python a long time
            parse_int=lambda digits: int(digits) if len(digits) <= _MOST_DIGITS else None,
            parse_constant=lambda _: None,
        )
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and any(found[key] != value for key, value in pairs):
        raise ValueError("a key with two values")
    return found


def _refuse(name: str, problem: str, remedy: str) -> NoReturn:
    raise InputError(f"{name} {problem}", field=_FIELD, remedy=remedy)
