"""Every end of a program is a verdict on that program, and the next one is judged as if it had not been."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import sandbox
from tasks.sandbox import Program, jails
from tasks.sandbox import config as settings
from tests.tasks.sandbox.attacks import attacked
from tests.tasks.sandbox.messages import programs
from tests.tasks.sandbox.ordinary import ordinary
from tests.tasks.sandbox.test_forgery import SEND

_DEEP = "import os\nfor _ in range({0}): os.mkdir('d', {1}); os.chdir('d')\ndef attack(): return 1"
_RAISING = "class E(Exception):\n    {0}\ndef attack(): raise E('x')"
ENDS = {
    "deep folders": _DEEP.format(1200, "0o700"),
    "deeper folders": _DEEP.format(3000, "0o700"),
    "closed folders": _DEEP.format(1200, "0o300"),
    "names": "import os\nfor n in (b'\\xff', b'\\n', b'-rf', b'\\x1b[31m', b'x' * 255): open(n, 'w'); os.mkdir(n + b'd' if len(n) < 9 else b'e', 0)\n"
    "def attack(): return 1",
    "huge layers": SEND + "send({'layers': {str(n): 'x' * 3000 for n in range(100)}, 'names': {'attack': None}})\n",
    "huge layer": SEND + "send({'layers': {'landlock': 'x' * 300000}, 'names': {'attack': None}})\n",
    "layers of layers": SEND + "send({'layers': [[[1]]], 'names': 7})\n",
    "names of another kind": SEND + "send({'layers': {}, 'names': {'attack': [{}]}})\n",
    "names without end": SEND + "send({'layers': {}, 'names': {'x' * n: 'x' * n for n in range(3000)}})\n",
    "a name that is none": SEND + "send({'raised': 'x\\0y', 'base': '\\ud800', 'text': ['\\ud800']})\n",
    "raised is no text": SEND + "send({'raised': {'a': [1]}, 'base': {}, 'text': 7})\n",
    "nested message": SEND + "send(b'{\"names\":' * 10**5)\n",
    "numbers without end": SEND + "send(b'{\"layers\": ' + b'9' * 10**6 + b'}')\n",
    "surrogate": "def attack(): raise ValueError('\\ud800')",
    "surrogates in a name": "E = type('E', (Exception,), {'__module__': 1})\nE.__name__ = 'x' * 10**6\ndef attack(): raise E('\\udfff' * 10**6)",
    "control characters": "def attack(): raise ValueError('\\x1b]0;x\\x07\\x1b[2J')",
    "text that raises": _RAISING.format("def __str__(self): raise SystemExit"),
    "text that does not end": _RAISING.format("def __str__(self):\n        while True: pass"),
    "text without end": _RAISING.format("def __str__(self): return 'x' * 10**8"),
    "text of another kind": _RAISING.format("def __str__(self): return 7"),
    "class that raises": "class M(type):\n    __name__ = property(lambda c: 1 / 0)\nclass E(Exception, metaclass=M): pass\ndef attack(): raise E",
    "raised while loading": "raise ValueError('\\ud800')",
    "generator exit": "def attack(): raise GeneratorExit",
    "interrupt": "def attack(): raise KeyboardInterrupt",
    "base exception": "class E(BaseException): pass\ndef attack(): raise E",
    "group": "def attack(): raise BaseExceptionGroup('x', [SystemExit()])",
    "exit of a thread": "import os, threading\ndef attack():\n    threading.Thread(target=os._exit, args=(0,)).start()\n    threading.Event().wait()",
    "exit codes": "import os\ndef attack(): os._exit(201)",
    "exit hooks": "import atexit, sys\natexit.register(lambda: 1 / 0)\ndef attack(): sys.exit(3)",
    "collector": "import gc\nclass G:\n    def __del__(self): raise SystemExit\nG()\ngc.set_threshold(1)\ngc.callbacks.append(lambda *a: 1 / 0)\n"
    "def attack(): x = G(); x.x = x; raise ValueError",
    "signal to itself": "import ctypes\ndef attack(): ctypes.string_at(0)",
    "abort": "import ctypes\ndef attack(): ctypes.CDLL(None).abort()",
    "closed files": "import os\ndef attack(): os.closerange(0, 99); return 2",
    "other channel": "import os\ndef attack():\n    r, w = os.pipe()\n    for n in range(3, 9): os.dup2(r, n)",
    "recursion": "import sys\nsys.setrecursionlimit(2**31 - 1)\ndef attack(): return attack()",
    "deep answer": "def attack():\n    x = []\n    for _ in range(900): x = [x]\n    return x",
    "cycle": "def attack():\n    x = []\n    x.append(x)\n    return x",
    "long number": "def attack(): return 10 ** 10**6",
    "not a number": "def attack(): return float('nan')",
    "no text": "\ud800",
    "not text": "def attack(): return '\ud800'",
    "nothing": "def attack(): return 1\n\0",
}  # fmt: skip
SLOW = ("text that does not end", "long number", "numbers without end", "recursion")


@pytest.mark.parametrize("way", ENDS)
def test_every_end_is_a_verdict(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(settings, "NAMESPACES", len(way) % 2 == 0)
    tmp_path.chmod(0o755)
    verdict = attacked(ENDS[way], "2", seconds=1 if way in SLOW else 10)
    assert verdict.outcome != "passed" and verdict.detail.isprintable() and len(verdict.model_dump_json()) < 9000
    assert verdict.outcome == "timeout" or way not in SLOW[:1]
    assert list(tmp_path.iterdir()) == []


def test_the_others_are_judged_as_ever() -> None:
    right = Program(id="right", source="def attack(): return 2", test="assert attack() == 2", entry_point="attack")
    wrong = [right.model_copy(update={"id": way, "source": ENDS[way]}) for way in ENDS if way not in SLOW]
    told = list(sandbox.run([right, *wrong, right], workers=4))
    assert [one.passed for one in told] == [True, *(False for _ in wrong), True]


def test_an_ordinary_users_folders_are_gone_too() -> None:
    code = """
