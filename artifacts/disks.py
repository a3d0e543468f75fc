"""Where a store may be: a folder, on a file system whose locks hold for everybody who uses it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from artifacts import paths
from artifacts.errors import InputError

_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]+:/", re.IGNORECASE)
_LOCAL_LOCKS = re.compile(r"fuse(\..+)?|9p|virtiofs|cifs|smb\w*|vboxsf|afs|prl_fs|vmhgfs|ncpfs")
"""Their locks hold among the processes of one machine, if at all. (`fuseblk` is a disk of this machine.)"""


def folder_of(named: str) -> Path:
    """The folder that a person named as the store.

    Raises:
        InputError: it is an address, or no folder can have that name.
    """
    if _ADDRESS.match(named):
        scheme = named.partition(":")[0]
        raise InputError(
            f"{named} is an address, and the store is a folder",
            field="store",
            remedy="give its path"
            if scheme == "file"
            else f"keep the store on a disk and copy to {scheme} what you want there, for example with `rclone copy`",
        )
    return paths.expanded(named, "store")


def caution(folder: Path, mounts: str | None = None) -> str | None:
    """What to keep in mind about the file system that a folder is on; None where locks hold. `mounts` is a text like
    `/proc/self/mountinfo`, which is read without one."""
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
        except OSError:
            return None
    place = Path(os.path.realpath(folder))
    kind, options = "", set[str]()
    longest = -1
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if len(fields) < 6 or len(rest) < 3:
            continue
        point = Path(re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), fields[4]))
        if place.is_relative_to(point) and len(point.parts) >= longest:
            longest, kind, options = len(point.parts), rest[0], {*fields[5].split(","), *rest[2].split(",")}
    if not _locks_stay_here(kind, options):
        return None
    return (
        f"{folder} is on a file system ({kind}) whose locks do not reach other machines: use this store from one "
        "machine at a time, or two runs may build and remove the same things at once"
    )


def _locks_stay_here(kind: str, options: set[str]) -> bool:
    if kind in ("nfs", "nfs4"):
        return bool(options & {"nolock", "local_lock=all", "local_lock=flock"})
    if kind == "lustre":
        return "flock" not in options
    return bool(_LOCAL_LOCKS.fullmatch(kind))
