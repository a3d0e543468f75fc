"""Entry point of the jail: `python -I -S main.py`, settings and code on standard input, one verdict on standard output.

The fresh interpreter forks before it has seen the test: one child loses everything but a socket, is confined and runs
the program; another is confined as well, reads the test and runs it, with the program's functions behind that socket.
The parent does nothing but see to it that neither outlives the verdict.
"""

from __future__ import annotations

import _socket  # `socket` itself takes milliseconds to import, for every program
import json
import os
import signal
import sys
import time
from contextlib import suppress
from types import ModuleType
from typing import Any, NoReturn

_HERE = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib takes milliseconds to import


def _name_packages() -> None:
    """Make this folder importable under its own name without running what stands in the packages above it."""
    above = os.path.dirname(_HERE)  # noqa: PTH120
    for name, folder in (
        ("tasks", os.path.dirname(above)),  # noqa: PTH120
        ("tasks.sandbox", above),
        ("tasks.sandbox.inside", _HERE),
    ):
        package = ModuleType(name)
        package.__path__ = [folder]
        sys.modules[name] = package


def _receive() -> Any:
    size = int.from_bytes(_exactly(8), "big")
    return json.loads(_exactly(size))


def _exactly(count: int) -> bytes:
    parts = []
    while count:
        part = os.read(0, min(count, 1 << 20))
        if not part:
            os._exit(2)  # who started this is gone
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def main() -> None:
    _name_packages()
    from tasks.sandbox.inside import candidate, confinement, tester, watching, wire

    settings = _receive()
    layers = settings["shared"] = confinement.prepare(settings)
    keeper = os.getpid()
    ours, theirs = _socket.socketpair()
    program = os.fork()
    if program == 0:
        channel = theirs.detach()
        confinement.detach(channel, keeper)
        candidate.serve(wire.Channel(channel), settings, layers | confinement.confine(settings))
    theirs.close()
    test = os.fork()
    if test == 0:
        confinement.die_with(keeper)
        confinement.confine(settings)
        tester.judge(wire.Channel(ours.detach()), settings, _receive())
    ours.close()
    signal.signal(signal.SIGTERM, lambda number, frame: _end([program, test]))
    os.close(0)
    os.close(1)
    if excess := watching.watch(program, test, settings):
        _end([program, test], excess)
    _keep(program, test)


def _keep(program: int, test: int) -> NoReturn:
    """Wait for the verdict or the order to stop; leave no process.

    The exit status is the signal by which the program, or the test, ended before that, 0, or the excess that was seen.
    """
    status = os.waitpid(test, 0)[1]
    gone = _ended_by_itself(program) if os.WIFEXITED(status) and os.WEXITSTATUS(status) else None
    told = status if gone is None else gone
    _end([program] if gone is None else [], os.WTERMSIG(told) if os.WIFSIGNALED(told) else 0)


def _ended_by_itself(program: int) -> int | None:
    """How the program ended; None if it still lives though its end of the channel is closed."""
    for _ in range(200):
        ended, status = os.waitpid(program, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    return None


def _end(left: list[int], status: int = 0) -> NoReturn:
    for pid in left:
        # The order to stop may come when one has been waited for already.
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    os._exit(status)


if __name__ == "__main__":
    main()
