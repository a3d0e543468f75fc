"""What git knows of a working tree, asked so that nothing of the repository is run, followed or written.

A repository configures programs (filters, hooks, monitors, helpers, transports), and most commands of git run
some of them. So git is asked in a git directory of our own, made for the question: the index is a copy in it, commits
are found through it, and its configuration holds nothing but the format of the repository. The person's own
configuration is left out, too, and so is the environment's.

What counts as dirty: the index differs from the commit, or a tracked file from the index in its contents. Times and
permissions do not count, nor do line ends and encodings that git itself converted at the checkout. What a filter would
have to undo does (Git LFS and its like): where the times of such a file are not those that git noted, the file counts
as changed. Submodules do not count: they are checkouts of their own.
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import unquote

from artifacts.errors import InputError
from artifacts.paths import real
from artifacts.private import temporary_folder
from artifacts.reading import read_bytes

PREFIX = "codetune-git-"
"""Begins the names of the folders in the temporary folder."""
_SECONDS = 600
"""Longest time that git may take to answer; contents of files whose times changed are read."""
_LARGEST_INDEX = 1 << 29
"""Bytes; of a split one, of all its parts."""
_MEMORY = 4 << 30
"""Bytes that git may take: a few bytes of an object may stand for any number."""
_LARGEST_ANSWER = 8 << 30
"""Bytes that git may write into a file."""
_LARGEST_TEXT = 16 << 20
_STEPS = 5
"""From a symbolic ref to the next: no more does git follow."""
_STORES = 100
"""Of objects that a repository borrows from."""
_SUBMODULE, _FOLDER = b"160000", b"040000"
_HUNK = re.compile(rb"@@ -\d+(?:,\d+)? \+\d+(?:,(\d+))? @@")
_ALGORITHMS = {40: hashlib.sha1, 64: hashlib.sha256}
"""By digits of an object's name."""
_HARMLESS = frozenset({"noop", "noop-v1", "partialclone", "preciousobjects", "relativeworktrees", "worktreeconfig"})
"""Extensions that say nothing about how to read; of `partialclone` git would fetch what is missing."""
_SETTINGS = (
    *("-c", "core.autocrlf=input"),  # a file that differs in line ends alone has not changed
    *("-c", "core.fileMode=false"),
    *("-c", "core.fsmonitor=false"),
    *("-c", "core.hooksPath=/dev/null"),
    *("-c", "gc.auto=0"),
)


T = TypeVar("T")


class Refused(Exception):  # noqa: N818 - what git said
    """Git cannot read a repository; the message names it and says why in git's own words."""


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


