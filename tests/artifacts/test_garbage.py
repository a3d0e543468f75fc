from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import atexit, threading, time
from artifacts.garbage import leave

class Never:
    def __del__(self):
        print("taken apart")

kept = Never()
atexit.register(print, "called at the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
leave(7)
"""


def test_what_is_imported_for_good_is_not_looked_at_again() -> None:
    program = """
import gc
from artifacts.garbage import imported_for_good

class Cycle:
    def __init__(self):
        self.itself = self

before = gc.get_freeze_count()
try:
    with imported_for_good():
        assert not gc.isenabled()
        Cycle()
        raise ImportError
except ImportError:
    pass
assert gc.isenabled()
Cycle()
gc.collect()
print(gc.get_freeze_count() > before, sum(type(one) is Cycle for one in gc.get_objects()))
gc.unfreeze()
print(sum(type(one) is Cycle for one in gc.get_objects()))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == (["True", "0", "1"], "")


def test_threads_and_exit_functions_have_their_turn() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["thread", "called at the end"], "", 7)


def test_what_could_not_be_printed_is_no_success() -> None:
    program = "from artifacts.garbage import leave; print('lost'); leave(0)"
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, env=environment).returncode == 120
