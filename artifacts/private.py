"""Folders that are this process's alone, in a temporary folder that others write to as well.

Names are random, modes are for the owner, and every step that removes or changes something goes through a descriptor
of its folder and follows no link: what another user puts in the way, or a program left there, leads nowhere else.
"""

from __future__ import annotations

import atexit
import fcntl
import logging
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path

from artifacts.errors import InputError

log = logging.getLogger(__name__)

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_YOUNG = 60.0
"""Seconds for which a folder may not have been locked by the process that made it."""


@contextmanager
def temporary_folder(prefix: str) -> Iterator[Path]:
    """A folder of mode 0700 that is gone at the end, whatever was made in it.

    Raises:
        InputError: other users may exchange what is in the temporary folder.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix, dir=temporary_root()))
    try:
        descriptor = os.open(path, _FOLDER)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield path
        finally:
            os.close(descriptor)
    finally:
        try:
            remove(path)
        except OSError as error:
            log.warning("%s could not be removed: %s", path, error)


def cache_folder(name: str) -> Path:
    """A folder of this user's alone for what a library compiles and later runs: in the user's cache, or, where that
    cannot be written, a new one until this process ends."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"))  # noqa: PTH111 - never raises
    folder = caches / "codetune" / name
    with suppress(OSError):
        if not caches.is_absolute():  # a user without a home, as in some containers
            raise FileNotFoundError(caches)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(folder, _FOLDER)
        try:
            if os.fstat(descriptor).st_uid == os.geteuid() and os.access(folder, os.W_OK):
                os.fchmod(descriptor, 0o700)
                return folder
        finally:
            os.close(descriptor)
    stack = ExitStack()
    atexit.register(stack.close)
    return stack.enter_context(temporary_folder(f"codetune-{name}-"))


def temporary_root() -> Path:
    """The folder for temporary files, if no other user can exchange what this one makes there.

    Raises:
        InputError: they can.
    """
    root = Path(os.path.realpath(tempfile.gettempdir()))
    for folder in (root, *root.parents):
        facts = folder.stat()
        shared = facts.st_mode & stat.S_IWOTH and not facts.st_mode & stat.S_ISVTX
        if shared or facts.st_uid not in _trusted():
            raise InputError(
                f"{folder} is open to other users: they could exchange what is written below it",
                field="TMPDIR",
                remedy="set it to a folder of your own, or make that one sticky (chmod +t)",
            )
    return root


@cache
def _trusted() -> tuple[int, ...]:
    """Root, this user, and whom a container's root folder belongs to when its owner has no number there."""
    try:
        unknown = int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        unknown = 65534
    return 0, os.geteuid(), unknown


def remove_left_behind(prefix: str) -> None:
    """Remove what `temporary_folder` made in processes that were killed before they could."""
    root = temporary_root()
    for entry in os.scandir(root):
        if not entry.name.startswith(prefix):
            continue
        with suppress(OSError):
            descriptor = os.open(entry.path, _FOLDER)
            try:
                facts = os.fstat(descriptor)
                if facts.st_uid == os.geteuid() and time.time() - facts.st_ctime > _YOUNG:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(Path(entry.path))
            finally:
                os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a folder of any depth, with modes and names of any kind. Links are removed, never followed.

    Raises:
        OSError: something in it cannot be removed.
    """
    above = os.open(path.parent, _FOLDER & ~os.O_NOFOLLOW)
    try:
        top = opened(path.name, above)
        try:
            os.fchmod(top, 0o700)
            _emptied(top)
        finally:
            os.close(top)
        os.rmdir(path.name, dir_fd=above)
    finally:
        os.close(above)


def opened(name: str, above: int) -> int:
    """A descriptor of a folder; one that its owner closed to everybody is opened to the owner again.

    Raises:
        OSError: it is no folder, is a link, or belongs to somebody else.
    """
    try:
        return os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:
        place = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
        try:
            # chmod by descriptor does not take O_PATH; this link of the kernel's leads to what is open, nowhere else.
            os.chmod(f"/proc/self/fd/{place}", 0o700)  # noqa: PTH101
            return os.open(f"/proc/self/fd/{place}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        finally:
            os.close(place)


def _emptied(top: int) -> None:
    """Remove everything in a folder: folders within folders are brought up first, so that no depth is too deep."""
    while left := list(os.scandir(top)):
        for entry in left:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.name, dir_fd=top)
                continue
            inner = opened(entry.name, top)
            try:
                os.fchmod(inner, 0o700)
                for below in list(os.scandir(inner)):
                    if below.is_dir(follow_symlinks=False):
                        _writable(below.name, inner)  # a folder that changes its place must be
                        os.rename(below.name, secrets.token_hex(16), src_dir_fd=inner, dst_dir_fd=top)
                    else:
                        os.unlink(below.name, dir_fd=inner)
            finally:
                os.close(inner)
            os.rmdir(entry.name, dir_fd=top)


def _writable(name: str, above: int) -> None:
    descriptor = opened(name, above)
    try:
        os.fchmod(descriptor, 0o700)
    finally:
        os.close(descriptor)
