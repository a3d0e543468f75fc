"""Which files lie below a folder: tracked ones in git repositories, all but the usual litter elsewhere."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

_LITTER = frozenset({"__pycache__", "site-packages", "dist-packages", "node_modules", "__pypackages__"})


@dataclass(frozen=True)
class Found:
    """A regular file."""

    path: Path
    top: Path | None = None
    """The git working tree that tracks it."""
    commit: str = ""
    """Its commit, with `-dirty` when the working tree differs."""


def files_below(root: Path) -> Iterator[Found]:
    """The files below a folder, or the file itself. Symbolic links are not followed; in a git working tree (also one
    that the folder only lies in, provided that something below it is tracked) only tracked files count."""
    if root.is_file():
        yield Found(root)
        return
    tracked = _tracked(root)
    if tracked:
        yield from tracked
        return
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        if here != root and (here / ".git").exists() and (tracked := _tracked(here)) is not None:
            folders.clear()
            yield from tracked
            continue
        folders[:] = sorted(name for name in folders if not _is_litter(here / name))
        for path in (here / name for name in sorted(names)):
            if path.is_file() and not path.is_symlink():
                yield Found(path)


def _is_litter(folder: Path) -> bool:
    name = folder.name
    return name in _LITTER or name.startswith(".") or (folder / "pyvenv.cfg").exists()


def _tracked(folder: Path) -> list[Found] | None:
    """What git tracks below a folder; None where there is no working tree, or no git to ask."""
    top = _git(folder, "rev-parse", "--show-toplevel")
    names = _git(folder, "ls-files", "-z", "--recurse-submodules") if top else None
    if not top or names is None:
        return None
    commit = _git(folder, "describe", "--always", "--match=", "--abbrev=40", "--dirty") or b""
    root, revision = Path(os.fsdecode(top.rstrip(b"\n"))), commit.decode().strip()
    paths = (folder / os.fsdecode(name) for name in names.split(b"\0") if name)
    return [Found(path, root, revision) for path in sorted(paths) if path.is_file() and not path.is_symlink()]


def _git(folder: Path, *arguments: str) -> bytes | None:
    """What git prints; None when it fails.

    Ownership is not checked and no file-system monitor is run: listing must neither depend on who checked the
    repository out (containers) nor run a program that its configuration names.
    """
    if shutil.which("git") is None:
        log.warning("git is not installed: all files in %s count, not only tracked ones", folder)
        return None
    settings = ("-c", "safe.directory=*", "-c", "core.fsmonitor=false", "-c", "core.quotepath=false")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    result = subprocess.run(
        ["git", *settings, "-C", str(folder), *arguments], capture_output=True, check=False, env=environment
    )
    return result.stdout if result.returncode == 0 else None
