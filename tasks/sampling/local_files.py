"""Which files of this machine a source means: those below its paths, each once."""

from __future__ import annotations

import sysconfig
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from artifacts.errors import InputError
from artifacts.paths import real, shown
from artifacts.reading import blamed_on
from tasks.sampling.config import PACKAGE, STANDARD_LIBRARY, LocalSource
from tasks.sampling.excluding import Excluded
from tasks.sampling.worktree import Finder, FoundFile, is_installed

FIELD = "sampling.source.paths"


@dataclass(frozen=True)
class Root:
    """One of the configured paths."""

    path: Path
    name: str
    """Unlike the names of the other roots."""
    is_stdlib: bool

    def below(self, path: Path) -> PurePosixPath:
        """A path below it; the file's name when it is that file."""
        return PurePosixPath(path.relative_to(self.path).as_posix() if path != self.path else path.name)


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file below a root."""

    root: Root
    found: FoundFile

    @property
    def below(self) -> PurePosixPath:
        """Its path below the root; the file's name when the root is that file."""
        return self.root.below(self.found.path)


def roots_of(paths: Iterable[str]) -> list[Root]:
    """The configured paths, each folder once.

    Raises:
        InputError: one does not exist, or leads nowhere.
    """
    places: dict[Path, bool] = {}
    for name in paths:
        is_stdlib = name == STANDARD_LIBRARY
        path = _place(name)
        remedy = (
            "name a folder of the installed package, as in package:NAME/FOLDER"
            if name.startswith(PACKAGE)
            else f"name folders or files; {shown(str(Path.cwd()), 200)} is the current folder"
        )
        with blamed_on(path, field=FIELD, remedy=remedy):
            if not path.exists():
                raise InputError(f"{name} does not exist", field=FIELD, remedy=remedy)
            if not path.is_dir() and not path.is_file():
                raise InputError(f"{name} is no folder and no file", field=FIELD, remedy=remedy)
        places[real(path)] = is_stdlib
    names = short_names(places)
    return [Root(path, STANDARD_LIBRARY if is_stdlib else names[path], is_stdlib) for path, is_stdlib in places.items()]


def _place(name: str) -> Path:
    """The folder or file that one of the configured paths means."""
    if name == STANDARD_LIBRARY:
        return Path(sysconfig.get_paths()["stdlib"])
    if not name.startswith(PACKAGE):
        return Path(name).expanduser()
    wanted, _, below = name.removeprefix(PACKAGE).partition("/")
    if ".." in PurePosixPath(below).parts:
        raise InputError(
            f"{shown(name)} leads out of the package",
            field=FIELD,
            remedy="name a folder of the installed package, as in package:NAME/FOLDER",
        )
    # a name with dots would import what stands before the last one
    try:
        found = find_spec(wanted) if wanted.isidentifier() else None
    except ValueError:  # what was not imported from anywhere, such as `__main__`
        found = None
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"no package that is installed beside codetune is imported as {wanted!r}",
            field=FIELD,
            remedy="name an installed package (one without dots), or leave it out",
        )
    # a second slash would make what follows an absolute path, which stands for itself
    return Path(found.submodule_search_locations[0], below.strip("/"))


def called(name: str) -> str:
    """What one of the configured paths is called where no folder of this machine may be named."""
    if name == STANDARD_LIBRARY:
        return name
    return name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else real(Path(name).expanduser()).name


def items_below(roots: list[Root], source: LocalSource) -> tuple[list[LocalFile], Counter[str]]:
    """Each file once, though roots may overlap: it belongs to the first that holds it. And what is left out, by kind.

    Raises:
        InputError: a pattern of `exclude` is none.
    """
    excluded = Excluded(source.exclude)
    finder, plain = (
        Finder((root.path for root in roots), tracked_only=tracked_only)
        for tracked_only in (source.tracked_only, False)
    )
    items: dict[str, LocalFile] = {}
    for root in roots:
        # An environment may lie in a working tree; what was installed into it is no part of that.
        where = plain if root.is_stdlib or is_installed(root.path) else finder
        for found in where.files_below(root.path, partial(is_excluded, root, excluded)):
            items.setdefault(found.name, LocalFile(root, found))
    if not all(root.is_stdlib or is_installed(root.path) for root in roots):  # those differ from version to version
        excluded.tell_of_unused()
    left_out = +finder.left_out
    if excluded.count:
        left_out["excluded files"] = excluded.count
    return list(items.values()), left_out


def is_excluded(root: Root, excluded: Excluded, path: Path) -> bool:
    """Whether `exclude` names a file or folder below a root."""
    # a repository that is left out is asked about by the name of git's folder in it
    return excluded.has(root.below(path).as_posix(), counts=path.name != ".git")


def short_names(paths: Iterable[Path]) -> dict[Path, str]:
    """A name for each path: its last part, or as many of its last parts as it takes to tell it from the others."""
    places = list(dict.fromkeys(paths))
    names: dict[Path, str] = {}
    for path in places:
        for parts in range(1, len(path.parts) + 1):
            name = "/".join(path.parts[-parts:])
            if parts == len(path.parts) or not any(
                other != path and other.parts[-parts:] == path.parts[-parts:] for other in places
            ):
                names[path] = name
                break
    return names
