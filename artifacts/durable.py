"""Writing that outlives a loss of power, and that others than owner and group cannot read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path


def write(path: Path, text: str) -> None:
    """Write a text file and its contents through to the disk; its folder's entry is `sync`'s work."""
    with open(path, "w", encoding="utf-8", opener=partial(os.open, mode=0o640)) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """Put what was written to a file, or the entries of a folder, through to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def closed_folder(path: Path) -> Path:
    """Make a folder that is closed to others than its owner and group, whatever the umask says, and open to the group
    as the folder that it is in is; one that is there is closed to others, if it is ours."""
    shared = path.parent.stat().st_mode & stat.S_IWGRP
    try:
        path.mkdir(mode=0o750)
    except FileExistsError:
        close_to_others(path)
    else:
        _change_mode(path, lambda mode: mode | shared)
    return path


def close_to_others(path: Path) -> None:
    """Take from a file or folder of ours what others than owner and group may do with it."""
    _change_mode(path, lambda mode: mode & ~stat.S_IRWXO)


def _change_mode(path: Path, changed: Callable[[int], int]) -> None:
    """Change the mode of what is ours. A link is passed over: another who may write here could have put it there, to
    have something else of ours changed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return
    try:
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        if changed(mode) != mode and found.st_uid == os.geteuid():
            os.fchmod(descriptor, changed(mode))
    finally:
        os.close(descriptor)
