"""Values between test and program as JSON: what arrives is plain data, whatever the sender made of itself.

Each value of a type with an own mark travels as `[mark, …]`: `l`ist, `t`uple, `s`et, `f`rozenset, `d`ictionary,
`b`ytes, `c`omplex, `r`ange, `i`nteger beyond 64 bits (in hexadecimal: a million decimal digits take seconds), built-in
`T`ype, numpy `n`umbers, and the library's `D`ecimal, `F`raction, `U`serList and de`q`ue. They are made again as what
they are, so that `==` is Python's own; of a class of the program's nothing is taken over. `o` stands for an object that
stays with the sender, `y` for one that the receiver has sent before.
"""

from __future__ import annotations

import builtins
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
    (int, lambda value: plain if -(2**63) <= (plain := int.__int__(value)) < 2**63 else ["i", hex(plain)]),
    (float, float.__float__),
    (str, str.__str__),
)
_TYPES = {name: value for name, value in vars(builtins).items() if isinstance(value, type)}
_LIBRARY: dict[tuple[str, str], Callable[[Any, Callable[[Any], Any]], list[Any]]] = {
    ("decimal", "Decimal"): lambda value, refer: ["D", str(value)],
    ("fractions", "Fraction"): lambda value, refer: ["F", hex(value.numerator), hex(value.denominator)],
    ("collections", "UserList"): lambda value, refer: ["U", *(encode(item, refer) for item in value.data)],
    ("collections", "deque"): lambda value, refer: ["q", value.maxlen, *(encode(item, refer) for item in value)],
    ("builtins", "dict_keys"): lambda value, refer: ["s", *(encode(item, refer) for item in value)],
    ("builtins", "dict_items"): lambda value, refer: ["s", *(encode(item, refer) for item in value)],
}
_INTEGERS = {f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)}
_NUMBERS = _INTEGERS | {"bool", "float16", "float32", "float64", "complex64", "complex128"}
"""Types of what numpy arrays hold that travel as arrays; others become lists."""
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
    if isinstance(value, (bytes, bytearray)):
        return ["b", bytes(value).hex()]
    if isinstance(value, complex):
        return ["c", value.real, value.imag]
    if isinstance(value, range):
        return ["r", value.start, value.stop, value.step]
    if isinstance(value, type) and _TYPES.get(value.__name__) is value:
        return ["T", value.__name__]
    kind = type(value)
    if library := _LIBRARY.get((kind.__module__, kind.__qualname__)):
        return library(value, refer)
    if kind.__module__ == "numpy" and hasattr(value, "tolist"):
        items = encode(value.tolist(), refer)
        if kind.__name__ == "ndarray" and (numbers := str(value.dtype)) in _NUMBERS:
            return ["n", numbers, list(value.shape), items]
        return items
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
    except (TypeError, ValueError, IndexError, KeyError, RecursionError, ArithmeticError, AttributeError) as error:
        raise Broken("an answer that is no value") from error


def _items(data: list[Any], resolve: Callable[[list[Any]], Any]) -> list[Any]:
    return [decode(item, resolve) for item in data]


def _array(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    numbers, shape, items = data
    values = decode(items, resolve)
    try:
        import numpy as np
    except ImportError:
        return values
    if numbers not in _NUMBERS:
        raise Broken("an array of something else than numbers")
    return np.array(values, dtype=numbers).reshape(shape)


def _decimal(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    from decimal import Decimal, InvalidOperation

    try:
        return Decimal(data[0])
    except InvalidOperation as error:
        raise ValueError(data[0]) from error


def _fraction(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    from fractions import Fraction

    return Fraction(int(data[0], 16), int(data[1], 16))


def _deque(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    from collections import deque

    return deque(_items(data[1:], resolve), data[0])


def _user_list(data: list[Any], resolve: Callable[[list[Any]], Any]) -> Any:
    from collections import UserList

    return UserList(_items(data, resolve))


_MARKS: dict[str, Callable[[list[Any], Callable[[list[Any]], Any]], Any]] = {
    "l": _items,
    "t": lambda data, resolve: tuple(_items(data, resolve)),
    "s": lambda data, resolve: set(_items(data, resolve)),
    "f": lambda data, resolve: frozenset(_items(data, resolve)),
    "d": lambda data, resolve: {decode(key, resolve): decode(item, resolve) for key, item in data},
    "b": lambda data, resolve: bytes.fromhex(data[0]),
    "c": lambda data, resolve: complex(data[0], data[1]),
    "r": lambda data, resolve: range(*data),
    "i": lambda data, resolve: int(data[0], 16),
    "T": lambda data, resolve: _TYPES[data[0]],
    "n": _array,
    "D": _decimal,
    "F": _fraction,
    "U": _user_list,
    "q": _deque,
}
