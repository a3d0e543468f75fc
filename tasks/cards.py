"""The right to use a graphics card: one run at a time on each, whoever started it.

The work pool lets one run through at a time, but knows nothing of `codetune run` started by hand beside its worker. So
each run locks a file named after the card. The kernel frees the lock when the last process that holds it is gone: the
run's own, and the training process, which gets it from the run and may live a moment longer to write a checkpoint.

What is not covered: programs that are not codetune; containers that do not share the folder of the locks.
"""

from __future__ import annotations

import fcntl
import logging
import os
from pathlib import Path

log = logging.getLogger(__name__)

_HELD: set[int] = set()


def held() -> tuple[int, ...]:
    """Descriptors that a child which computes on the card must inherit (`pass_fds`)."""
    return tuple(_HELD)


def name_of_card() -> str | None:
    """The card that a run will use: `CODETUNE_CARD`, or the UUID of the first that CUDA shows; None without one."""
    if named := os.environ.get("CODETUNE_CARD"):
        return named
    import pynvml

    from tasks.preflight.probe import visible

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        uuids = [str(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
    chosen = visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"))
    return uuids[chosen[0]] if chosen else None


class Card:
    """A card that is held from the first stage that needs it until the run ends. With None there is nothing to hold."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._lock: int | None = None

    def hold(self) -> None:
        """Wait until no other run has the card, and keep it. Call with no key of the store locked: whoever has the card
        may be waiting for that key."""
        if self._name is None or self._lock is not None:
            return
        folder = Path(os.environ.get("CODETUNE_LOCKS") or "/tmp")
        descriptor = _open(folder / f"codetune-{self._name}.lock")
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another run uses the card %s; waiting for it", self._name)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            except BaseException:
                os.close(descriptor)
                raise
            log.info("the card %s is free", self._name)
        self._lock = descriptor
        _HELD.add(descriptor)

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None:
            _HELD.discard(self._lock)
            os.close(self._lock)
            self._lock = None


def _open(path: Path) -> int:
    """Reading is enough to lock, and is what another user's file in a shared folder allows."""
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
