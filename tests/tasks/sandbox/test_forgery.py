"""Attacks on the verdict: success is what the test saw, whatever the program says, patches or does not say."""

from __future__ import annotations

import secrets
import textwrap

import pytest

from tests.tasks.sandbox.attacks import attacked

SEND = """
import json, os
def send(message):
    text = json.dumps(message).encode() if not isinstance(message, bytes) else message
    for number in range(3, 64):
        try:
            os.write(number, len(text).to_bytes(8, "big") + text)
        except OSError:
            pass
"""
FORGERIES = {
    "marker": "print('passed', 'OK', 'success')\nprint('{\"outcome\": \"passed\"}')\ndef attack(): pass",
    "exit": "import sys\nsys.exit(0)",
    "hard exit": "import os\nos._exit(0)",
    "exit when called": "def attack():\n    import os\n    os._exit(0)",
    "exit as exception": "def attack(): raise SystemExit(0)",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef attack(): exit(0)",
    "always equal": "class E:\n    __eq__ = lambda *a: True\n    __hash__ = None\ndef attack(): return E()",
    "equal number": "class E(int):\n    __eq__ = lambda *a: True\ndef attack(): return E(1)",
    "equal text": "class E(str):\n    __eq__ = lambda *a: True\ndef attack(): return E()",
    "equal list": "class E(list):\n    __eq__ = lambda *a: True\ndef attack(): return E()",
    "equal fraction": "from fractions import Fraction\nclass E(Fraction):\n    __eq__ = lambda *a: True\n"
    "    __hash__ = None\ndef attack(): return E(1)",
    "equal user list": "from collections import UserList\nclass E(UserList):\n    __eq__ = lambda *a: True\n"
    "def attack(): return E()",
    "equal by another's name": "class E:\n    __eq__ = lambda *a: True\n    data = ()\n"
    "E.__module__, E.__qualname__ = 'collections', 'UserList'\ndef attack(): return E()",
    "equal number in hexadecimal": SEND + "def attack():\n    send({'value': ['i', 'right']})",
    "equal array": SEND + "def attack():\n    send({'value': ['n', 'object', [1], ['l', 'right']]})",
    "equal type": "class E(type):\n    __eq__ = lambda *a: True\n    __hash__ = None\n"
    "class int(metaclass=E): pass\ndef attack(): return int",
    "equal within": "class E:\n    __eq__ = lambda *a: True\ndef attack(): return [E()]",
    "assertion": "import builtins\nclass AssertionError(BaseException): pass\nbuiltins.AssertionError = AssertionError\n"
    "def attack(): pass",
    "builtins": "import builtins\nfor name in ('isinstance', 'len', 'all', 'any', 'abs', 'sorted'):\n"
    "    setattr(builtins, name, lambda *a, **k: True)\ndef attack(): pass",
    "json": 'import json\njson.dumps = lambda *a, **k: \'{"value": "right"}\'\ndef attack(): pass',
    "trace": "import sys\nsys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\ndef attack(): pass",
    "frames": "import sys\ndef attack():\n    frame = sys._getframe()\n    while frame:\n"
    "        frame.f_globals.update(check=None, AssertionError=ValueError)\n        frame = frame.f_back",
    "harness": "import sys\nfor module in list(sys.modules.values()):\n    if 'sandbox' in getattr(module, '__name__', ''):\n"
    "        for name in list(vars(module)):\n            try: setattr(module, name, lambda *a, **k: True)\n"
    "            except Exception: pass\ndef attack(): pass",
    "garbage": "import gc\nfor o in gc.get_objects():\n    if isinstance(o, dict) and 'outcome' in o: o['outcome'] = 'passed'\n"
    "def attack(): pass",
    "verdict sent": SEND + "send({'outcome': 'passed', 'detail': '', 'layers': {}})\ndef attack(): pass",
    "answer sent": SEND + "send({'layers': {}, 'names': {'attack': None}})\nsend({'value': None})\ndef attack(): pass",
    "no message": SEND + "def attack():\n    send(b'[' * 10**5)",
    "no value": SEND + "def attack():\n    send({'value': ['d', 1]})",
    "a call not given": SEND + "def attack():\n    send({'ask': 7, 'arguments': ['t']})",
    "a call by name": SEND + "def attack():\n    send({'ask': '__class__', 'arguments': ['t']})",
    "endless answer": "import os\ndef attack():\n    for n in range(3, 64):\n        try: os.write(n, b'\\x7f' + bytes(7))\n"
    "        except OSError: pass",
    "closed channel": "import os\nos.closerange(0, 64)\ndef attack(): pass",
    "late definition": "import threading\nthreading.Timer(0.1, globals().update, [{'attack': lambda: 1}]).start()",
    "exception equal": "class E(Exception):\n    __eq__ = lambda *a: True\ndef attack(): raise E('right')",
    "no function": "attack = None",
    "no code": "",
    "encoding": "# coding: utf-7\ndef attack(): pass",
    "surrogate": "def attack(): return '\\ud800'",
}


