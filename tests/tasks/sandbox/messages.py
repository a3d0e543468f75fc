"""Programs that send messages of their own making in the place of answers, by chance, again the same from a seed."""

from __future__ import annotations

import json
import random
from typing import Any

from tasks.sandbox import Program
from tests.tasks.sandbox.test_forgery import SEND

_MARKS = [*"ltsfdbcriTnDFUqoy", "x", "", None, 1]
_PLAIN = [
    None,
    True,
    0,
    -1,
    2**63,
    1.5,
    1e308,
    float("inf"),
    float("nan"),
    "",
    "x",
    "\ud800",
    "\0",
    "ff",
    [],
    {},
    ["l"],
]
_TELLING = ["int64", "bool", "type", "1e9999999", "9" * 300, "StopIteration", "SystemExit", "UnicodeDecodeError", ["t"]]
_KEYS = ("value", "raised", "base", "text", "arguments", "ask", "reply", "names", "layers")
_TEST = "r = attack([1], lambda x: x)\nassert r is not None and str(r) != 'x' and repr(r) == 'secret' and r == 'secret'"


def programs(seed: int, count: int) -> list[Program]:
    """None of them can pass: what they send is never what the test looks for."""
    chance = random.Random(seed)
    return [
        Program(id=str(number), source=_source(chance), test=_TEST, entry_point="attack") for number in range(count)
    ]


def _source(chance: random.Random) -> str:
    def send(indent: str) -> str:
        return f"{indent}send(json.loads({json.dumps(json.dumps(_message(chance)))}))\n"

    early = "".join(send("") for _ in range(chance.randint(0, 1)))
    late = "".join(send("    ") for _ in range(chance.randint(1, 2)))
    return f"{SEND}{early}def attack(*given):\n{late}    return 1\n"


def _message(chance: random.Random) -> dict[str, Any]:
    return {key: _value(chance, 0) for key in _KEYS if chance.random() < 0.35}


def _value(chance: random.Random, depth: int) -> Any:
    if depth > 4 or chance.random() < 0.4:
        return chance.choice(_PLAIN + _TELLING)
    return [chance.choice(_MARKS), *(_value(chance, depth + 1) for _ in range(chance.randint(0, 4)))]
