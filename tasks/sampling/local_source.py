"""Code that lies on this machine: folders, single files, git repositories, the standard library."""

from __future__ import annotations

import logging
import platform
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from artifacts import digest
from artifacts.errors import InputError
from tasks.sampling.candidates import Carried, Row
from tasks.sampling.configuration import PACKAGE, STANDARD_LIBRARY, LocalSource
from tasks.sampling.languages import language_of
from tasks.sampling.licences import Licences
from tasks.sampling.split import Groups
from tasks.sampling.worktree import Finder, Found, is_installed

log = logging.getLogger(__name__)

_FIELD = "sampling.source.paths"
_PORTION = 64


@dataclass(frozen=True)
class _Root:
    """One of the configured paths."""

    path: Path
    name: str
    """Unlike the names of the other roots."""
    is_stdlib: bool

    def below(self, path: Path) -> PurePosixPath:
        """A path below it; the file's name when it is that file."""
        return PurePosixPath(path.relative_to(self.path).as_posix() if path != self.path else path.name)


@dataclass(frozen=True)
class _Item:
    """A file below a root."""

    root: _Root
    found: Found
    below: PurePosixPath
    """Its path below the root; the file's name when the root is that file."""


class OpenLocalSource:
    """The files below the configured paths, in the order of their names.

    Args:
        languages: files in these count when repositories are told apart and when contents are compared.

    Raises:
        InputError: a path does not exist, or there is no file below any.
    """

    states_licenses = False
    samples = False

    def __init__(self, source: LocalSource, languages: tuple[str, ...]) -> None:
        self._source, self._languages = source, frozenset(languages)
        self._licences = Licences()
        items = _items(_roots(source.paths), source)
        if not items:
            raise InputError(
                f"there are no files below {', '.join(source.paths)}",
                field=_FIELD,
                remedy="name folders with code; in git repositories only tracked files count; check `exclude`",
            )
        rule, repository = self._tell_apart(items)
        self._files = sorted(
            ((self._row(item, repository(item)), item.found.path) for item in items),
            key=lambda file: (file[0].repo, file[0].path),
        )
        self._counted = [(row, path) for row, path in self._files if row.language in self._languages]
        self._rule = rule

    def describe(self) -> str:
        names = ", ".join(
            name if name == STANDARD_LIBRARY else _place(name).resolve().name for name in self._source.paths
        )
        repositories = len({row.repo for row, _ in self._counted})
        return f"local: {names} ({repositories} repositories, told apart by {self._rule})"

    def fingerprint(self) -> str:
        """Over names, licences, revisions and contents of the files in the configured languages; no absolute paths."""
        facts = [[row.repo, row.path, row.license, row.revision, _digest(path)] for row, path in self._counted]
        return digest.of_json(facts)

    def portions(self) -> Iterator[_Files]:
        for start in range(0, len(self._files), _PORTION):
            yield _Files(self._files[start : start + _PORTION])

    def _tell_apart(self, items: list[_Item]) -> tuple[str, Callable[[_Item], str]]:
        """The rule that says what a repository is, by name and as a function."""
        checkouts = _checkouts(items)
        rules = {name: _joined(rule, items, checkouts) for name, rule in _rules(items, checkouts).items()}
        if self._source.repositories != "auto":
            return self._source.repositories, rules[self._source.repositories]
        counted = [item for item in items if language_of(item.below.name) in self._languages]
        several = []
        for name, rule in rules.items():
            sizes = Counter(map(rule, counted))
            if len(sizes) >= 2:
                several.append(name)
                if max(sizes.values()) <= len(counted) / 2:
                    return name, rule
        name = several[0] if several else "path"
        return name, rules[name]

    def _row(self, item: _Item, repo: str) -> Row:
        revision = f"python-{platform.python_version()}" if item.root.is_stdlib else item.found.commit
        path = item.below.as_posix()
        return Row(_printable(repo), _printable(path), self._license(item), language_of(path), revision, _size(item))

    def _license(self, item: _Item) -> str:
        if self._source.license:
            return self._source.license
        if item.root.is_stdlib:
            return "PSF-2.0"  # distributions move its licence file elsewhere
        folder = item.root.path if item.root.path.is_dir() else item.root.path.parent
        counts = language_of(item.below.name) in self._languages
        return self._licences.of(item.found.path, item.found.top or folder, head=counts)


@dataclass(frozen=True)
class _Files:
    """Some files, read one at a time."""

    files: Sequence[tuple[Row, Path]]

    def rows(self) -> Sequence[Row]:
        return [row for row, _ in self.files]

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        for number in wanted:
            path = self.files[number][1]
            try:
                yield path.read_bytes()
            except OSError as error:
                log.warning("cannot read %s: %s", path, error.strerror or error)
                yield None

    def portable(self, wanted: Callable[[Row | None], bool]) -> Carried:
        """Bytes, not paths: the files lie on this machine."""
        rows = self.rows()
        numbers = [number for number, row in enumerate(rows) if wanted(row)]
        return Carried(rows, dict(zip(numbers, self.contents(numbers), strict=True)))


