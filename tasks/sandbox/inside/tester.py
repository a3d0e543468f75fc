"""The test's side: it runs the test with the program's names standing for calls through the channel.

A value that comes back is plain data, compared here; an object of the program's own stays there, and never equals
anything but another such object. The one word that leaves this process is the verdict.
"""

from __future__ import annotations

import builtins
import io
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import CodeType, FrameType, ModuleType
from typing import Any, NoReturn

from tasks.sandbox.inside import packages, wire

_TEST = "<test>"
_LAYERS = ("namespaces", "disk", "limits", "user", "landlock", "seccomp")


class _Late(BaseException):
    """The time is up."""

    happened = False


def judge(channel: wire.Channel, settings: dict[str, Any], test: dict[str, str]) -> NoReturn:
    """Run the test against the program and write the verdict. The process ends here, with 1 if the program was gone."""
    verdicts = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    packages.prepare(settings)
    signal.signal(signal.SIGALRM, _late)
    signal.setitimer(signal.ITIMER_REAL, settings["seconds"])
    verdict = _verdict(RemoteProgram(channel), test)
    signal.setitimer(signal.ITIMER_REAL, 0)
    os.write(verdicts, json.dumps(verdict).encode())
    os._exit(verdict["outcome"] == "gone")


def _late(number: int, frame: FrameType | None) -> None:
    _Late.happened = True
    raise _Late


def _verdict(program: RemoteProgram, test: dict[str, str]) -> dict[str, Any]:
    try:
        outcome, detail = _tried(program, test)
        # A test that catches everything has not caught these.
        if _Late.happened:
            raise _Late
        if program.broken:
            raise program.broken
    except _Late:
        what = "the program did not answer in time" if program.asked else "the test itself did not end in time"
        outcome, detail = "timeout", what
    except wire.Broken as broken:
        outcome, detail = "gone" if isinstance(broken, wire.Gone) else "error", f"the program sent {broken}"
    except MemoryError:
        outcome, detail = "memory", "no memory left"
    except BaseException as error:
        ended = error is program.failure and not isinstance(error, Exception)
        outcome, detail = "error", f"{'the program tried to end the process: ' if ended else ''}{_described(error)}"
    return {
        **{"outcome": outcome, "detail": detail[:500], "layers": program.layers},
        "stopped": outcome == "passed" and program.stopped,
    }


def _tried(program: RemoteProgram, test: dict[str, str]) -> tuple[str, str]:
    failure = program.load()
    if failure is not None:
        return ("memory" if isinstance(failure, MemoryError) else "error"), _described(failure)
    module = ModuleType("test")
    sys.modules["test"] = module
    names = module.__dict__
    try:
        exec(compile(test["prelude"], "<prelude>", "exec"), names)
        code = compile(test["test"], _TEST, "exec")
    except Exception as error:
        return "error", f"the test cannot be run: {_described(error)}"
    if test["entry_point"] and test["entry_point"] not in program.names:
        return "error", f"the program defines no {test['entry_point']!r}"
    for name in _mentioned(code) & set(program.names):
        if name == test["entry_point"] or not (name in names or hasattr(builtins, name)):
            names[name] = program.named(name)
    try:
        exec(code, names)
    except AssertionError as error:
        if error is program.failure:
            return "error", _described(error)
        return "failed", ": ".join(filter(None, (_where(error, test["test"]), str(error))))
    except Exception as error:
        if isinstance(error, MemoryError):
            return "memory", "no memory left"
        if isinstance(error, TimeoutError) and error is not program.failure:
            return "timeout", str(error)  # the test's own clock
        return "error", _described(error) + (f" at {line}" if (line := _where(error, test["test"])) else "")
    return "passed", ""


