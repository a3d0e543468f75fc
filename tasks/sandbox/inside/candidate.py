"""The program's side: it loads the program and answers what the test asks. Nothing that it says is trusted."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any, NoReturn

from tasks.sandbox.inside import packages, wire

_NAME = "program"


def serve(channel: wire.Channel, settings: dict[str, Any], layers: dict[str, str]) -> NoReturn:
    """Load the program, then answer until the test has no more questions. The process ends here."""
    packages.prepare(settings)
    sys.set_int_max_str_digits(0)
    server = _Server(channel)
    try:
        server.load(settings["source"], layers)
        while True:
            server.answer(channel.receive())
    except BaseException:
        os._exit(1)


class _Server:
    def __init__(self, channel: wire.Channel) -> None:
        self._channel, self._objects = channel, list[Any]()
        self._module = ModuleType(_NAME)

    def load(self, source: str, layers: dict[str, str]) -> None:
        sys.modules[_NAME] = self._module
        try:
            exec(compile(source, "<program>", "exec"), self._module.__dict__)
            names = {name: _exception_base(value) for name, value in vars(self._module).items() if name[:2] != "__"}
            self._channel.send({"layers": layers, "names": names})
        except BaseException as error:
            self._channel.send({"layers": layers, **_raised(error)})

    def answer(self, question: dict[str, Any]) -> None:
        try:
            self._channel.send(self._answered(question))
        except wire.Broken:
            raise
        except BaseException as error:
            self._channel.send(_raised(error))

    def _answered(self, question: dict[str, Any]) -> dict[str, Any]:
        kind = question["ask"]
        if kind == "name":
            return {"value": self._encoded(getattr(self._module, question["name"]))}
        target = self._objects[question["object"]]
        if kind == "call":
            arguments, named = (self._decoded(question[part]) for part in ("arguments", "named"))
            value = target(*arguments, **named)
            encoded = self._encoded(value)
            return {"value": encoded, "arguments": self._encoded(arguments)}
        return {"value": self._encoded(_OPERATIONS[kind](target, *self._decoded(question["arguments"])))}

    def _encoded(self, value: Any) -> Any:
        return wire.encode(value, self._refer)

    def _refer(self, value: Any) -> Any:
        if isinstance(value, _Callback):
            return ["y", value.number]
        self._objects.append(value)
        return ["o", len(self._objects) - 1, type(value).__name__]

    def _decoded(self, data: Any) -> Any:
        return wire.decode(data, self._resolve)

    def _resolve(self, data: list[Any]) -> Any:
        return self._objects[data[1]] if data[0] == "y" else _Callback(self, data[1])

    def call_back(self, number: int, arguments: tuple[Any, ...]) -> Any:
        self._channel.send({"ask": number, "arguments": self._encoded(arguments)})
        while "reply" not in (message := self._channel.receive()):
            self.answer(message)
        if "raised" in message:
            raise RuntimeError(message["raised"])
        return self._decoded(message["reply"])


class _Callback:
    """A function of the test that was handed to the program."""

    def __init__(self, server: _Server, number: int) -> None:
        self.number, self._server = number, server

    def __call__(self, *arguments: Any) -> Any:
        return self._server.call_back(self.number, arguments)


def _advance(target: Any) -> Any:
    try:
        return (next(target),)
    except StopIteration:
        return ()


_OPERATIONS: dict[str, Callable[..., Any]] = {
    "attribute": getattr,
    "assign": setattr,
    "iterate": lambda target: iter(target),
    "advance": _advance,
    "length": len,
    "item": lambda target, key: target[key],
    "put": lambda target, key, value: target.__setitem__(key, value),
    "truth": bool,
    "text": str,
    "represent": repr,
    "equal": lambda target, other: bool(target == other),
    "less": lambda target, other: bool(target < other),
}


def _exception_base(value: Any) -> str | None:
    """The name of the built-in exception that a class comes from; None for anything else."""
    if not (isinstance(value, type) and issubclass(value, BaseException)):
        return None
    return next(kind.__name__ for kind in value.__mro__ if kind.__module__ == "builtins")


def _raised(error: BaseException) -> dict[str, Any]:
    if isinstance(error, RecursionError):
        text = "maximum recursion depth exceeded"
    else:
        try:
            text = str(error)[:500]
        except BaseException:
            text = ""
    return {"raised": type(error).__name__, "base": _exception_base(type(error)), "text": text}