def is_git_directory(folder: Path) -> bool:
    """Whether it is what `.git` is in a working tree, under any name."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()


def read(top: Path) -> Checkout | None:
    """What git knows of a working tree; None where there is none (its repository is bare, and worktrees lie beside it).

    Raises:
        Refused: git cannot read it, or its index names what is not in it.
    """
    return _asked(top, lambda git: _read(top, git))


class Commit(NamedTuple):
    """A commit of the line that a branch itself has gone: of a merge, the first parent is on it and the others not."""

    seconds: int
    """When it was committed, since 1970; at least as late as those before it, whatever their dates say."""
    id: str


def commits(top: Path) -> list[Commit]:
    """The commits that led to what is checked out, the oldest first, as far as the clone has them.

    Raises:
        Refused: git cannot read the repository.
    """

    def ask(git: _Git) -> list[Commit]:
        _configure(git, _settings(git))
        if not (head := git.ask("rev-parse", "--verify", "--quiet", "HEAD", fine=(0, 1)).strip().decode()):
            return []
        found, latest = list[Commit](), 0
        for line in reversed(git.ask("rev-list", "--first-parent", "--timestamp", head).decode().splitlines()):
            seconds, _, identifier = line.partition(" ")
            latest = max(latest, int(seconds))
            found.append(Commit(latest, identifier))
        return found

    return _asked(top, ask)


class EarlierFile(NamedTuple):
    """A regular file of a commit."""

    name: str
    """Below the top."""
    blob: str
    size: int


def files_of(top: Path, commit: str) -> list[EarlierFile]:
    """The regular files of a commit.

    Raises:
        Refused: git cannot read the repository, or the clone lacks contents of the commit.
    """

    def ask(git: _Git) -> list[EarlierFile]:
        _configure(git, _settings(git))
        found = []
        for line in git.ask("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0")[:-1]:
            facts, name = line.split(b"\t", 1)
            mode, _, identifier, size = facts.split()
            _check_name(name, name.split(b"/"), "a commit")
            if mode.startswith(b"100"):
                if not size.isdigit():
                    raise Refused("it lacks the contents of earlier commits, as a partial clone does")
                found.append(EarlierFile(os.fsdecode(name), identifier.decode(), int(size)))
        return found

    return _asked(top, ask)


def contents_of(top: Path, blobs: Sequence[str]) -> list[bytes]:
    """What files of earlier commits held, by their blobs.

    Raises:
        Refused: git cannot read the repository, or the clone lacks one of them.
    """

    def ask(git: _Git) -> list[bytes]:
        _configure(git, _settings(git))
        said = git.ask("cat-file", "--batch", told="".join(f"{blob}\n" for blob in blobs).encode())
        found, place = [], 0
        for _ in blobs:
            end = said.index(b"\n", place)
            _, kind, *size = said[place:end].split()
            if kind != b"blob":
                raise Refused("it lacks the contents of earlier commits, as a partial clone does")
            place = end + 1 + int(size[0]) + 1
            found.append(said[end + 1 : place - 1])
        return found

    return _asked(top, ask) if blobs else []


def read_additions(top: Path, since: str, see: Callable[[str, str, str], None]) -> None:
    """Call `see` with commit, file (below the top) and line for every line that the branch added after a commit, the
    oldest first. A merge added what differs from its first parent. Of a moved file only what changed was added.

    Args:
        top: the working tree.
        since: the commit; empty for all from the first one on.
        see: is told.

    Raises:
        Refused: git cannot read the repository, or the clone lacks contents of its commits.
    """

    def ask(git: _Git) -> None:
        _configure(git, _settings(git))
        # of a file that the repository does not want shown (`-diff`) lines were added, too
        (git.place / "info" / "attributes").write_text("* !diff\n")
        said = git.place / "said"
        what = ("--first-parent", "-m", "--reverse", "-p", "-U0", "-M", "--no-color", "--no-ext-diff", "--no-textconv")
        names = ("--src-prefix=a/", "--dst-prefix=b/", "--format=commit %H")
        git.ask("log", *what, *names, f"{since}..HEAD" if since else "HEAD", into=said)
        commit = name = ""
        left = 0
        with said.open("rb") as lines:
            for line in lines:
                if left and line.startswith(b"+"):
                    left -= 1
                    see(commit, name, line[1:].decode("utf-8", "replace"))
                elif hunk := _HUNK.match(line):
                    left = int(hunk[1] or 1)
                elif line.startswith(b"commit "):
                    commit = line[7:].strip().decode()
                elif line.startswith((b"+++ b/", b'+++ "b/')):
                    name = os.fsdecode(_unquoted(line[4:].rstrip(b"\t\n")).removeprefix(b"b/"))

    _asked(top, ask)


def _asked(top: Path, question: Callable[[_Git], T]) -> T:
    """The answer of a repository, asked in a git directory of our own."""
    with temporary_folder(PREFIX) as place:
        try:
            return question(_asking(place, top))
        except Refused as refusal:
            raise Refused(f"the git repository {top} cannot be read: {refusal}") from refusal
        except InputError as error:  # of a file that is no file
            raise Refused(f"the git repository {top} cannot be read: {error.problem}") from error
        except (OSError, ValueError) as error:
            raise Refused(f"the git repository {top} cannot be read: {error}") from error


@dataclass(frozen=True)
class _Git:
    """A git directory of our own that stands for a repository's."""

    place: Path
    theirs: Path
    """The repository's, of this working tree alone."""
    common: Path
    """The repository's, shared by all of its working trees."""
    top: Path

    @property
    def sparse(self) -> tuple[str, ...]:
        """For listing files of a sparse index: git is to leave its folders folders. Unfolding them gives new times to
        what the repository has of them."""
        index = self.place / "index"
        return ("--sparse",) if index.exists() and b"sdir\0\0\0\0" in index.read_bytes() else ()

    def ask(self, *arguments: str, fine: tuple[int, ...] = (0,), told: bytes = b"", into: Path | None = None) -> bytes:
        """What a command prints that is `told` this; nothing, where it goes `into` a file, which may be large.

        Raises:
            Refused: the status is another than the `fine` ones.
        """
        # Without what is relative: git would be sought in the working tree.
        path = os.pathsep.join(filter(os.path.isabs, os.environ.get("PATH", os.defpath).split(os.pathsep)))
        program = shutil.which("git", path=path)
        if program is None:
            raise Refused("git is not installed")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "SSH_"))}
        environment |= {
            "PATH": path,
            "GIT_DIR": str(self.place),
            "GIT_WORK_TREE": str(self.top),
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_NO_LAZY_FETCH": "1",
            "GIT_NO_REPLACE_OBJECTS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "HOME": str(self.place),
            "XDG_CONFIG_HOME": str(self.place),
            "LC_ALL": "C",
        }
        with (
            nullcontext(subprocess.PIPE) if into is None else into.open("wb") as output,
            subprocess.Popen(
                [program, *_SETTINGS, *arguments],
                cwd=self.top,
                env=environment,
                stdin=subprocess.PIPE if told else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.PIPE,
            ) as process,
        ):
            try:
                with suppress(ProcessLookupError):  # it has ended already
                    resource.prlimit(process.pid, resource.RLIMIT_DATA, (_MEMORY, _MEMORY))
                    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (_LARGEST_ANSWER, _LARGEST_ANSWER))
                said, complaints = process.communicate(told or None, timeout=_SECONDS)
            except subprocess.TimeoutExpired:
                raise Refused(f"git {arguments[0]} took more than {_SECONDS} s") from None
            finally:
                process.kill()
        if process.returncode not in fine:
            # git's own words, with the name of the repository's files in the place of ours
            text = os.fsdecode(complaints).replace(str(self.place), str(self.theirs))
            words = "; ".join(line.strip() for line in text.splitlines()[:3] if line.strip())
            raise Refused(words or f"git {arguments[0]} ended with status {process.returncode}")
        return said or b""


