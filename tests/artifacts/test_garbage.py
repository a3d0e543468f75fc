from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from artifacts.garbage import SELDOM, collected_seldom

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


def test_garbage_is_collected_as_before_once_all_is_imported() -> None:
    usual = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    try:
        with pytest.raises(ImportError), collected_seldom():
            assert gc.get_threshold() == SELDOM
            raise ImportError
        assert gc.get_threshold() == (700, 10, 10)
    finally:
        gc.set_threshold(*usual)


def test_threads_and_exit_functions_have_their_turn() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert (done.stdout.splitlines(), done.stderr, done.returncode) == (["thread", "called at the end"], "", 7)


def test_what_could_not_be_printed_is_no_success() -> None:
    program = "from artifacts.garbage import leave; print('lost'); leave(0)"
    environment = {**os.environ, "PYTHONUNBUFFERED": ""}
    with Path("/dev/full").open("w") as full:
        assert subprocess.run([sys.executable, "-c", program], stdout=full, env=environment).returncode == 120
