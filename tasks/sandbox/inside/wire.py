"""Values between test and program as JSON: what arrives is plain data, whatever the sender made of itself.

Each value of a type with an own mark travels as `[mark, …]`: `l`ist, `t`uple, `s`et, `f`rozenset, `d`ictionary,
`b`ytes, `c`omplex, `r`ange; `o` stands for an object that stays with the sender, `y` for one that the receiver has
sent before.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

LARGEST = 64 << 20
"""Bytes of one message."""


class Broken(BaseException):
    """What arrived is no message. No test may take it for an error that it expects."""


class Gone(Broken):
    """The other side has closed the channel."""


class Channel:
    """Messages, each a JSON text with its length before it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def send(self, message: Any) -> None:
        text = json.dumps(message).encode()
        data = memoryview(len(text).to_bytes(8, "big") + text)
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError as error:
            raise Gone("nothing more") from error

    def receive(self) -> Any:
        size = int.from_bytes(self._exactly(8), "big")
        if size > LARGEST:
            raise Broken(f"an answer of more than {LARGEST >> 20} MiB")
        try:
            return json.loads(self._exactly(size))
        except (ValueError, RecursionError) as error:
            raise Broken("an answer that is no message") from error

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = os.read(self._descriptor, min(count, 1 << 20))
            if not part:
                raise Gone("nothing more")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


_SCALARS: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__int__),
    (float, float.__float__),
    (str, str.__str__),
)
_COLLECTIONS: tuple[tuple[Any, str], ...] = ((list, "l"), (tuple, "t"), (set, "s"), (frozenset, "f"))


def encode(value: Any, refer: Callable[[Any], Any]) -> Any:
    """A value as JSON can hold it; `refer` makes something of what is no plain data."""
    if value is None or value is True or value is False:
        return value
    for scalar, plain in _SCALARS:
        if isinstance(value, scalar):
            return plain(value)
    for kind, mark in _COLLECTIONS:
        if isinstance(value, kind):
            return [mark, *(encode(item, refer) for item in kind.__iter__(value))]
    if isinstance(value, dict):
        return ["d", *([encode(key, refer), encode(item, refer)] for key, item in dict.items(value))]
    if isinstance(value, bytes):
        return ["b", bytes(value).hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, range):
        return ["r", value.start, value.stop, value.step]
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        return encode(value.tolist(), refer)
    return refer(value)


def decode(data: Any, resolve: Callable[[list[Any]], Any]) -> Any:
    """What `encode` was given; `resolve` gets the marks `o` and `y`.

    Raises:
        Broken: the data does not follow the rules above.
    """
    if not isinstance(data, list):
        if isinstance(data, dict):
            raise Broken("an answer that is no value")
        return data
    try:
        return _MARKS[data[0]](data[1:], resolve) if data[0] in _MARKS else resolve(data)
    except (TypeError, ValueError, IndexError, KeyError, RecursionError) as error:
        raise Broken("an answer that is no value") from error


def _items(data: list[Any], resolve: Callable[[list[Any]], Any]) -> list[Any]:
    return [decode(item, resolve) for item in data]


_MARKS: dict[str, Callable[[list[Any], Callable[[list[Any]], Any]], Any]] = {
    "l": _items,
    "t": lambda data, resolve: tuple(_items(data, resolve)),
    "s": lambda data, resolve: set(_items(data, resolve)),
    "f": lambda data, resolve: frozenset(_items(data, resolve)),
    "d": lambda data, resolve: {decode(key, resolve): decode(item, resolve) for key, item in data},
    "b": lambda data, resolve: bytes.fromhex(data[0]),
    "c": lambda data, resolve: complex(data[0], data[1]),
    "r": lambda data, resolve: range(*data),
}
