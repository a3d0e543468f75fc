"""Reading files that belong to somebody else: regular ones only, of bounded size, and JSON of bounded depth.

A FIFO would keep a reader waiting for ever, a device has no end, a file of a terabyte needs no disk, and a few bytes of
JSON may stand for more than the stack or the memory holds. Whatever is wrong with a file ends in one `InputError` that
names it, and so does what a library makes of it: `blamed_on`.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, NoReturn

from artifacts.errors import CodetuneError, InputError

MOST_BYTES = 64 << 20
"""Largest file of text that is read whole; a tokenizer with 250,000 pieces takes 35 MB."""
MOST_LEVELS = 64
"""Deepest nesting of JSON; descriptions of models and tokenizers have fewer than ten levels."""
MOST_PARTS = 10_000_000
"""Most values in JSON: two bytes of text may stand for ninety in memory. A tokenizer has some 2 million."""
MOST_DIGITS = 64
"""Longest whole number in JSON; `model_max_length` has 31 digits where a tokenizer has no bound."""
_OURS = ("artifacts", "tasks", "flows")
_CALL = re.compile(r"\w\(\) (?:got an unexpected keyword|got multiple values|missing \d+ required|takes \w+ )")
"""What Python says of a call that does not fit."""
_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@contextmanager
def opened(path: Path, *, field: str | None = None, remedy: str | None = None) -> Iterator[BinaryIO]:
    """A regular file for reading bytes; what the system reports while it is read counts, too.

    Raises:
        InputError: it is not there, may not be read, or is no regular file.
    """
    with blamed_on(path, field=field, remedy=remedy):
        # Without O_NONBLOCK opening a FIFO waits for somebody to write into it; regular files do not heed it.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            kind = _KINDS.get(stat.S_IFMT(os.fstat(descriptor).st_mode))
            if kind:
                raise ValueError(f"it is {kind}, not a file")
            yield file


def read_bytes(path: Path, *, limit: int = MOST_BYTES, field: str | None = None, remedy: str | None = None) -> bytes:
    """What a file holds, no more than `limit` bytes. Raises as `opened`, and for a larger file."""
    with opened(path, field=field, remedy=remedy) as file:
        size = os.fstat(file.fileno()).st_size
        found = file.read(size + 1) if size <= limit else b""  # memory is set aside for as much as is asked for
        if len(found) > size:  # it has grown meanwhile
            found += file.read(limit + 1 - len(found))
        if max(size, len(found)) > limit:
            raise ValueError(f"it is larger than {limit:,} bytes")
        return found


def read_text(path: Path, *, limit: int = MOST_BYTES, field: str | None = None, remedy: str | None = None) -> str:
    """A file of UTF-8, without its byte order mark; line ends are left as they are. Raises as `read_bytes`, and for
    other encodings."""
    found = read_bytes(path, limit=limit, field=field, remedy=remedy)
    with blamed_on(path, field=field, remedy=remedy):
        return _decoded(found)


def read_json(path: Path, *, limit: int = MOST_BYTES, field: str | None = None, remedy: str | None = None) -> Any:
    """What a JSON file says. Raises as `read_bytes`, and for what `parse_json` refuses."""
    found = read_bytes(path, limit=limit, field=field, remedy=remedy)
    with blamed_on(path, field=field, remedy=remedy):
        return parse_json(found)


def read_object(
    path: Path, *, limit: int = MOST_BYTES, field: str | None = None, remedy: str | None = None
) -> dict[str, Any]:
    """The same for a file that must hold a JSON object."""
    found = read_json(path, limit=limit, field=field, remedy=remedy)
    if not isinstance(found, dict):
        _refuse(path, "it is no JSON object", field, remedy, None)
    return found


def parse_json(text: bytes) -> Any:
    """JSON that means one thing: no key twice with different values, no NaN, no half characters, bounded depth.

    Raises:
        ValueError: says what is wrong.
    """
    if sum(map(text.count, (b"[", b"{", b","))) > MOST_PARTS:
        raise ValueError(f"it holds more than {MOST_PARTS:,} values")
    decoded = _decoded(text)
    try:
        value = json.loads(decoded, object_pairs_hook=_unambiguous, parse_int=_whole_number, parse_constant=_constant)
    except RecursionError:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep") from None
    level = [value]
    for _ in range(MOST_LEVELS):
        # views that were kept, by the million, would keep the garbage collector busy
        level = [part for one in level for part in _parts(one) if isinstance(part, (dict, list))]
    if level:
        raise ValueError(f"it is nested more than {MOST_LEVELS} levels deep")
    if "\\ud" in decoded or "\\uD" in decoded:
        json.dumps(value, ensure_ascii=False).encode()  # half of a pair of surrogates is no character
    return value


@contextmanager
def blamed_on(path: Path, *, field: str | None = None, remedy: str | None = None) -> Iterator[None]:
    """Whatever is raised in the block is the fault of a file that a person gave: one message that names the file.

    Not for blocks that compute: memory that runs out there is no fault of a file. And what no file can bring about is
    a fault of the code here: it is raised as it is.

    Raises:
        InputError: for any other error.
    """
    try:
        yield
    except CodetuneError:
        raise
    except Exception as error:
        if _is_fault_of_code(error):
            raise
        _refuse(path, _in_a_line(error), field, remedy, error)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # a library in Rust that gave up, for Python no Exception
            raise
        _refuse(path, _in_a_line(error), field, remedy, error)


def _is_fault_of_code(error: Exception) -> bool:
    """Whether code of this project names what is not there, or calls something as it cannot be called."""
    last = error.__traceback__
    while last and last.tb_next:
        last = last.tb_next
    if last is None or last.tb_frame.f_globals.get("__name__", "").partition(".")[0] not in _OURS:
        return False
    if isinstance(error, AttributeError):
        return isinstance(error.obj, ModuleType)
    if isinstance(error, TypeError):
        return bool(_CALL.search(str(error)))
    return isinstance(error, (NameError, ImportError, NotImplementedError))


def _refuse(path: Path, why: str, field: str | None, remedy: str | None, cause: BaseException | None) -> NoReturn:
    raise InputError(f"{path} cannot be read: {why}", field=field, remedy=remedy or "restore the file") from cause


def _in_a_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, json.JSONDecodeError):
        return f"it is no JSON ({error})"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 text (byte {error.start:,})"
    if isinstance(error, UnicodeEncodeError):
        return "it holds half of a surrogate pair, which is no character"
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    if type(error).__name__ == "ValidationError" and hasattr(error, "errors"):  # pydantic's, which takes long to import
        return "; ".join(one["msg"].removeprefix("Value error, ") for one in error.errors())[:300]
    if isinstance(error, RecursionError):
        return "it is nested too deep"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    said = " ".join(str(error).split())
    return said[:300] if said else type(error).__name__


def _decoded(text: bytes) -> str:
    return text.removeprefix(b"\xef\xbb\xbf").decode("utf-8")


def _parts(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


def _unambiguous(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        for key, value in pairs:
            if found[key] is not value and found[key] != value:
                raise ValueError(f"the key {key!r} has two values")
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"it holds a number of {len(digits):,} digits")
    return int(digits)


def _constant(name: str) -> float:
    if name == "NaN":
        raise ValueError("it holds NaN, which is no number")
    return float(name)
