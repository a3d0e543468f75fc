"""The command `prefect` in a process that collects garbage beside its event loop: `python -m flows.serve server start`.

With several runs at once on SQLite, cursors of unfinished statements are found among the server's garbage. To let go of
such a cursor takes the connection's mutex (CPython's `stmt_reset`), and the connection may be in use again by then, its
thread waiting for the database's lock. Collected on the event loop, as Python does by itself, the cursor holds up the
loop, which alone could end the transaction that has the lock: the server answers nobody until SQLite gives up, after
Prefect's 60 seconds. On a thread of its own the same wait holds up nothing. PostgreSQL knows nothing of this.
"""

from __future__ import annotations

import gc
import runpy
import sys
import time
from threading import Thread

SECONDS = 0.5
"""Between two collections of what is young; every hundredth is of everything that came after the start."""
START = 40
"""Collections until the server has imported what it needs: half a million objects that stay."""


def collect_beside(seconds: float = SECONDS) -> None:
    """From now on garbage is collected by a thread that does nothing else."""
    gc.disable()
    Thread(target=_collect, args=(seconds,), name="garbage", daemon=True).start()


def _collect(seconds: float) -> None:
    rounds = 0
    while True:
        time.sleep(seconds)
        rounds += 1
        gc.collect(1 if rounds % 100 and rounds != START else 2)
        if rounds == START:
            gc.freeze()


if __name__ == "__main__":
    collect_beside()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__")
