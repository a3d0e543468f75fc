"""What is checked out: commit, files, whether they differ, and which repository it is."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from artifacts.errors import InputError
from artifacts.paths import real
from tasks.checkout.asking import (
    Git,
    Refused,
    asked,
    check_name,
    check_regular,
    common_of,
    configure,
    git_directory,
    is_git_directory,
    settings_of,
)

_SUBMODULE, _FOLDER = b"160000", b"040000"
_ALGORITHMS = {40: hashlib.sha1, 64: hashlib.sha256}
"""By digits of an object's name."""


@dataclass(frozen=True)
class Checkout:
    """A working tree."""

    top: Path
    commit: str
    """Its commit, with `-dirty` when the working tree differs; empty before the first one."""
    tracked: tuple[str, ...]
    """Names of the files in its index, below the top. The files need not be there."""
    submodules: tuple[str, ...]
    """Folders of submodules, below the top."""
    identity: frozenset[str]
    """What tells its repository from others: two checkouts that share one of these are of the same repository."""


def top_of(folder: Path) -> Path | None:
    """The nearest folder, this one or one that it lies in, that is a working tree. It may be a broken one.

    Raises:
        Refused: the folder lies in git's own files, as a bare repository does.
    """
    for place in (folder, *folder.parents):
        if os.path.lexists(place / ".git"):
            return place
        if is_git_directory(place):
            raise Refused(f"{place} holds git's own files and no code; give a checkout of it")
    return None


def read(top: Path) -> Checkout | None:
    """What git knows of a working tree; None where there is none (its repository is bare, and worktrees lie beside it).

    Raises:
        Refused: git cannot read it, or its index names what is not in it.
    """
    return asked(top, lambda git: _read(top, git))


