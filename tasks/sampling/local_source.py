"""Code that lies on this machine: folders, single files, git repositories, the standard library."""

from __future__ import annotations

import hashlib
import logging
import platform
import sysconfig
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

from artifacts import digest
from artifacts.errors import InputError
from artifacts.paths import real, shown
from artifacts.reading import blamed_on
from tasks.sampling.candidates import Carried, Row
from tasks.sampling.config import PACKAGE, STANDARD_LIBRARY, LocalSource
from tasks.sampling.excluding import Excluded
from tasks.sampling.languages import language_of
from tasks.sampling.licences import Licences
from tasks.sampling.split import Groups
from tasks.sampling.worktree import Finder, FoundFile, is_installed, opened

log = logging.getLogger(__name__)

_FIELD = "sampling.source.paths"
_BATCH = 64


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
    found: FoundFile
    below: PurePosixPath
    """Its path below the root; the file's name when the root is that file."""


class OpenLocalSource:
    """The files below the configured paths, in the order of their names.

    Args:
        languages: files in these count when repositories are told apart and when contents are compared.
        max_bytes: longer files are not read.

    Raises:
        InputError: a path does not exist, or there is no file below any.
    """

    states_licenses = False
    samples = False

    def __init__(self, source: LocalSource, languages: tuple[str, ...], max_bytes: int | None = None) -> None:
        self._source, self._languages, self._max_bytes = source, frozenset(languages), max_bytes
        self._licences = Licences()
        items, self._left_out = _items(_roots(source.paths), source)
        if not items:
            raise InputError(
                f"there are no files below {', '.join(source.paths)}{self._without()}",
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
        names = ", ".join(_printable(_called(name)) for name in self._source.paths)
        repositories = len({row.repo for row, _ in self._counted})
        return f"local: {names} ({repositories} repositories, told apart by {self._rule}{self._without()})"

    def _without(self) -> str:
        """What is not taken, with the number of folders or files."""
        parts = [f"{kind} {count:,}" for kind, count in sorted(self._left_out.items())]
        return f"; left out: {', '.join(parts)}" if parts else ""

    def fingerprint(self) -> str:
        """Over names, licences, revisions and contents of the files in the configured languages, and over what a sample
        says of the source besides: a sample that is reused says what is true now. No absolute paths."""
        facts = [
            [row.repo, row.path, row.license, row.revision, self._digest(row, path)] for row, path in self._counted
        ]
        others = Counter(row.language or "" for row, _ in self._files if row.language not in self._languages)
        return digest.of_json([facts, sorted(others.items()), self.describe()])

    def batches(self) -> Iterator[_Files]:
        for start in range(0, len(self._files), _BATCH):
            yield _Files(self._files[start : start + _BATCH], self._max_bytes)

    def _digest(self, row: Row, path: Path) -> str:
        if self._max_bytes is not None and row.size is not None and row.size > self._max_bytes:
            return "too large"  # it is not read, whatever it holds
        try:
            with opened(path) as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return "unreadable"

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
    max_bytes: int | None = None

    def rows(self) -> Sequence[Row]:
        return [row for row, _ in self.files]

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        for number in wanted:
            path = self.files[number][1]
            try:
                # One byte more than may be tells that a file has grown; it may also have become something else.
                with opened(path) as file:
                    yield file.read(-1 if self.max_bytes is None else self.max_bytes + 1)
            except OSError as error:
                log.warning("cannot read %s: %s", shown(str(path), 500), error.strerror or error)
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
        remedy = (
            "name a folder of the installed package, as in package:NAME/FOLDER"
            if name.startswith(PACKAGE)
            else f"name folders or files; {shown(str(Path.cwd()), 200)} is the current folder"
        )
        with blamed_on(path, field=_FIELD, remedy=remedy):
            if not path.exists():
                raise InputError(f"{name} does not exist", field=_FIELD, remedy=remedy)
            if not path.is_dir() and not path.is_file():
                raise InputError(f"{name} is no folder and no file", field=_FIELD, remedy=remedy)
        places[real(path)] = is_stdlib
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
    wanted, _, below = name.removeprefix(PACKAGE).partition("/")
    if ".." in PurePosixPath(below).parts:
        raise InputError(
            f"{shown(name)} leads out of the package",
            field=_FIELD,
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
            field=_FIELD,
            remedy="name an installed package (one without dots), or leave it out",
        )
    # a second slash would make what follows an absolute path, which stands for itself
    return Path(found.submodule_search_locations[0], below.strip("/"))


def _called(name: str) -> str:
    """What one of the configured paths is called where no folder of this machine may be named."""
    if name == STANDARD_LIBRARY:
        return name
    return name.removeprefix(PACKAGE) if name.startswith(PACKAGE) else real(Path(name).expanduser()).name


def _items(roots: list[_Root], source: LocalSource) -> tuple[list[_Item], Counter[str]]:
    """Each file once, though roots may overlap: it belongs to the first that holds it. And what is left out, by kind.

    Raises:
        InputError: a pattern of `exclude` is none.
    """
    excluded = Excluded(source.exclude)
    finder, plain = (
        Finder((root.path for root in roots), tracked_only=tracked_only)
        for tracked_only in (source.tracked_only, False)
    )
    items: dict[Path, _Item] = {}
    for root in roots:
        # An environment may lie in a working tree; what was installed into it is no part of that.
        where = plain if root.is_stdlib or is_installed(root.path) else finder
        for found in where.files_below(root.path, partial(_excluded, root, excluded)):
            items.setdefault(found.path, _Item(root, found, root.below(found.path)))
    if not all(root.is_stdlib or is_installed(root.path) for root in roots):  # those differ from version to version
        excluded.tell_of_unused()
    left_out = +finder.left_out
    if excluded.count:
        left_out["excluded files"] = excluded.count
    return list(items.values()), left_out


def _excluded(root: _Root, excluded: Excluded, path: Path) -> bool:
    # a repository that is left out is asked about by the name of git's folder in it
    return excluded.has(root.below(path).as_posix(), counts=path.name != ".git")


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