def _asking(place: Path, top: Path) -> _Git:
    theirs = _git_directory(top)
    common = _common(theirs)
    if not ((theirs / "HEAD").is_file() and (common / "objects").is_dir() and (common / "refs").is_dir()):
        raise Refused(f"{theirs} lacks HEAD, objects or refs, so it is no git directory")
    git = _Git(place, theirs, common, top)
    (place / "objects" / "info").mkdir(parents=True)
    (place / "objects" / "info" / "alternates").write_bytes(_quoted(os.fsencode(common / "objects")) + b"\n")
    for shared in ("refs", "packed-refs", "reftable"):  # links: what is asked here only reads
        if (common / shared).exists():
            (place / shared).symlink_to(common / shared)
    (place / "info").mkdir()
    _copy(theirs / "info" / "sparse-checkout", place / "info" / "sparse-checkout", _LARGEST_TEXT)
    _copy(theirs / "HEAD", place / "HEAD", 4096)
    _copy(common / "shallow", place / "shallow", _LARGEST_TEXT)
    left = _LARGEST_INDEX
    for file in (theirs / "index", *theirs.glob("sharedindex.*")):
        _copy(file, place / file.name, left)
        left -= (place / file.name).stat().st_size if (place / file.name).exists() else 0
    _check_regular(_read_by_git(place / "HEAD", common))
    return git


def _read_by_git(head: Path, common: Path) -> Iterator[Path]:
    """The files of a repository, but for those that are copied, that git opens for what it is asked here."""
    yield common / "packed-refs"
    yield from (common / "reftable").glob("*")
    for _ in range(_STEPS):
        said = read_bytes(head, limit=4096)
        if not said.startswith(b"ref:"):
            break
        head = common / os.fsdecode(said.removeprefix(b"ref:").strip())
        yield head
        if not head.is_file():
            break
    waiting, seen = [real(common / "objects")], set[Path]()
    while waiting and len(seen) < _STORES:
        objects = waiting.pop()
        seen.add(objects)
        alternates = objects / "info" / "alternates"
        for pattern in ("[0-9a-f][0-9a-f]/*", "pack/*", "info/*", "info/commit-graphs/*"):
            yield from (file for file in objects.glob(pattern) if file.name != "commit-graphs")
        lines = read_bytes(alternates, limit=_LARGEST_TEXT).splitlines() if alternates.exists() else []
        named = {real(objects / os.fsdecode(_unquoted(line))) for line in lines if line[:1] not in (b"", b"#")}
        waiting += sorted(named - seen)


def _check_regular(files: Iterable[Path]) -> None:
    """Git would wait for ever for what a FIFO does not say."""
    for file in files:
        if os.path.lexists(file) and not file.is_file():
            raise Refused(f"{file} is no regular file")


def _git_directory(top: Path) -> Path:
    place = top / ".git"
    if place.is_dir():
        return real(place)
    said = read_bytes(place, limit=4096).rstrip(b"\r\n")
    if not said.startswith(b"gitdir: "):
        raise Refused(f"{place} is neither a folder nor names one (gitdir: …)")
    named = top / os.fsdecode(said.removeprefix(b"gitdir: "))
    if not named.is_dir():
        raise Refused(f"{place} points to {named}, which is not there")
    return real(named)