def _read(top: Path, git: Git) -> Checkout | None:
    settings = settings_of(git)
    if settings.get("core.bare", "no").lower() in ("", "true", "yes", "on", "1"):
        if (git.theirs / "index").exists() and git.theirs == git.common:
            raise Refused("core.bare is set, though it has an index")
        if git.theirs == git.common:
            return None
    configure(git, settings)
    _check_sums(git, settings.get("extensions.objectformat", "sha1"))
    entries = _entries(git)
    names = dict.fromkeys(entry.name for entry in entries)  # an unmerged file stands there several times
    submodules = dict.fromkeys(entry.name for entry in entries if entry.mode == _SUBMODULE)
    commit, tree = _commit(git)
    check_regular(top / os.fsdecode(folder) / ".gitattributes" for folder in _folders(names))
    changed = set(git.ask("ls-files", "--modified", "-z", *git.sparse).split(b"\0")[:-1])
    dirty = bool(commit) and bool(changed - submodules.keys() or _tree(entries, len(tree)) != tree)
    return Checkout(
        top,
        commit + ("-dirty" if dirty else ""),
        tuple(os.fsdecode(name) for name in names if name not in submodules and not name.endswith(b"/")),
        tuple(map(os.fsdecode, submodules)),
        _identity(git, settings, commit),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the index: a file, a submodule, or a whole folder of a sparse one."""

    mode: bytes
    id: bytes
    is_merged: bool
    name: bytes


def _entries(git: Git) -> list[_Entry]:
    entries = []
    for line in git.ask("ls-files", "--stage", "-z", *git.sparse).split(b"\0")[:-1]:
        facts, name = line.split(b"\t", 1)
        mode, identifier, stage = facts.split()
        # git looks at names when it puts them into an index, not when it reads one
        check_name(name, (name.removesuffix(b"/") if mode == _FOLDER else name).split(b"/"), "its index")
        entries.append(_Entry(mode, identifier, stage == b"0", name))
    return entries


def _check_sums(git: Git, algorithm: str) -> None:
    """Git does not look at the checksum of an index that it reads. One of zeros says that there is none."""
    for index in (git.place / "index", *git.place.glob("sharedindex.*")):
        if index.exists() and algorithm in ("sha1", "sha256"):
            content, length = index.read_bytes(), hashlib.new(algorithm).digest_size
            if content[-length:] not in (bytes(length), hashlib.new(algorithm, content[:-length]).digest()):
                raise Refused(f"{git.theirs / index.name} is damaged: its checksum is wrong")


def _folders(names: Iterable[bytes]) -> set[bytes]:
    """The folders that these names lie in, at every level; the top is the empty name."""
    folders = set[bytes]()
    for name in names:
        while name and (name := name.rpartition(b"/")[0]) not in folders:
            folders.add(name)
    return folders


def _commit(git: Git) -> tuple[str, bytes]:
    """The commit and its tree; empty before the first one."""
    commit = git.ask("rev-parse", "--verify", "--quiet", "HEAD", fine=(0, 1)).strip().decode()
    if not commit:
        return "", b""
    # As it is written: a clone without trees does not know what it says.
    return commit, git.ask("cat-file", "commit", commit).split(b"\n", 1)[0].removeprefix(b"tree ")


def _tree(entries: list[_Entry], digits: int) -> bytes:
    """The tree that a commit of the index would have; empty while files are unmerged.

    Computed here: git would write it, and give new times to what the repository already has of it.
    """
    if not all(entry.is_merged for entry in entries):
        return b""
    lines: dict[bytes, list[tuple[bytes, bytes]]] = {
        folder: [] for folder in (b"", *_folders(entry.name.removesuffix(b"/") for entry in entries))
    }
    """By folder: what is in it, each with what it is sorted by."""

    def put(name: bytes, mode: bytes, identifier: bytes) -> None:
        above, _, last = name.rpartition(b"/")
        line = mode.lstrip(b"0") + b" " + last + b"\0" + bytes.fromhex(identifier.decode())
        lines[above].append((last + b"/" if mode == _FOLDER else last, line))

    for entry in entries:
        put(entry.name.removesuffix(b"/"), entry.mode, entry.id)
    identifier = b""
    for folder in sorted(lines, key=lambda name: (name.count(b"/"), name), reverse=True):
        content = b"".join(line for _, line in sorted(lines[folder]))
        identifier = _ALGORITHMS[digits](b"tree %d\0" % len(content) + content).hexdigest().encode()
        if folder:
            put(folder, _FOLDER, identifier)
    return identifier


def _identity(git: Git, settings: dict[str, str], commit: str) -> frozenset[str]:
    """By its place, its commit, its first commit (a shallow clone has none), and where it was cloned from."""
    keys = {_place(git.common)}
    if commit:
        first = git.ask("rev-list", "--first-parent", "--max-parents=0", commit).strip()
        shallow = git.place / "shallow"
        cut = first in shallow.read_bytes().split() if shallow.exists() else False
        keys |= {f"commit {commit}"} if cut else {f"commit {commit}", f"root {first.decode()}"}
    urls = {name: url for name, url in settings.items() if re.fullmatch(r"remote\..+\.url", name)}
    url = urls.get("remote.origin.url") or (next(iter(urls.values())) if len(urls) == 1 else "")
    if url:
        keys.add(_remote(url, git.top))
    return frozenset(keys)


def _place(git_directory: Path) -> str:
    return f"place {git_directory}"


def address(url: str) -> str | None:
    """A remote address without what does not tell repositories apart: scheme, user, port, case, `.git`; None for a path
    on this machine."""
    scheme, found, rest = url.partition("://")
    if found and scheme != "file":
        host, _, path = rest.partition("/")
        host = re.sub(r":\d*$", "", host.rpartition("@")[2])
    elif not found and re.match(r"[^/]+:", url):  # host:path, as for ssh
        host, _, path = url.partition(":")
        host = host.rpartition("@")[2]
    else:
        return None
    return f"{host}/{path.strip('/').removesuffix('.git').rstrip('/')}".lower()


def _remote(url: str, top: Path) -> str:
    if found := address(url):
        return f"remote {found}"
    place = top / (unquote(url.removeprefix("file://")) if url.startswith("file://") else url)
    with suppress(OSError, ValueError, Refused, InputError):  # what is there may be anything; it is not what is read
        if os.path.lexists(place / ".git"):
            return _place(common_of(git_directory(place)))
        for folder in (place, Path(f"{place}.git")):
            if is_git_directory(folder):
                return _place(real(folder))
    return f"remote {os.path.normpath(place)}"
