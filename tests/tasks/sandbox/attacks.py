"""How attacks are run: a program whose `attack` returns what it got hold of, and a test that passes only if it did."""

from __future__ import annotations

import textwrap

from tasks.sandbox import Limits, Program, Verdict, jails


def attacked(source: str, gain: str = "True", seconds: float = 10, limits: Limits | None = None) -> Verdict:
    """The verdict on a program with the function `attack`; `passed` means that it returned `gain` (an expression)."""
    program = Program(
        id="attack",
        source=textwrap.dedent(source),
        test=f"assert attack() == {gain}",
        entry_point="attack",
    )
    return jails.judge(program, limits or Limits(seconds=seconds))


def body(statements: str) -> str:
    """A program whose `attack` runs these statements, and returns True if they raise nothing and return nothing else."""
    return f"import ctypes, os, socket, sys\ndef attack():\n{textwrap.indent(textwrap.dedent(statements), '    ')}\n    return True\n"