def _common(theirs: Path) -> Path:
    pointer = theirs / "commondir"
    return real(theirs / os.fsdecode(read_bytes(pointer, limit=4096).strip())) if pointer.exists() else theirs


def _copy(source: Path, target: Path, limit: int) -> None:
    """A copy with the same times: git compares the index' own with those of files."""
    if os.path.lexists(source):
        target.write_bytes(read_bytes(source, limit=limit))
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _quoted(path: bytes) -> bytes:
    """As git quotes a path in its files."""
    return b'"' + b"".join(bytes([c]) if 32 <= c < 127 and c not in b'"\\' else b"\\%03o" % c for c in path) + b'"'


def _unquoted(line: bytes) -> bytes:
    quoted = line.startswith(b'"') and line.endswith(b'"')
    return line[1:-1].decode("unicode_escape").encode("latin-1") if quoted else line


def _read(top: Path, git: _Git) -> Checkout | None:
    settings = _settings(git)
    if settings.get("core.bare", "no").lower() in ("", "true", "yes", "on", "1"):
        if (git.theirs / "index").exists() and git.theirs == git.common:
            raise Refused("core.bare is set, though it has an index")
        if git.theirs == git.common:
            return None
    _configure(git, settings)
    _check_sums(git, settings.get("extensions.objectformat", "sha1"))
    entries = _entries(git)
    names = dict.fromkeys(entry.name for entry in entries)  # an unmerged file stands there several times
    submodules = dict.fromkeys(entry.name for entry in entries if entry.mode == _SUBMODULE)
    commit, tree = _commit(git)
    _check_regular(top / os.fsdecode(folder) / ".gitattributes" for folder in _folders(names))
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


def _entries(git: _Git) -> list[_Entry]:
    entries = []
    for line in git.ask("ls-files", "--stage", "-z", *git.sparse).split(b"\0")[:-1]:
        facts, name = line.split(b"\t", 1)
        mode, identifier, stage = facts.split()
        # git looks at names when it puts them into an index, not when it reads one
        _check_name(name, (name.removesuffix(b"/") if mode == _FOLDER else name).split(b"/"), "its index")
        entries.append(_Entry(mode, identifier, stage == b"0", name))
    return entries


def _check_name(name: bytes, parts: Sequence[bytes], where: str) -> None:
    if not all(parts) or any(part in (b".", b"..") or part.lower() == b".git" for part in parts):
        raise Refused(f"{where} names {os.fsdecode(name)!r}, which is no file of a working tree")


def _settings(git: _Git) -> dict[str, str]:
    """What the repository's configuration says; git parses the file and follows nothing that is in it."""
    (git.place / "config").write_text("[core]\n\trepositoryformatversion = 0\n")
    if not (git.common / "config").exists():
        return {}
    copy = git.place / "theirs"
    _copy(git.common / "config", copy, _LARGEST_TEXT)
    try:
        listing = git.ask("config", "--file", str(copy), "--no-includes", "--list", "-z")
    except Refused as refusal:
        raise Refused(str(refusal).replace(f"{git.theirs}/theirs", f"{git.common}/config")) from None
    pairs = (os.fsdecode(one).partition("\n") for one in listing.split(b"\0")[:-1])
    return {name: value for name, _, value in pairs}


def _configure(git: _Git, settings: dict[str, str]) -> None:
    """Ours says how the repository is written down; whether this git can read that is git's to say."""
    version = settings.get("core.repositoryformatversion", "0")
    lines = ["[core]", f"\trepositoryformatversion = {_value(version)}", "\tbare = false", "[extensions]"]
    if git.sparse:
        lines[1:1] = ["\tsparseCheckout", "\tsparseCheckoutCone", "[index]", "\tsparse", "[core]"]
    for name, value in settings.items():
        section, _, key = name.partition(".")
        if section == "extensions" and key not in _HARMLESS and re.fullmatch(r"[a-z][a-z0-9-]*", key):
            lines.append(f"\t{key} = {_value(value)}")
    (git.place / "config").write_text("\n".join(lines) + "\n", errors="surrogateescape")


def _value(text: str) -> str:
    return '"' + text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n") + '"'


def _check_sums(git: _Git, algorithm: str) -> None:
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


def _commit(git: _Git) -> tuple[str, bytes]:
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


def _identity(git: _Git, settings: dict[str, str], commit: str) -> frozenset[str]:
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
            return _place(_common(_git_directory(place)))
        for folder in (place, Path(f"{place}.git")):
            if is_git_directory(folder):
                return _place(real(folder))
    return f"remote {os.path.normpath(place)}"
