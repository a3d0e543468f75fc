"""Faults of the disk in words: what a person needs to hear of an `OSError`, and of what libraries make of one."""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from artifacts.errors import CodetuneError, StageError

log = logging.getLogger(__name__)

_FULL = re.compile("no space left on device|disk is full|disk quota exceeded", re.IGNORECASE)
_ELSEWHERE = "or set CODETUNE_STORE to another folder"


@contextmanager
def in_words(root: Path | None = None) -> Iterator[None]:
    """A block that works on the disk.

    Args:
        root: the store: what is missing there was removed by somebody else.

    Raises:
        StageError: in the place of a fault of the disk.
    """
    try:
        yield
    except CodetuneError:
        raise
    except Exception as error:
        if explained := explain(error, root):
            raise explained from error
        raise


def explain(error: Exception, root: Path | None = None) -> StageError | None:
    """What a person needs to hear of a fault of the disk; None for others, which are faults of codetune."""
    number = error.errno if isinstance(error, OSError) else None
    name = error.filename if isinstance(error, OSError) and isinstance(error.filename, str | Path) else None
    where = Path(name).name if name is not None else "a file of the store"
    # Libraries have errors of their own for a full disk: SQLite, safetensors, torch.
    if number in (errno.ENOSPC, errno.EDQUOT) or _FULL.search(str(error)):
        return StageError(
            f"the disk is full (writing {where})",
            field="store",
            remedy="free space or set CODETUNE_STORE to a larger disk, then run again: finished stages are kept",
        )
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return StageError(
            f"cannot use {where}: {os.strerror(number)}",
            field="store",
            remedy=f"make the store readable and writable again, {_ELSEWHERE}",
        )
    if number in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
        return StageError(
            f"cannot use {where}: {os.strerror(number)} (a file system without locks?)",
            field="store",
            remedy="keep the store on a disk of this machine: set CODETUNE_STORE",
        )
    if number in (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENOTDIR) and name is not None and _below(name, root):
        return StageError(
            f"{name} is not what the store puts there: {os.strerror(number or 0)}",
            field="store",
            remedy=f"remove it, {_ELSEWHERE}",
        )
    if number == errno.ENOENT and name is None and not _has_current_folder():
        return StageError("the current folder was removed", remedy="change to another one (`cd`) and run it there")
    if number in (errno.ENOENT, errno.ESTALE) and name is not None and _below(name, root):
        return removed(Path(name).name)
    if isinstance(error, FileNotFoundError) and name is None and root is not None and str(root) in str(error):
        return removed("a file")  # pyarrow and safetensors name it in the text alone
    return None


def _has_current_folder() -> bool:
    try:
        return bool(Path.cwd())
    except FileNotFoundError:
        return False


def unknown(error: OSError) -> StageError:
    """What to say of any other fault of the machine."""
    log.debug("a fault of the machine", exc_info=error)
    where = f"{error.filename}: " if error.filename else ""
    return StageError(f"{where}{error.strerror or error}", remedy="see to it, then run the same command again")


def removed(what: str) -> StageError:
    """What to say when files disappear under a run."""
    return StageError(
        f"{what} was removed from the store while it was in use",
        field="store",
        remedy="run again: what is missing is built again, all else is reused",
    )


def _below(name: str | Path, root: Path | None) -> bool:
    return root is not None and Path(name).absolute().is_relative_to(root)
