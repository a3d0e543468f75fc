"""Entry point of the jail: `python -I -S main.py`, settings and code on standard input, one verdict on standard output.

The fresh interpreter forks before it has seen the test. The child loses everything but one socket, is confined and
runs the program; the parent is confined as well and runs the test, with the program's functions behind that socket.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from types import ModuleType
from typing import Any

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
    from tasks.sandbox.inside import candidate, confinement, tester, wire

    settings = _receive()
    layers = confinement.prepare(settings)
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        ours.close()
        channel = theirs.detach()
        confinement.detach(channel, die_with=os.getppid())
        layers |= confinement.confine(settings)
        candidate.serve(wire.Channel(channel), settings, layers)
    theirs.close()
    confinement.confine(settings)
    tester.judge(wire.Channel(ours.detach()), pid, settings, _receive())


if __name__ == "__main__":
    main()