def _mentioned(code: CodeType) -> set[str]:
    """Every global name that a code object and those within it use."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_mentioned, inner))


def _described(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception:  # a class of the test's own
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _where(error: BaseException, test: str) -> str:
    """The innermost line of the test that the error went through."""
    line, trace = 0, error.__traceback__
    while trace:
        line = trace.tb_lineno if trace.tb_frame.f_code.co_filename == _TEST else line
        trace = trace.tb_next
    lines = list(io.StringIO(test, newline=None))  # as Python counts them
    return lines[line - 1].strip()[:200] if 0 < line <= len(lines) else ""


class RemoteProgram:
    """The program on the other side of the channel."""

    def __init__(self, channel: wire.Channel) -> None:
        self._channel, self._callbacks = channel, list[Callable[..., Any]]()
        self.asked, self.layers, self.names = True, dict[str, str](), dict[str, str | None]()
        self.failure: BaseException | None = None
        self.broken: wire.Broken | None = None
        self.stopped = False
        """Whether it raised what ends a loop of the test's before the last case, as `map` and `next` take it."""
        self._exceptions: dict[str, type[BaseException]] = {}

    def load(self) -> BaseException | None:
        """Wait until the program is loaded. Returns what it raised, if it did."""
        message = self._received()
        self.asked = False
        layers, names = message.get("layers"), message.get("names")
        if isinstance(layers, dict):
            self.layers = {name: str(layers[name])[:200] for name in _LAYERS if name in layers}
        if "raised" in message:
            return self._failure(message)
        if not isinstance(names, dict):
            raise wire.Broken("no names")
        self.names = names
        return None

    def named(self, name: str) -> Any:
        """What the program calls by this name."""
        base = self.names[name]
        if base is not None:
            return self._exception(name, base)
        return self.ask("name", name=name)

    def ask(self, kind: str, number: int = 0, arguments: tuple[Any, ...] = (), **more: Any) -> Any:
        """Ask, answer the program's calls meanwhile, and return the value or raise what was raised."""
        self.asked = True
        sent = wire.encode(arguments, self._refer)
        self._channel.send({"ask": kind, "object": number, "arguments": sent, **more})
        message = self._received()
        while "ask" in message:
            self._call_back(message)
            message = self._received()
        self.asked = False
        if "raised" in message:
            self.failure = self._failure(message)
            self.stopped |= isinstance(self.failure, (StopIteration, StopAsyncIteration))
            raise self.failure
        if "arguments" in message and message["arguments"] != sent:
            _take_over(arguments, self._decoded(message["arguments"]))
        return self._decoded(message.get("value"))

    def call(self, number: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        return self.ask("call", number, arguments, named=wire.encode(named, self._refer))

    def _received(self) -> dict[str, Any]:
        try:
            message = self._channel.receive()
            if not isinstance(message, dict):
                raise wire.Broken("an answer that is no message")
        except wire.Broken as broken:
            self.broken = broken
            raise
        return message

    def _call_back(self, message: dict[str, Any]) -> None:
        number = message["ask"]
        if not (type(number) is int and 0 <= number < len(self._callbacks)):
            raise wire.Broken("a call of what it was not given")
        self.asked = False
        try:
            value = self._callbacks[number](*self._decoded(message.get("arguments", ["t"])))
            reply = {"reply": wire.encode(value, self._refer)}
        except Exception as error:
            reply = {"reply": None, "raised": type(error).__name__}
        self.asked = True
        self._channel.send(reply)

    def _refer(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return ["y", object.__getattribute__(value, "_number")]
        if callable(value):
            self._callbacks.append(value)
            return ["o", len(self._callbacks) - 1]
        raise TypeError(f"a test cannot hand a {type(value).__name__} to the program")

    def _decoded(self, data: Any) -> Any:
        return wire.decode(data, self._resolve)

    def _resolve(self, data: list[Any]) -> Any:
        if data[0] == "y":
            return self._callbacks[data[1]]
        return Remote(self, int(data[1]), str(data[2]))

    def _exception(self, name: str, base: Any) -> type[BaseException]:
        known = getattr(builtins, str(base), Exception)
        usable = isinstance(known, type) and issubclass(known, BaseException)
        parent = known if usable else Exception
        if name == base and usable:
            return parent
        return self._exceptions.setdefault(name, type(name, (parent,), {}))

    def _failure(self, message: dict[str, Any]) -> BaseException:
        name, base, text = (message.get(part) for part in ("raised", "base", "text"))
        name = name[:100] if isinstance(name, str) and name.isidentifier() else "Exception"
        text = text if isinstance(text, str) else ""
        try:
            return self._exception(name, base)(text)
        except TypeError:  # UnicodeDecodeError and its like want more
            return RuntimeError(f"{name}: {text}")


def _take_over(arguments: tuple[Any, ...], changed: Any) -> None:
    """Show the test what the program did to lists, dictionaries and sets that it was given."""
    if not (isinstance(changed, tuple) and len(changed) == len(arguments)):
        return
    for ours, theirs in zip(arguments, changed, strict=True):
        if type(ours) is not type(theirs):
            continue
        if isinstance(ours, list):
            ours[:] = theirs
        elif isinstance(ours, (dict, set)):
            ours.clear()
            ours.update(theirs)


class Remote:
    """An object of the program's own. What is asked of it is answered there; comparing with data is not."""

    def __init__(self, program: RemoteProgram, number: int, kind: str) -> None:
        for name, value in (("_program", program), ("_number", number), ("_kind", kind)):
            object.__setattr__(self, name, value)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return object.__getattribute__(self, "_program").call(
            object.__getattribute__(self, "_number"), arguments, named
        )

    def __getattr__(self, name: str) -> Any:
        if name[:2] == "__":  # copying and inspecting look for these; they have no business there
            raise AttributeError(name)
        return _ask(self, "attribute", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "assign", name, value)

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iterate")
        while isinstance(iterator, Remote) and (item := _ask(iterator, "advance")):
            yield item[0]

    def __next__(self) -> Any:
        for item in _ask(self, "advance"):
            return item
        raise StopIteration

    def __len__(self) -> Any:
        return _ask(self, "length")

    def __getitem__(self, key: Any) -> Any:
        return _ask(self, "item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        _ask(self, "put", key, value)

    def __bool__(self) -> bool:
        return _ask(self, "truth") is True

    def __str__(self) -> str:
        return str(_ask(self, "text"))

    def __repr__(self) -> str:
        return str(_ask(self, "represent"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and _ask(self, "equal", other) is True

    def __lt__(self, other: object) -> bool:
        if not isinstance(other, Remote):
            return NotImplemented
        return _ask(self, "less", other) is True

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_number"))


def _ask(remote: Remote, kind: str, *arguments: Any) -> Any:
    program, number = (object.__getattribute__(remote, name) for name in ("_program", "_number"))
    return program.ask(kind, number, arguments)
