"""Tables that somebody could give: as JSON lines, as Parquet, damaged in every way that a seed comes up with."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tests.tasks.sampling.reading import programs

ROWS = programs(30, license="mit", size=40)
LINES = [json.dumps(row).encode() for row in ROWS]
PLAIN = b"\n".join(LINES)
LARGE = "x = 1\n" * 4_000_000

JSON_READ: dict[str, tuple[bytes, int]] = {
    "blank lines": (b"\n\n".join(LINES) + b"\n  \n\t\n", 0),
    "carriage returns": (b"\r\n".join(LINES), 0),
    "a byte order mark": (b"\xef\xbb\xbf" + PLAIN, 0),
    "a first row without an optional column": (json.dumps({"content": "x = 'first'\n"}).encode() + b"\n" + PLAIN, 0),
    "a later row without one": (PLAIN + b"\n" + json.dumps({"content": "x = 'last'\n"}).encode(), 0),
    "a row that is a list": (b"[1, 2]\n" + PLAIN, 1),
    "rows that are numbers, text, null": (PLAIN + b'\n17\n"text"\nnull\ntrue\n', 4),
    "a broken line": (PLAIN + b'\n{"content": \n', 1),
    "two values of one key": (PLAIN + b'\n{"content": "a = 1", "content": "b = 2"}\n', 1),
    "deep nesting": (PLAIN + b'\n{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", 1),
    "an endless nesting": (PLAIN + b"\n" + b'{"a":' * 100_000 + b"\n", 1),
    "bytes that are no text": (PLAIN + b'\n{"content": "\xff\xfe"}\n', 1),
    "a long number": (PLAIN + b'\n{"content": "x = 8", "path": "a.py", "stars": ' + b"9" * 5000 + b"}\n", 0),
    "no number": (PLAIN + b'\n{"content": "x = 9", "path": "a.py", "stars": NaN, "size": Infinity}\n', 0),
    "wrong types": (PLAIN + b'\n{"content": 5, "repo": [1], "path": {"a": 1}, "license": true, "size": "x"}\n', 0),
    "a lone surrogate": (PLAIN + b'\n{"content": "x = \'\\ud800\'", "repo": "\\udfff", "path": "\\ud800.py"}\n', 0),
}
"""What a file holds besides good rows, and how many rows of it are none."""

JSON_REFUSED: dict[str, tuple[bytes, str]] = {
    "an array": (b"[" + b",".join(LINES) + b"]", "array"),
    "an array over lines": (b"[\n" + b",\n".join(LINES) + b"\n]\n", "array"),
    "an empty array": (b"[]", "array"),
    "objects over lines": (json.dumps(ROWS[0], indent=2).encode(), "several lines"),
    "many over lines": (b"\n".join(json.dumps(row, indent=1).encode() for row in ROWS), "several lines"),
    "UTF-16": (PLAIN.decode().encode("utf-16"), "UTF-16"),
    "UTF-16 without a mark": (PLAIN.decode().encode("utf-16-le"), "NUL"),
    "gzip without its ending": (gzip.compress(PLAIN), "gzip"),
    "zstd": (b"\x28\xb5\x2f\xfd" + PLAIN, "zstd"),
    "a zip archive": (b"PK\x03\x04" + PLAIN, "zip"),
    "Parquet": (b"PAR1" + PLAIN + b"PAR1", "Parquet"),
    "zeros": (bytes(100_000), "NUL"),
    "prose": (b"This is no table.\nIt has two lines.\n", "no line that is a JSON object"),
    "CSV": (b"content,path\nx = 1,a.py\n", "no line that is a JSON object"),
    "other columns": (b'{"text": "x = 1", "name": "a.py"}\n', "no column"),
    "nothing": (b"", "no rows"),
    "blank lines alone": (b"\n\n \n", "no rows"),
}
"""What a file holds that is no JSON lines, and a word of what is said of it."""

GZIP_REFUSED: dict[str, bytes] = {
    "not packed": PLAIN,
    "cut off": gzip.compress(PLAIN)[:-20],
    "another checksum": gzip.compress(PLAIN)[:-8] + bytes(8),
    "damaged inside": gzip.compress(PLAIN)[:60] + b"\xff" * 40 + gzip.compress(PLAIN)[100:],
    "nothing at all": b"",
    "a header alone": gzip.compress(PLAIN)[:10],
}


def parquet(path: Path, table: pa.Table | None = None, **options: Any) -> bytes:
    """The bytes of a good file."""
    pq.write_table(pa.Table.from_pylist(ROWS) if table is None else table, path, **{"row_group_size": 12, **options})
    return path.read_bytes()


def _footer(good: bytes) -> int:
    return len(good) - 8 - int.from_bytes(good[-8:-4], "little")


PARQUET_DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "nothing": lambda good: b"",
    "magic alone": lambda good: b"PAR1",
    "twice the magic": lambda good: b"PAR1PAR1",
    "cut off": lambda good: good[: len(good) // 2],
    "its last byte lost": lambda good: good[:-1],
    "another magic": lambda good: b"XXXX" + good[4:-4] + b"XXXX",
    "an encrypted footer": lambda good: good[:-4] + b"PARE",
    "a footer of no bytes": lambda good: good[:-8] + bytes(4) + b"PAR1",
    "a footer longer than the file": lambda good: good[:-8] + b"\xff\xff\xff\x7f" + b"PAR1",
    "a footer of a negative length": lambda good: good[:-8] + b"\xff\xff\xff\xff" + b"PAR1",
    "zeros in the footer": lambda good: good[: _footer(good)] + bytes(len(good) - 8 - _footer(good)) + good[-8:],
    "noise in the footer": lambda good: good[: _footer(good) + 9] + b"\xf7" * 40 + good[_footer(good) + 49 :],
    "zeros in the pages": lambda good: good[:4] + bytes(_footer(good) - 4) + good[_footer(good) :],
    "noise in the pages": lambda good: good[:30] + b"\xa5" * (_footer(good) - 30) + good[_footer(good) :],
    "the pages left out": lambda good: b"PAR1" + good[_footer(good) :],
    "text": lambda good: PLAIN,
}

PARQUET_REFUSED: dict[str, tuple[Callable[[], pa.Table], dict[str, Any], str]] = {
    "no such column": (lambda: pa.table({"text": ["x = 1"]}), {}, "it has text"),
    "no columns": (lambda: pa.table({}), {}, "it has none"),
    "lists of text": (lambda: pa.table({"content": [["x = 1"]]}), {}, "no text"),
    "numbers": (lambda: pa.table({"content": [1, 2]}), {}, "no text"),
    "structures": (lambda: pa.table({"content": [{"text": "x = 1"}]}), {}, "no text"),
    "a column twice": (lambda: pa.Table.from_arrays([pa.array(["a"])] * 2, names=["content"] * 2), {}, ""),
    "20,000 columns": (lambda: pa.table({f"c{n}": [1] for n in range(20_000)}), {}, "20,000 columns"),
    "a dictionary of one giant": (
        lambda: pa.table({"content": pa.DictionaryArray.from_arrays(pa.array([0] * 5000, pa.int32()), [LARGE])}),
        {"row_group_size": 5000, "compression": "zstd"},
        "more memory",
    ),
    "a giant cell": (
        lambda: pa.table({"content": pa.array([b"x = 1\n" * 50_000_000], pa.large_binary())}),
        {"use_dictionary": False, "compression": "zstd", "write_statistics": False},
        "more memory",
    ),
}


def damaged(good: bytes, seed: int) -> bytes:
    """A file with something of it lost, altered or added, wherever the seed says."""
    chance, data = random.Random(seed), bytearray(good)
    place, length = chance.randrange(len(data)), chance.randrange(1, 200)
    match chance.randrange(6):
        case 0:
            del data[place:]
        case 1:
            del data[place : place + length]
        case 2:
            data[place:place] = chance.randbytes(length)
        case 3:
            data[place : place + length] = bytes([chance.choice((0, 0x80, 0xFF))]) * length
        case 4:
            for _ in range(chance.randrange(1, 6)):
                data[chance.randrange(len(data))] = chance.randrange(256)
        case _:
            for _ in range(chance.randrange(1, 4)):
                data[chance.randrange(_footer(good), len(good) - 8)] = chance.randrange(256)
    return bytes(data)


GOOD_FORMS: tuple[dict[str, Any], ...] = (
    {"compression": "snappy"},
    {"compression": "zstd", "use_dictionary": False},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "none"},
    {"compression": "none", "use_dictionary": False, "column_encoding": {"content": "DELTA_BYTE_ARRAY"}},
)


def lines_damaged(seed: int) -> bytes:
    """JSON lines with some of their bytes or lines altered."""
    chance, lines = random.Random(seed), list(LINES)
    for _ in range(chance.randrange(1, 8)):
        number = chance.randrange(len(lines))
        line = bytearray(lines[number])
        place = chance.randrange(len(line) + 1)
        line[place : place + chance.randrange(3)] = chance.choice(
            (
                b"\0",
                b"\xff",
                b'"',
                b"\\",
                b"{",
                b"[",
                b"]",
                b"\n",
                b"\r",
                b"\\ud800",
                b"1e999",
                b"null",
                b"\xe2\x80\xa8",
            )
        )
        lines[number] = bytes(line)
    chance.shuffle(lines)
    return chance.choice((b"\n", b"\r\n", b"\n\n")).join(lines)