import json, os
from artifacts import private
from tasks.sandbox import config
from tests.tasks.sandbox.test_ends import *
told = []
for config.NAMESPACES in (True, False):
    told += [attacked(ENDS[way], "2").outcome for way in ENDS if way.endswith(("folders", "names", "layers"))]
print(json.dumps([told, [*private.temporary_root().glob("codetune-sandbox-*")]]))
"""
    told, left = json.loads(ordinary(code))
    assert len(told) == 12 and "passed" not in told and left == []


MINUTES = (
    pytest.mark.slow,
    pytest.mark.skipif("not config.getoption('-m')", reason="takes a minute; run it with -m slow"),
)


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=MINUTES)])
def test_no_message_of_a_programs_own_making_is_more_than_a_verdict(count: int) -> None:
    told = list(sandbox.run(programs(count, count), sandbox.Limits(seconds=3)))
    assert [one.id for one in told] == [str(number) for number in range(count)]
    assert {one.outcome for one in told} <= {"error", "failed", "memory", "timeout", "killed"}
    assert all(one.detail.replace("\n", "").isprintable() for one in told)


CAUGHT = {
    "exit": ("import os\ndef attack(): os._exit(0)", "error"),
    "broken answer": (SEND + "def attack(): send(b'[')", "error"),
    "time": ("import time\ndef attack(): time.sleep(60)", "timeout"),
    "system exit": ("def attack(): raise SystemExit(0)", "error"),
    "error": ("def attack(): raise ValueError", "passed"),
}


@pytest.mark.parametrize("way", CAUGHT)
def test_a_test_that_expects_an_error_takes_no_other_end_for_it(way: str) -> None:
    source, outcome = CAUGHT[way]
    test = "try:\n    attack()\n    raise AssertionError\nexcept Exception:\n    pass"
    program = Program(id="p", source=source, test=test, entry_point="attack")
    assert jails.judge(program, sandbox.Limits(seconds=1)).outcome == outcome
    if way != "system exit":  # that is caught in plain Python, too
        bare = program.model_copy(update={"test": test.replace("except Exception", "except")})
        assert jails.judge(bare, sandbox.Limits(seconds=1)).outcome == outcome


@pytest.mark.parametrize(
    ("source", "test", "outcome", "stopped"),
    [
        ("def f(x): raise StopIteration", "assert all(map(lambda x: f(x) == x, [1, 2]))", "passed", True),
        ("def f(x): raise StopIteration", "assert list(map(f, [1, 2])) == [1, 2]", "failed", False),
        ("def f(x): raise StopIteration", "f(1)", "error", False),
        ("class E(StopIteration): pass\ndef f(x): raise E", "for x in map(f, [1]): assert x", "passed", True),
        ("def f(x): return x", "assert all(map(lambda x: f(x) == x, [1, 2]))", "passed", False),
        ("def f(x): yield x", "assert [*f(1)] == [1]", "passed", False),
    ],
)
def test_what_stops_a_loop_of_the_test_passes_as_in_plain_python_and_is_told(
    source: str, test: str, outcome: str, stopped: bool
) -> None:
    verdict = jails.judge(Program(id="p", source=source, test=test, entry_point="f"), sandbox.Limits())
    assert (verdict.outcome, verdict.stopped) == (outcome, stopped)
