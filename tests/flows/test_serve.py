"""Why the server's garbage is collected beside its event loop: the deadlock in small, with and without that."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WAIT_SECONDS = 3
"""Seconds until SQLite gives up waiting for a lock; Prefect's server waits 60."""

SCRIPT = """
import sqlite3, sys, threading, time
from flows.serve import collect_beside

def connect():
    return sqlite3.connect(sys.argv[1], check_same_thread=False, isolation_level=None, timeout=float(sys.argv[2]))

one, other = connect(), connect()
one.execute("PRAGMA journal_mode = WAL")
one.execute("CREATE TABLE numbers (number)")
if sys.argv[3] == "beside":
    collect_beside(0.05)
cursor = other.execute("SELECT 1 UNION SELECT 2")
cursor.fetchone()
cycle = [cursor]
cycle.append(cycle)  # as an error's traceback holds the frame that holds the error
one.execute("BEGIN IMMEDIATE")
waiting = threading.Thread(target=other.execute, args=["INSERT INTO numbers VALUES (2)"])
waiting.start()
time.sleep(0.2)
del cycle, cursor
began = time.monotonic()
made = [[] for _ in range(300_000)]  # Python collects garbage now and then
held_up = time.monotonic() - began
one.execute("COMMIT")
waiting.join()
print(held_up, one.execute("SELECT count(*) FROM numbers").fetchone()[0])
"""


@pytest.mark.parametrize(("where", "written"), [("beside", 1), ("here", 0)])
def test_an_abandoned_cursor_holds_up_nobody(where: str, written: int, tmp_path: Path) -> None:
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "x.db"), str(WAIT_SECONDS), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    held_up, rows = done.stdout.split()
    assert int(rows) == written, done.stderr
    # without the thread the one that has the lock waits for the one that waits for it
    assert (float(held_up) > 0.9 * WAIT_SECONDS) == (where == "here"), done.stdout
