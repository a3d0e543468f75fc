"""Looking at what the kernel does not limit here, fifty times a second, from the process that keeps the jail.

Needed where no file system of the jail's own can be mounted, or threads are counted for all processes of the user.
"""

from __future__ import annotations

import os
import select
from contextlib import suppress
from typing import Any

THREADS, SIZE, FILES = 201, 202, 203
"""Exit statuses of a jail whose program used more than it may."""
_GLANCE = 20
"""Milliseconds."""
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def watch(program: int, test: int, settings: dict[str, Any]) -> int:
    """Wait for the test's end. Returns at once where nothing has to be watched, with 0; else with what is too much."""
    disk, threads = "disk" not in settings["shared"], not settings["counted"]
    if not (disk or threads):
        return 0
    end = select.poll()
    end.register(os.pidfd_open(test), select.POLLIN)
    while not end.poll(_GLANCE):
        if threads:
            with suppress(OSError):
                if os.stat(f"/proc/{program}/task").st_nlink - 2 > settings["threads"]:  # noqa: PTH116
                    return THREADS
        if disk and (excess := _on_disk(settings["scratch"], settings["files"])):
            return excess
    return 0


def _on_disk(most: int, entries: int) -> int:
    """What is too much in the current folder. Nothing in it is ever moved or removed, so the way back is sure."""
    here, size, below = os.open(".", _FOLDER), 0, list[list[str]]()
    try:
        while True:
            folders = []
            for entry in os.scandir(here):
                entries -= 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.name)
                else:
                    with suppress(OSError):
                        size += entry.stat(follow_symlinks=False).st_blocks * 512
            if entries < 0 or size > most:
                return FILES if entries < 0 else SIZE
            below.append(folders)
            while not below[-1]:
                below.pop()
                if not below:
                    return 0
                here = _changed(here, os.open("..", _FOLDER, dir_fd=here))
            here = _changed(here, _opened(below[-1].pop(), here))
    finally:
        os.close(here)


def _changed(old: int, new: int) -> int:
    os.close(old)
    return new


def _opened(name: str, above: int) -> int:
    """A descriptor of a folder; what the program closed to itself is opened again."""
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101 - chmod by descriptor does not take O_PATH
            return os.open(f"/proc/self/fd/{place}", _FOLDER & ~os.O_NOFOLLOW)
        finally:
            os.close(place)
