"""Which files lie below a folder: tracked ones in git repositories, all but the usual litter elsewhere."""

from __future__ import annotations

import errno
import logging
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from artifacts import private
from artifacts.errors import InputError
from artifacts.paths import shown
from tasks import checkout
from tasks.checkout import Checkout
from tasks.sampling import litter

log = logging.getLogger(__name__)

_SHOWN = 3
"""Folders that a warning names."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A regular file."""

    name: str
    """With all folders. There may be a million, and a `Path` takes four times as much."""
    checkout: Checkout | None = None
    """The git working tree that tracks it."""

    @property
    def path(self) -> Path:
        """The same."""
        return Path(self.name)

    @property
    def top(self) -> Path | None:
        """The folder of that working tree."""
        return self.checkout.top if self.checkout else None

    @property
    def commit(self) -> str:
        """Its commit, with `-dirty` when the working tree differs."""
        return self.checkout.commit if self.checkout else ""


class Finder:
    """Finds files below folders; a repository is read once, however many of the folders it holds.

    Args:
        roots: the folders and files that will be asked for.
        tracked_only: False takes every folder as a plain one and asks git nothing.
    """

    def __init__(self, roots: Iterable[Path], *, tracked_only: bool = True) -> None:
        private.remove_left_behind(checkout.PREFIX)
        self._roots, self._tracked_only = frozenset(roots), tracked_only
        self._tracked: dict[Path, dict[str, FoundFile] | None] = {}
        """Files of each working tree and its submodules, by name."""
        self.left_out: Counter[str] = Counter()
        """Folders that were not taken, by kind."""

    def files_below(self, root: Path, excluded: Callable[[Path], bool] = lambda path: False) -> Iterator[FoundFile]:
        """The files below a folder, or the file itself. Symbolic links are not followed; in a git working tree (also
        one that the folder only lies in, provided that something below it is tracked) only tracked files count.

        Args:
            root: the folder or file.
            excluded: says of a path below it whether it is not wanted. A repository whose `.git` is not is not read.

        Raises:
            InputError: git cannot read a repository.
        """
        is_file = root.is_file()
        files = self._of(root.parent if is_file else root)
        below = (
            [(files or {}).get(str(root)) or FoundFile(str(root))] if is_file else self._below(root, files, excluded)
        )
        yield from (found for found in below if not excluded(found.path))

    def _below(
        self, root: Path, files: Mapping[str, FoundFile] | None, excluded: Callable[[Path], bool]
    ) -> Iterable[FoundFile]:
        inside = f"{root}{os.sep}".replace("//", "/")
        below = [found for name, found in (files or {}).items() if name.startswith(inside)]
        if files is None or not (below or os.path.lexists(root / ".git")):
            return self._plain(root, excluded)
        if not below:
            log.warning("git tracks no file of %s, so nothing of it is taken: `git add` what is to be", root)
        self._tell_of_nested(root, files, excluded)
        return below

    def _plain(self, root: Path, excluded: Callable[[Path], bool]) -> Iterator[FoundFile]:
        waiting: list[tuple[Path, list[str]]] = [(root, [])]
        while waiting:  # no recursion: folders may be nested deeper than Python's stack
            here, beside = waiting.pop()
            if here != root and self._tracked_only and os.path.lexists(here / ".git"):
                if excluded(here / ".git"):
                    continue
                files = self._of(here)
                if files is not None:
                    yield from files.values()
                    self._tell_of_nested(here, files, excluded)
                    continue
            folders, names = self._listed(here)
            inside = folders + names
            if here != root and (kind := litter.kind_of(here, inside, beside)):
                self.left_out[kind] += kind not in litter.UNTOLD
                continue
            waiting += ((here / name, inside) for name in reversed(folders))
            yield from (FoundFile(str(here / name)) for name in names)

    def _tell_of_nested(self, root: Path, files: Mapping[str, FoundFile], excluded: Callable[[Path], bool]) -> None:
        """Say which repositories lie in a working tree without belonging to it: not tracked, they are not taken."""
        known = self._roots | {found.top for found in files.values()}
        nested, waiting = [], [root]
        while waiting:
            here = waiting.pop()
            if here != root and here not in known and os.path.lexists(here / ".git"):
                if not excluded(here / ".git"):
                    nested.append(here)
                continue
            folders, names = self._listed(here)
            # not below a virtual environment, nor git's own files (a bare repository)
            if "pyvenv.cfg" not in names and not ("HEAD" in names and {"objects", "refs"} <= set(folders)):
                waiting += (here / name for name in folders if litter.by_name(name) is None)
        if nested:
            self.left_out["untracked git repositories"] += len(nested)
            log.warning(
                "%d git repositories below %s are not tracked by it, so nothing of them is taken (%s): add them to "
                "the source's `paths` to take them",
                len(nested),
                root,
                _some(sorted(nested)),
            )

    def _listed(self, folder: Path) -> tuple[list[str], list[str]]:
        """Names of a folder's folders and regular files, without links."""
        folders, names = [], []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        names.append(entry.name)
        except OSError as error:
            if not self.left_out["folders that cannot be listed"]:
                what = shown(str(folder), 200)
                log.warning("cannot list %s, so nothing below it is taken: %s", what, error.strerror or error)
            self.left_out["folders that cannot be listed"] += 1
        return sorted(folders), sorted(names)

    def _of(self, folder: Path) -> dict[str, FoundFile] | None:
        """What the working tree tracks that a folder lies in; None where there is none."""
        if not self._tracked_only:
            return None
        try:
            top = checkout.top_of(folder)
            if top is None:
                return None
            if top not in self._tracked:
                self._tracked[top] = _tracked(top)
            return self._tracked[top]
        except checkout.Refused as refusal:
            raise InputError(
                str(refusal),
                field="sampling.source.paths",
                remedy="mend the repository, leave the folder out, or take all of its files, ignored ones too: set the "
                "source's `tracked_only` to false",
            ) from refusal


@contextmanager
def opened(path: Path) -> Iterator[BufferedReader]:
    """A file that was found, for reading: what has taken its place since, a link or a FIFO, is an `OSError`."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is no regular file any more", str(path))
        yield file


def is_installed(folder: Path) -> bool:
    """Whether a package manager put it there."""
    return not litter.INSTALLED.isdisjoint(folder.parts)


def _tracked(top: Path) -> dict[str, FoundFile] | None:
    """The tracked files of a working tree that are there, those of its submodules with them."""
    read = checkout.read(top)
    if read is None:
        return None
    folders = {top: True}

    def inside(folder: Path) -> bool:
        """Whether a folder lies in the working tree by more than its name: none on the way is a link elsewhere."""
        if folder not in folders:
            folders[folder] = inside(folder.parent) and not folder.is_symlink()
        return folders[folder]

    paths = (top / name for name in sorted(read.tracked))
    names = (str(path) for path in paths if _is_file(path) and inside(path.parent))
    files = {name: FoundFile(name, read) for name in names}
    missing = []
    for name in sorted(read.submodules):
        place = top / name
        if not inside(place):
            continue
        if os.path.lexists(place / ".git"):
            files |= _tracked(place) or {}
        else:
            missing.append(place)
    if missing:
        log.warning(
            "%d submodules of %s are not checked out, so nothing of them is taken (%s): `git submodule update --init`",
            len(missing),
            top,
            _some(missing),
        )
    return files


def _is_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):  # not there, or no name of this file system
        return False


def _some(paths: list[Path]) -> str:
    return ", ".join(map(str, paths[:_SHOWN])) + (", …" if len(paths) > _SHOWN else "")
