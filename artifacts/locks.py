"""Locks between processes that the kernel frees when their holder dies, and that say who holds them.

A file that others than those who may write here cannot open: to lock a file it is enough to have it open, so whoever
may only read would otherwise hold up everyone who works. A link in its place is refused, not followed.

What is not covered: file systems whose locks do not reach other machines (`artifacts.disks` tells them).
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path

from artifacts import variables
from artifacts.errors import StageError

log = logging.getLogger(__name__)

MOMENT = 30.0
"""Seconds to wait for what is held for moments only."""
AGES = (variables.number("CODETUNE_WAIT_HOURS", most=10_000) or 24) * 3600
"""Seconds to wait for another run's work."""
UNEASY = 2.0
"""Seconds of waiting after which it is said."""


class Lock:
    """An exclusive lock on a file, made where it is missing.

    Args:
        path: the file, in a folder that is there.
        what: what it is the right to, for people: “the list of runs”.
    """

    def __init__(self, path: Path, what: str) -> None:
        self.path, self._what = path, what
        self.descriptor: int | None = None
        """Open while it is held. A child that inherits it holds the lock, too."""

    def acquire(self, patience: float) -> None:
        """Wait for it, `patience` seconds at most. That it waits, and for whom, goes to the log.

        Raises:
            StageError: somebody else kept it; the message says who, as far as it can be known.
        """
        began, pause, said = time.monotonic(), 0.01, False
        while not self.try_acquire():
            waited = time.monotonic() - began
            if waited >= patience:
                time_spent = f"{waited:.0f} s" if waited < 7200 else f"{waited / 3600:.0f} hours"
                raise StageError(
                    f"{self._what} is held by {self.holder()}; it was waited for for {time_spent}",
                    remedy=f"let it finish or end it, then run again (the lock is {self.path})",
                )
            if not said and (waited > UNEASY or patience > MOMENT):
                said = True
                log.warning("%s is held by %s; waiting for it", self._what, self.holder())
            time.sleep(min(pause, max(0.0, patience - waited)))
            pause = min(2 * pause, 0.25)

    def try_acquire(self) -> bool:
        """Take it if it is free."""
        if self.descriptor is not None:
            return False
        while True:
            descriptor = _open(self.path)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with suppress(FileNotFoundError):
                    if os.path.samestat(os.fstat(descriptor), self.path.lstat()):
                        break
            except BlockingIOError:
                os.close(descriptor)
                return False
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)  # it was removed between opening and locking: what is there now counts
        self.descriptor = descriptor
        os.ftruncate(descriptor, 0)
        with suppress(OSError):  # a full disk; it is for people only
            os.pwrite(descriptor, f"{os.getpid()} {socket.gethostname()}\n".encode(), 0)
        return True

    def release(self) -> None:
        """Let others have it."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def holder(self) -> str:
        """Who holds it at this moment, for people."""
        pid = _holding(self.path)
        if pid is None:
            with suppress(OSError, ValueError):
                number, host = self.path.read_text(encoding="utf-8").split()
                if host != socket.gethostname():
                    return f"process {int(number)} on {host}"
            return "a process that cannot be seen from here"
        return _described(pid)


def _open(path: Path) -> int:
    """Raises OSError; that of a link or a folder in its place says so."""
    mode = 0o660 if path.parent.stat().st_mode & stat.S_IWGRP else 0o600
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, mode)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:  # who holds it is written over what is in it
            raise OSError(errno.EINVAL, "it is no regular file with this name alone", str(path))
        if found.st_uid == os.geteuid() and stat.S_IMODE(found.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _holding(path: Path) -> int | None:
    """The process that took the lock of a file; it may be gone, and a child of it live on with the lock."""
    try:
        inode = path.lstat().st_ino
        lines = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    for line in lines:  # `12: FLOCK ADVISORY WRITE <pid> <device>:<inode> …`
        fields = line.split()
        if len(fields) > 5 and fields[1] != "->" and fields[5].rpartition(":")[2] == str(inode):
            return int(fields[4])
    return None


def _described(pid: int) -> str:
    import psutil

    try:
        process = psutil.Process(pid)
        with process.oneshot():
            command = " ".join(" ".join(process.cmdline() or [process.name()]).split())
            short = "".join(one if one.isprintable() else "?" for one in command[:100])
            return f"process {pid} of {process.username()} ({short})"
    except psutil.NoSuchProcess:
        return f"what process {pid} left behind" if pid > 0 else "a process of another container or machine"
    except psutil.AccessDenied:
        return f"process {pid} of another user"
