"""The right to use a GPU: one run at a time on each, whoever started it.

The work pool lets one run through at a time, but knows nothing of `codetune run` started by hand beside its worker. So
each run locks a file named after the GPU. The kernel frees the lock when the last process that holds it is gone: the
run's own, and the training process, which gets it from the run and may live a moment longer to write a checkpoint.

The file is in a folder of the user's own: in one that everybody may write to, everybody could hold the lock, or lead it
elsewhere. Users who share a GPU name one in `CODETUNE_LOCKS` that they alone can open.

What is not covered: programs that are not codetune; users and containers that do not share the folder of the locks.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from artifacts import durable
from artifacts.errors import InputError
from artifacts.locks import AGES, Lock

_HELD: set[int] = set()


def held() -> tuple[int, ...]:
    """Descriptors that a child which computes on the GPU must inherit (`pass_fds`)."""
    return tuple(_HELD)


def gpu_name() -> str | None:
    """The GPU that a run will use: `CODETUNE_GPU`, or the UUID of the first that CUDA shows; None without one."""
    if named := os.environ.get("CODETUNE_GPU"):
        return named
    import pynvml

    from tasks.machines.probe import visible

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


class GpuLock:
    """A GPU that is held from the first stage that needs it until the run ends. With None there is nothing to hold."""

    def __init__(self, name: str | None) -> None:
        self._name = name
        self._lock: Lock | None = None

    def hold(self) -> None:
        """Wait until no other run has the GPU, and keep it. Call with no key of the store locked: whoever has the GPU
        may be waiting for that key.

        Raises:
            StageError: another run keeps it for longer than a run may take.
            InputError: the folder of the locks cannot be used.
        """
        if self._name is None or self._lock is not None:
            return
        lock = Lock(_folder() / f"codetune-{self._name}.lock", f"the GPU {self._name}")
        try:
            lock.acquire(AGES)
        except OSError as error:
            raise InputError(
                f"the lock of the GPU, {lock.path}, cannot be used: {error.strerror or error}",
                field="CODETUNE_LOCKS",
                remedy="name a folder that you may write to, the same for all who share the GPU",
            ) from error
        assert lock.descriptor is not None
        self._lock = lock
        _HELD.add(lock.descriptor)

    def release(self) -> None:
        """Let others have it."""
        if self._lock is not None and self._lock.descriptor is not None:
            _HELD.discard(self._lock.descriptor)
            self._lock.release()
            self._lock = None


def _folder() -> Path:
    """Raises InputError where there can be none."""
    named = os.environ.get("CODETUNE_LOCKS")
    try:
        folder = Path(named).expanduser() if named else Path.home() / ".cache" / "codetune" / "locks"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not named or not folder.is_dir():
            return durable.closed_folder(folder)
        if folder.stat().st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "everybody may write to it", str(folder))
        return folder
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"there is no folder for the lock of the GPU: {error}",
            field="CODETUNE_LOCKS",
            remedy="name one that you may write to, the same for all who share the GPU",
        ) from error
