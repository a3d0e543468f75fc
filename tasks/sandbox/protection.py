"""What protection this machine gives, found out by trying."""

from __future__ import annotations

import sys
from functools import cache

from artifacts.schema import Protection
from tasks.sandbox.config import Limits
from tasks.sandbox.jails import Program, judge

_REQUIRED = ("limits", "user", "landlock", "seccomp")
_TRY = """
import os, socket

def refused():
    left = []
    for name, action in (
        ("reading outside the scratch folder", lambda: open("/etc/passwd").close()),
        ("writing outside the scratch folder", lambda: open("../beside", "w").close()),
        ("opening a socket", lambda: socket.socket().close()),
        ("starting a process", lambda: os.fork() or os._exit(0)),
        ("sending a signal", lambda: os.kill(os.getppid(), 0)),
    ):
        try:
            action()
        except OSError:
            continue
        left.append(name)
    return left
"""


@cache
def probe() -> Protection:
    """Run a program that tries what it must not, and say which layers hold."""
    if sys.platform != "linux":
        return Protection(level="none", sufficient=False, problem=f"no sandbox for {sys.platform}")
    program = Program(id="probe", source=_TRY, test="left = refused()\nassert left == [], left", entry_point="refused")
    verdict = judge(program, Limits())
    missing = [name for name in _REQUIRED if name not in verdict.layers]
    problems = [f"without {', '.join(missing)}"] if missing else []
    if not verdict.passed:
        problems.append(f"the probe's program was not held: {verdict.detail}")
    return Protection(
        layers=verdict.layers,
        level="none" if not verdict.layers else "strong" if verdict.passed and not missing else "weak",
        sufficient=verdict.passed and not missing,
        problem="; ".join(problems),
    )
