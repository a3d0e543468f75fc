"""How often Python looks for garbage, and that it does not at the end.

A run imports some four thousand modules. With Python's own thresholds its collector goes over them again and again
while they are loaded, and finds nothing: a sixth of the time of importing torch, transformers, TRL and PEFT. At the
end of a process it takes another second to take them apart.
"""

from __future__ import annotations

import atexit
import gc
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

SELDOM = (20_000, 20, 100)
"""Thresholds of `gc.set_threshold`, for a process that imports as it goes; Python's own are 700, 10, 10."""


@contextmanager
def imported_for_good() -> Iterator[None]:
    """A block that imports much: nothing is collected in it, and what it leaves is not looked at again, not by a full
    collection either, of which accelerate makes two for each training."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def leave(status: int) -> NoReturn:
    """End this process as multiprocessing ends its children: threads, and whatever asked to be called at the end, have
    their turn; memory is left to the kernel."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # what was printed is lost: Python's own status for that
            status = status or 120
    os._exit(status)