def _roots(paths: Iterable[str]) -> list[_Root]:
    places: dict[Path, bool] = {}
    for name in paths:
        is_stdlib = name == STANDARD_LIBRARY
        path = _place(name)
        if not path.exists():
            raise InputError(
                f"{name} does not exist",
                field=_FIELD,
                remedy=f"name folders or files; {Path.cwd()} is the current folder",
            )
        places[path.resolve()] = is_stdlib
    names = _short_names(places)
    return [
        _Root(path, STANDARD_LIBRARY if is_stdlib else names[path], is_stdlib) for path, is_stdlib in places.items()
    ]


def _place(name: str) -> Path:
    """The folder or file that one of the configured paths means."""
    if name == STANDARD_LIBRARY:
        return Path(sysconfig.get_paths()["stdlib"])
    if not name.startswith(PACKAGE):
        return Path(name).expanduser()
    wanted = name.removeprefix(PACKAGE)
    # a name with dots would import what stands before the last one
    found = find_spec(wanted) if wanted.isidentifier() else None
    if found is None or not found.submodule_search_locations:
        raise InputError(
            f"no package that is installed beside codetune is imported as {wanted!r}",
            field=_FIELD,
            remedy="name an installed package (one without dots), or leave it out",
        )
    return Path(found.submodule_search_locations[0])


def _items(roots: list[_Root], source: LocalSource) -> list[_Item]:
    """Each file once, though roots may overlap: it belongs to the first that holds it."""
    finder, plain = (
        Finder((root.path for root in roots), tracked_only=tracked_only)
        for tracked_only in (source.tracked_only, False)
    )
    items: dict[Path, _Item] = {}
    for root in roots:
        # An environment may lie in a working tree; what was installed into it is no part of that.
        where = plain if root.is_stdlib or is_installed(root.path) else finder
        for found in where.files_below(root.path, partial(_excluded, root, source.exclude)):
            items.setdefault(found.path, _Item(root, found, root.below(found.path)))
    return list(items.values())


def _excluded(root: _Root, patterns: tuple[str, ...], path: Path) -> bool:
    return any(fnmatchcase(root.below(path).as_posix(), pattern) for pattern in patterns)


def _checkouts(items: list[_Item]) -> dict[Path, Path]:
    """The first checkout of its repository, for each git working tree."""
    found = {item.found.checkout.top: item.found.checkout for item in items if item.found.checkout}
    same = Groups()
    for top in sorted(found):
        for key in found[top].identity:
            same.join(str(top), key)
    first: dict[str, Path] = {}
    checkouts = {top: first.setdefault(same.of(str(top)), top) for top in sorted(found)}
    for top, other in checkouts.items():
        if top != other:
            log.info("%s and %s are checkouts of one repository and count as one", other, top)
    return checkouts


def _rules(items: list[_Item], checkouts: Mapping[Path, Path]) -> dict[str, Callable[[_Item], str]]:
    """The ways to tell repositories apart, the preferred first."""
    names = _short_names(checkouts.values())

    def git(item: _Item) -> str:
        return names[checkouts[item.found.top]] if item.found.top else item.root.name

    def top_level(item: _Item) -> str:
        # A module and a package of one name are the same module.
        parts = item.below.parts
        return f"{item.root.name}/{parts[0] if len(parts) > 1 else item.below.stem}"

    def folder(item: _Item) -> str:
        return (PurePosixPath(item.root.name) / item.below.parent).as_posix()

    return {"git": git, "path": lambda item: item.root.name, "top-level": top_level, "folder": folder}


def _joined(rule: Callable[[_Item], str], items: list[_Item], checkouts: Mapping[Path, Path]) -> Callable[[_Item], str]:
    """A rule that keeps the same file of one repository together, in whichever checkouts of it."""
    several = {first for top, first in checkouts.items() if top != first}
    if not several:
        return rule
    same, names = Groups(), dict[str, str]()
    for item in items:
        top = item.found.top
        if top and checkouts[top] in several:
            same.join(rule(item), f"{checkouts[top]}\0{item.found.path.relative_to(top)}")
    for name in sorted(set(map(rule, items))):
        names.setdefault(same.of(name), name)
    return lambda item: names[same.of(rule(item))]


def _short_names(paths: Iterable[Path]) -> dict[Path, str]:
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


def _printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode()


def _size(item: _Item) -> int | None:
    try:
        return item.found.path.stat().st_size
    except OSError:
        return None


def _digest(path: Path) -> str:
    try:
        return digest.of_file(path)
    except OSError:
        return "unreadable"
