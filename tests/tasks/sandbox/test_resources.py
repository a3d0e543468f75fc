"""Attacks on the machine's resources: time, memory, disk, output."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.sandbox import Limits
from tests.tasks.sandbox.attacks import attacked, body

MEMORY = {
    "bytes": "x = bytearray(10**11)",
    "list": "\nx = []\nwhile True: x.append('x' * 10**6)",
    "map": "import mmap; x = [mmap.mmap(-1, 1 << 28) for _ in range(99)]",
    "string": "x = 'x' * 10**11",
    "raised limit": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1)); x = bytearray(10**11)",
}


@pytest.mark.parametrize("way", MEMORY)
def test_memory_is_limited(way: str) -> None:
    verdict = attacked(body(MEMORY[way]), limits=Limits(memory_mib=256))
    refused = "error" if way in ("map", "raised limit") else "memory"
    assert verdict.outcome == refused, verdict


def test_memory_within_the_limit_can_be_used() -> None:
    assert attacked(body("return len(bytearray(100 << 20)) == 100 << 20"), limits=Limits(memory_mib=256)).passed


ENDLESS = {
    "loop": "\nwhile True: pass",
    "sleep": "import time; time.sleep(600)",
    "catching everything": "\nwhile True:\n    try:\n        while True: pass\n    except BaseException: pass",
    "ignored signals": "import signal\nfor n in range(1, 65):\n    try: signal.signal(n, signal.SIG_IGN)\n"
    "    except (OSError, ValueError): pass\nwhile True: pass",
    "blocked signals": "import signal; signal.pthread_sigmask(0, range(1, 65))\nwhile True: pass",
    "expression": "import re; return re.match('(a*)*$', 'a' * 60 + 'b')",
    "number": "return len(str(9 ** 9 ** 8))",
    "wait": "import threading; threading.Event().wait()",
    "output": "\nwhile True: print('x' * 10**6, flush=True)",
    "generator": "import itertools; return itertools.count()",
    "thread": "import threading\ndef f():\n    while True: pass\nthreading.Thread(target=f).start(); f()",
}


@pytest.mark.parametrize("way", ENDLESS)
def test_what_does_not_end_is_ended(way: str) -> None:
    verdict = attacked(body(ENDLESS[way]), gain="[*attack()]" if way == "generator" else "True", seconds=1)
    assert verdict.outcome in ("timeout", "memory") and verdict.seconds < 60


DISK = {
    "one file": "\nwith open('f', 'wb') as f:\n    while True: f.write(bytes(10**6))",
    "sparse": "f = open('f', 'wb'); f.truncate(10**12)",
    "many files": "import time\nfor n in range(10**6):\n    open(str(n), 'wb').write(bytes(10**6))\n    time.sleep(.001)",
    "empty files": "\nfor n in range(10**9): open(str(n), 'w').close()",
}


@pytest.mark.parametrize("way", DISK)
def test_the_disk_is_not_filled(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    tmp_path.chmod(0o755)
    verdict = attacked(body(DISK[way]), limits=Limits(file_mib=4, scratch_mib=16, seconds=20))
    assert not verdict.passed and verdict.outcome != "timeout", verdict
    assert list(tmp_path.glob("codetune-sandbox-*")) == []


RECURSION = {
    "deep": "return attack()",
    "deeper": "sys.setrecursionlimit(10**9); return attack()",
    "object": "x = []\nfor _ in range(10**6): x = [x]\nreturn x",
    "source": "return eval('(' * 10**5 + ')' * 10**5)",
    "threads": "import threading, time\nfor _ in range(10**4): threading.Thread(target=time.sleep, args=(99,)).start()",
    "descriptors": "x = [os.open('/dev/null', 0) for _ in range(10**5)]",
}


@pytest.mark.parametrize("way", RECURSION)
def test_crashing_and_exhausting_is_no_success(way: str) -> None:
    limits = Limits(memory_mib=128, seconds=60)  # some versions of Python take five to find that no memory is left
    assert attacked(body(RECURSION[way]), limits=limits).outcome in ("error", "killed", "memory")
