"""A library that reads a person's file in a child process, which may take so much time and memory and no more.

For what nothing else bounds: a regular expression that explodes, a description that stands for a billion parts. The
child ends with an answer, with an `InputError`, or with its limits. As a script: `python -m tasks.processes.bounded
<module>:<function> <arguments as JSON>`.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from artifacts.errors import InputError
from artifacts.reading import blamed_on
from tasks.processes.child import die_with

SECONDS = 60
"""Of computing. Libraries take up to ten of them to be imported."""
MEMORY = 6 << 30
"""Bytes of data."""
WAIT = 8
"""How many times longer it may take where the cores are busy."""


def ask(function: str, path: Path, *arguments: str, field: str, remedy: str, seconds: int = SECONDS) -> Any:
    """What a function makes of a file: `module:name`, called with the path and the arguments, returns JSON.

    Raises:
        InputError: what it raises, or that it did not come to an end within its limits.
    """
    call = [sys.executable, "-P", "-m", "tasks.processes.bounded", function, json.dumps([str(path), *arguments])]
    limits = json.dumps({"seconds": seconds, "parent": os.getpid(), "field": field, "remedy": remedy})
    try:
        done = subprocess.run(
            [*call, limits], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds * WAIT, check=False
        )
        answer = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else None
    except (subprocess.TimeoutExpired, ValueError, IndexError):
        answer = None
    if answer is None:
        raise InputError(
            f"{path} cannot be used: reading it takes more than {seconds} s or {MEMORY >> 30} GiB, or ends the process",
            field=field,
            remedy=remedy,
        )
    if "fault" in answer:
        raise RuntimeError(answer["fault"])
    if "problem" in answer:
        raise InputError(answer["problem"], field=answer["field"], remedy=answer["remedy"])
    return answer["result"]


def _serve(function: str, arguments: list[str], limits: dict[str, Any]) -> dict[str, Any]:
    die_with(limits["parent"])
    resource.setrlimit(resource.RLIMIT_CPU, (limits["seconds"], limits["seconds"] + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    module, _, name = function.partition(":")
    path = Path(arguments[0])
    try:
        called = getattr(importlib.import_module(module), name)
        with blamed_on(path, field=limits["field"], remedy=limits["remedy"]):
            return {"result": called(path, *arguments[1:])}
    except InputError as error:
        return {"problem": error.problem, "field": error.field, "remedy": error.remedy}
    except Exception:  # no fault of the file
        return {"fault": traceback.format_exc()}


if __name__ == "__main__":
    answer = _serve(sys.argv[1], json.loads(sys.argv[2]), json.loads(sys.argv[3]))
    sys.stdout.write("\n" + json.dumps(answer) + "\n")
    sys.stdout.flush()
    os._exit(0)
