"""Code that lies on this machine: folders, single files, git repositories, the standard library."""

from __future__ import annotations

import hashlib
import logging
import platform
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from typing import TypeVar

from artifacts import digest
from artifacts.errors import InputError
from artifacts.paths import shown
from artifacts.units import FEWEST, UNITS, HeldOutBy
from tasks import checkout
from tasks.sampling import history
from tasks.sampling.candidates import Carried, Row, TooLittle
from tasks.sampling.config import LocalSource
from tasks.sampling.excluding import Excluded
from tasks.sampling.languages import language_of
from tasks.sampling.licences import Licences
from tasks.sampling.local_files import FIELD, LocalFile, called, is_excluded, items_below, roots_of, short_names
from tasks.sampling.repositories import are_repositories, checkouts_of, joined, rules_of
from tasks.sampling.worktree import FoundFile, opened

log = logging.getLogger(__name__)

T = TypeVar("T")

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Blob:
    """A file of an earlier commit."""

    top: Path
    id: str


Entry = tuple[Row, str | Blob]
"""A file: what is known of it, and its name with all folders or what git has of it."""


class Authors:
    """Which commit was the last to add a line, by its words: in the file of its name, else in any of the repository."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str, str], str] = {}

    def add(self, repo: str, paths: Iterable[str], line: str, commit: str) -> None:
        for path in ("", *paths):
            self._found[repo, _printable(path), line] = commit

    def of(self, row: Row, line: str) -> str:
        """Empty for a line that none added."""
        return self._found.get((row.repo, row.path, line)) or self._found.get((row.repo, "", line), "")


class Listing:
    """The files below the configured paths, listed once for all ways to hold some of them out.

    Raises:
        InputError: a path does not exist, or there is no file below any.
    """

    def __init__(self, source: LocalSource) -> None:
        self.roots = roots_of(source.paths)
        self.items, self.left_out = items_below(self.roots, source)
        self.licences = Licences()
        self.digests: dict[str, str] = {}
        """Of the contents of files, by their places."""
        if not self.items:
            raise InputError(
                f"there are no files below {', '.join(source.paths)}{_without(self.left_out)}",
                field=FIELD,
                remedy="name folders with code; in git repositories only tracked files count; check `exclude`",
            )


class OpenLocalSource:
    """The files below the configured paths, in the order of their names. Of a history (`held_out_by` is `release`,
    `commit` or `commit-date`) those are files as they were, and what became of them is `later`.

    Args:
        languages: files in these count when repositories are told apart and when contents are compared.
        max_bytes: longer files are not read.
        share: of the commits that are later.
        listing: of the same paths, where there is one already.

    Raises:
        InputError: a path does not exist, or there is no file below any, or no history.
    """

    states_licenses = False
    samples = False

    def __init__(
        self,
        source: LocalSource,
        languages: tuple[str, ...],
        max_bytes: int | None = None,
        held_out_by: HeldOutBy = "repository",
        share: float = 0.1,
        listing: Listing | None = None,
    ) -> None:
        self._source, self._languages, self._max_bytes = source, frozenset(languages), max_bytes
        self._digests = None if listing is None else listing.digests
        listing = listing or Listing(source)
        items, self._left_out = listing.items, listing.left_out.copy()
        self._roots, self._licences = listing.roots, listing.licences
        self.later: list[Entry] = []
        """Files in the configured languages as they are later than those that are learned from."""
        self.tells_repositories = False
        """Whether what counts as a repository is one, as far as can be told."""
        self._cuts: dict[str, tuple[Path, str]] = {}
        """By repository with later commits: its folder, and the commit that is learned from; empty for one that began
        later."""
        if held_out_by == "release":
            self._rule, files = self._releases(items)
        elif held_out_by in ("commit", "commit-date"):
            self._rule, files = self._commits(items, share, fewest=FEWEST if held_out_by == "commit" else 1)
        else:
            self._rule, repository = self._tell_apart(items, held_out_by)
            files = [(self._row(item, repository(item)), item.found.name) for item in items]
            given = source.repositories == "path"  # whoever says so has one repository in each
            self.tells_repositories = given or are_repositories(self._rule, repository, items)
        files.sort(key=lambda file: (file[0].repo, file[0].path))
        self._files: list[Entry] = files
        self.later.sort(key=lambda file: (file[0].repo, file[0].path))

    def describe(self) -> str:
        names = ", ".join(_printable(called(name)) for name in self._source.paths)
        repositories = UNITS["repository"].count(len({row.repo for row, _ in self._counted()}))
        return f"local: {names} ({repositories}, told apart by {self._rule}{_without(self._left_out)})"

    def fingerprint(self) -> str:
        """Over names, licences, revisions and contents of the files in the configured languages, and over what a sample
        says of the source besides: a sample that is reused says what is true now. No absolute paths."""
        facts = (
            [row.repo, row.path, row.license, row.revision, self._digest(row, path)]
            for row, path in chain(self._counted(), self.later)
        )
        others = Counter(row.language or "" for row, _ in self._files if row.language not in self._languages)
        return digest.of_list(facts, sorted(others.items()), self.describe())

    def batches(self) -> Iterator[_Files]:
        return self._in_batches(self._files)

    def later_batches(self) -> Iterator[_Files]:
        """The files of `later`."""
        return self._in_batches(self.later)

    def before(self) -> dict[tuple[str, str], Entry]:
        """The files that are learned from and that there is something later of, by repository and path. Those that are
        gone later are among them."""
        repositories = {row.repo for row, _ in self.later}
        return {(row.repo, row.path): (row, place) for row, place in self._counted() if row.repo in repositories}

    def who_added(self, lines: Collection[str]) -> Authors:
        """Which later commits added these lines (without white space at their ends)."""
        found = Authors()

        @cache
        def paths(top: Path, name: str) -> list[str]:
            path = top / name
            return [root.below(path).as_posix() for root in self._roots if root.path in (path, *path.parents)]

        def see(repo: str, top: Path, commit: str, name: str, line: str) -> None:
            if (text := line.strip()) in lines:
                found.add(repo, paths(top, name), text, f"{repo} {commit[:12]}")

        for repo, (top, cut) in self._cuts.items():
            _by_git(partial(checkout.read_additions, since=cut, see=partial(see, repo, top)), top)
        return found

    def read(self, entries: Sequence[Entry]) -> Iterator[bytes | None]:
        """Their contents; None for what cannot be read."""
        return _Files(entries, self._max_bytes).contents(range(len(entries)))

    def _counted(self) -> Iterator[Entry]:
        """The files in the configured languages."""
        return (entry for entry in self._files if entry[0].language in self._languages)

    def _in_batches(self, files: list[Entry]) -> Iterator[_Files]:
        for start in range(0, len(files), _BATCH):
            yield _Files(files[start : start + _BATCH], self._max_bytes)

    def _digest(self, row: Row, path: str | Blob) -> str:
        if isinstance(path, Blob):
            return path.id
        if self._max_bytes is not None and row.size is not None and row.size > self._max_bytes:
            return "too large"  # it is not read, whatever it holds
        if self._digests is None:  # it is asked for once
            return _digest_of(path)
        if path not in self._digests:
            self._digests[path] = _digest_of(path)
        return self._digests[path]

    def _releases(self, items: list[LocalFile]) -> tuple[str, list[Entry]]:
        """The files of the newest older release of each project, and all that are of none; `later` gets the newest's.

        Raises:
            TooLittle: of no project there are two releases.
        """
        projects: dict[str, dict[history.Release, list[LocalFile]]] = {}
        others, entries, told = [], list[Entry](), []
        for item in items:
            release = history.release_of(item.found.path, item.root.path)
            if release:
                projects.setdefault(release.project, {}).setdefault(release, []).append(item)
            else:
                others.append(item)
        _, repository = self._tell_apart(items)
        for project, releases in sorted(projects.items()):
            *older, newest = sorted(releases, key=lambda release: (release.version, release.folder))
            learned = next((one for one in reversed(older) if one.version < newest.version), newest)
            entries += (self._of_release(item, learned) for item in releases[learned])
            if learned != newest:
                self.later += (
                    entry
                    for item in releases[newest]
                    if (entry := self._of_release(item, newest))[0].language in self._languages
                )
                told.append(f"{project} {learned.called} → {newest.called}")
            left = sum(len(files) for release, files in releases.items() if release not in (learned, newest))
            if left:
                self._left_out["files of other releases"] += left
        if not told:
            raise TooLittle(
                "no project has two releases among the source's paths",
                field="sampling.held_out_by",
                remedy="name the folders of at least two releases, called as in name-1.2 and name-1.3, or hold out by"
                " commit-date, folder or repository",
            )
        rows = ((self._row(item, repository(item)), item.found.name) for item in others)
        return f"release; {', '.join(told)}", [*entries, *rows]

    def _of_release(self, item: LocalFile, release: history.Release) -> Entry:
        path = item.found.path.relative_to(release.folder).as_posix()
        row = self._row(item, release.project)
        return replace(row, path=_printable(path), revision=release.called), item.found.name

    def _commits(self, items: list[LocalFile], share: float, fewest: int) -> tuple[str, list[Entry]]:
        """The files as they were before the newest commits, and those that git does not track; `later` gets what the
        working trees hold of repositories that have such commits.

        Raises:
            TooLittle: there is no git repository, or none with two commits.
        InputError: git cannot read one.
        """
        checkouts = checkouts_of(items)
        firsts = sorted(set(checkouts.values()))
        histories = {top: _by_git(checkout.commits, top) for top in firsts}
        if max(map(len, histories.values()), default=0) < 2:
            what = "no git repository of the source has two commits" if firsts else "no source path is a git repository"
            raise TooLittle(
                f"{what}, so nothing is known of what was added later",
                field="sampling.held_out_by",
                remedy="fetch the history of a shallow clone (`git fetch --unshallow`), or hold out by release, folder"
                " or repository",
            )
        taken = history.newest(histories, share)
        repository = rules_of(items, checkouts)["git"]
        newest, all_ = sum(taken.values()), sum(map(len, histories.values()))
        # what is not committed counts as one more
        dirty = any(item.found.commit.endswith("-dirty") for item in items)
        if newest + dirty < fewest:
            raise TooLittle(
                f"only {newest:,} of {all_:,} commits are the newest {share:.0%}, and an interval needs {fewest}",
                field="sampling.held_out_by",
                remedy="hold out by commit-date, whose interval is over files, or take a repository with more commits",
            )
        names = {top: _printable(name) for top, name in short_names(firsts).items()}
        entries = list[Entry]()
        for item in items:
            top = item.found.top
            if top and checkouts[top] != top:
                self._left_out["files of other checkouts"] += 1
            elif top and taken[top]:
                row = self._row(item, repository(item))
                if row.language in self._languages:
                    self.later.append((row, item.found.name))
            else:
                entries.append((self._row(item, repository(item)), item.found.name))
        roots = list(dict.fromkeys(item.root for item in items))
        excluded = Excluded(self._source.exclude)
        found = {item.found.top: item.found.checkout for item in items}
        for top in firsts:
            before = histories[top][: len(histories[top]) - taken[top]]
            commit = before[-1].id if before else ""
            if taken[top]:
                self._cuts[names[top]] = top, commit
            if not taken[top] or not commit:
                continue
            for file in _by_git(partial(checkout.files_of, commit=commit), top):
                path = top / file.name
                root = next((one for one in roots if path == one.path or one.path in path.parents), None)
                if root and not is_excluded(root, excluded, path):
                    item = LocalFile(root, FoundFile(str(path), found[top]))
                    row = replace(self._row(item, repository(item)), revision=commit, size=file.size)
                    entries.append((row, Blob(top, file.blob)))
        return f"git; later: the newest {newest:,} of {all_:,} commits", entries

    def _tell_apart(
        self, items: list[LocalFile], held_out_by: HeldOutBy = "repository"
    ) -> tuple[str, Callable[[LocalFile], str]]:
        """The rule that says what a repository is, by name and as a function."""
        checkouts = checkouts_of(items)
        rules = {name: joined(rule, items, checkouts) for name, rule in rules_of(items, checkouts).items()}
        if held_out_by == "folder":
            folder = rules["folder"]  # with a slash behind it: a folder never counts as the repository of its name
            return "folder", lambda item: f"{folder(item)}/"
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

    def _row(self, item: LocalFile, repo: str) -> Row:
        revision = f"python-{platform.python_version()}" if item.root.is_stdlib else item.found.commit
        path = item.below.as_posix()
        # one string for all files of a repository
        name = sys.intern(_printable(repo))
        return Row(name, _printable(path), self._license(item), language_of(path), revision, _size(item))

    def _license(self, item: LocalFile) -> str:
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

    files: Sequence[Entry]
    max_bytes: int | None = None

    def rows(self) -> Sequence[Row]:
        return [row for row, _ in self.files]

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        blobs: dict[Path, list[str]] = {}
        for number in wanted:
            if isinstance(place := self.files[number][1], Blob):
                blobs.setdefault(place.top, []).append(place.id)
        earlier = {
            Blob(top, blob): content
            for top, ids in blobs.items()
            for blob, content in zip(ids, _by_git(partial(checkout.contents_of, blobs=ids), top), strict=True)
        }
        for number in wanted:
            path = self.files[number][1]
            if isinstance(path, Blob):
                yield earlier[path]
                continue
            try:
                # One byte more than may be tells that a file has grown; it may also have become something else.
                with opened(Path(path)) as file:
                    yield file.read(-1 if self.max_bytes is None else self.max_bytes + 1)
            except OSError as error:
                log.warning("cannot read %s: %s", shown(path, 500), error.strerror or error)
                yield None

    def portable(self, wanted: Callable[[Row | None], bool]) -> Carried:
        """Bytes, not paths: the files lie on this machine."""
        rows = self.rows()
        numbers = [number for number, row in enumerate(rows) if wanted(row)]
        return Carried(rows, dict(zip(numbers, self.contents(numbers), strict=True)))


def _by_git(question: Callable[[Path], T], top: Path) -> T:
    """What git knows of a repository's history.

    Raises:
        InputError: it cannot read it.
    """
    try:
        return question(top)
    except checkout.Refused as refusal:
        raise InputError(
            str(refusal),
            field=FIELD,
            remedy="clone it in full, leave it out, or hold out by repository, folder or release",
        ) from refusal


def _digest_of(path: str) -> str:
    try:
        with opened(Path(path)) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return "unreadable"


def _without(left_out: Counter[str]) -> str:
    """What is not taken, with the number of folders or files."""
    parts = [f"{kind} {count:,}" for kind, count in sorted(left_out.items())]
    return f"; left out: {', '.join(parts)}" if parts else ""


def _printable(name: str) -> str:
    """A file name as text: bytes that are no UTF-8 become question marks."""
    return name.encode("utf-8", "replace").decode()


def _size(item: LocalFile) -> int | None:
    try:
        return item.found.path.stat().st_size
    except OSError:
        return None
