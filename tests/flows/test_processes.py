"""Letting go of ended processes that others left behind."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import subprocess, sys, psutil
from flows import processes
from tests.waiting import until

processes.adopt_orphans()
own = subprocess.Popen(["sh", "-c", "exit 7"])  # what was let go of would count as 0
until(lambda: psutil.Process(own.pid).status() == psutil.STATUS_ZOMBIE)
parent = subprocess.run(["sh", "-c", "sleep 0.2 & echo $!"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
left = psutil.Process(int(parent.stdout))
until(lambda: left.status() == psutil.STATUS_ZOMBIE)
assert left.ppid() == psutil.Process().pid
processes.reap_orphans({own.pid})
print(own.wait())
processes.reap_orphans(set())
print(left.is_running())
processes.reap_orphans(set())  # without any child
"""


def test_orphans_are_let_go_and_own_children_keep_their_status() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    assert (done.stdout.split(), done.stderr) == (["7", "False"], "")
