"""Processes that work for another one and must not outlive it."""

from __future__ import annotations

import ctypes
import os
import signal

STOPPED = 128 + signal.SIGTERM
"""Exit status of a process that was told to stop."""
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with(parent: int) -> None:
    """Ask the kernel for a SIGTERM when the parent is gone. (Exactly: the thread of it that started this process,
    which waits for it.)"""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it was gone before
        raise SystemExit(STOPPED)
