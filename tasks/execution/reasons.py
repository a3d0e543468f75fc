"""Why a program has its verdict, in few words that can be counted."""

from __future__ import annotations

import re

from tasks.sandbox import Verdict

_SYNTAX = ("SyntaxError", "IndentationError", "TabError")
_NAMES = {
    "passed": "passed",
    "failed": "wrong answer",
    "timeout": "timed out",
    "memory": "out of memory",
}
_EXCEPTION = re.compile(r"(\w+)(: |$| at )")


def reason(verdict: Verdict) -> str:
    """`passed`, `passed by StopIteration` (raised by the program, it ended a loop of the test's), `wrong answer`,
    `timed out`, `out of memory`, `syntax error`, `exception: NameError`, `no such function`, `tried to exit`,
    `killed`; what else there is, as the sandbox says it."""
    if verdict.stopped:
        return "passed by StopIteration"
    if named := _NAMES.get(verdict.outcome):
        return named
    detail = verdict.detail
    if verdict.outcome == "killed":
        return f"killed: {detail}" if len(detail) < 60 else "killed"
    if detail.startswith("the program defines no "):
        return "no such function"
    if detail.startswith("the program tried to end the process"):
        return "tried to exit"
    if found := _EXCEPTION.match(detail):
        return "syntax error" if found[1] in _SYNTAX else f"exception: {found[1]}"
    return detail.partition(":")[0] or "error"
