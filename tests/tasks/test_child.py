"""How a process that works for another one ends."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import atexit, threading, time
from tasks.child import leave

class Never:
    def __del__(self):
        print("taken apart")

kept = Never()
atexit.register(print, "called at the end")
threading.Thread(target=lambda: (time.sleep(0.2), print("thread"))).start()
leave(7)
"""


def test_threads_and_exit_functions_have_their_turn() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["thread", "called at the end"], "", 7)