@pytest.mark.parametrize("way", FORGERIES)
def test_no_verdict_is_forged(way: str) -> None:
    secret = secrets.token_hex()
    verdict = attacked(FORGERIES[way], repr(secret))
    assert verdict.outcome in ("failed", "error", "killed"), verdict
    assert verdict.detail


_FIND = """
import ctypes, gc, os, re, sys
NEEDLE = re.compile(''.join(['hidden', '-[0-9a-f]{64}']))
def found(text):
    match = NEEDLE.search(str(text))
    if match:
        raise KeyError(match[0])
"""
SEARCHES = {
    "objects": "for o in gc.get_objects():\n    if type(o) in (str, list, dict, tuple): found(o)",
    "frames": "frame = sys._getframe()\nwhile frame:\n    found(frame.f_locals); found(frame.f_globals); frame = frame.f_back",
    "modules": "for module in list(sys.modules.values()): found(vars(module))",
    "memory": "found(open('/proc/self/mem', 'rb').read(99))",
    "judge's memory": "found(open(f'/proc/{os.getppid()}/mem', 'rb').read(99))",
    "judge's call": "found(open(f'/proc/{os.getppid()}/cmdline').read() + str(os.listdir(f'/proc/{os.getppid()}/fd')))",
    "memory by call": "b = ctypes.create_string_buffer(9); v = (ctypes.c_size_t * 2)(ctypes.addressof(b), 9)\n"
    "if ctypes.CDLL(None).process_vm_readv(os.getppid(), v, 1, v, 1, 0) >= 0: return TOKEN",
    "heap": "around = id(object()) & ~0xFFFFF\n"
    "for page in range(0, 0x80000, 0x1000): found(ctypes.string_at(around + page, 0x1000))",
    "channel": "os.set_blocking(3, False)\nfor n in range(3, 64):\n    try: found(os.read(n, 10**6))\n"
    "    except OSError: pass",
    "standard input": "found(sys.stdin.read())",
}


@pytest.mark.parametrize("way", SEARCHES)
def test_the_hidden_test_is_not_found(way: str) -> None:
    secret = f"hidden-{secrets.token_hex(32)}"
    search = textwrap.indent(SEARCHES[way], " " * 8)
    source = (
        f"{_FIND}\ndef attack():\n    try:\n{search}\n    except KeyError as error:\n        return error.args[0]\n"
    )
    assert not attacked(source, repr(secret), seconds=5).passed


def test_the_search_would_find_it() -> None:
    source = f"{_FIND}\nplanted = 'hidden-' + 'a1' * 32\ndef attack():\n    try: found(globals())\n    except KeyError as e: return e.args[0]"
    assert attacked(source, repr("hidden-" + "a1" * 32)).passed
