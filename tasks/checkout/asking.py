"""A repository's git, asked in a git directory of our own."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

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


def asked(top: Path, question: Callable[[Git], T]) -> T:
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
class Git:
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


def _asking(place: Path, top: Path) -> Git:
    theirs = git_directory(top)
    common = common_of(theirs)
    if not ((theirs / "HEAD").is_file() and (common / "objects").is_dir() and (common / "refs").is_dir()):
        raise Refused(f"{theirs} lacks HEAD, objects or refs, so it is no git directory")
    git = Git(place, theirs, common, top)
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
    check_regular(_read_by_git(place / "HEAD", common))
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
        named = {real(objects / os.fsdecode(unquoted(line))) for line in lines if line[:1] not in (b"", b"#")}
        waiting += sorted(named - seen)


def check_regular(files: Iterable[Path]) -> None:
    """Git would wait for ever for what a FIFO does not say."""
    for file in files:
        if os.path.lexists(file) and not file.is_file():
            raise Refused(f"{file} is no regular file")


def git_directory(top: Path) -> Path:
    """Where a working tree keeps what git knows of it."""
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


def common_of(theirs: Path) -> Path:
    """The git directory that all working trees of a repository share."""
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


def unquoted(line: bytes) -> bytes:
    """A path as it is, from how git writes it."""
    quoted = line.startswith(b'"') and line.endswith(b'"')
    return line[1:-1].decode("unicode_escape").encode("latin-1") if quoted else line


def check_name(name: bytes, parts: Sequence[bytes], where: str) -> None:
    """Refuse a name that leads elsewhere than below the top."""
    if not all(parts) or any(part in (b".", b"..") or part.lower() == b".git" for part in parts):
        raise Refused(f"{where} names {os.fsdecode(name)!r}, which is no file of a working tree")


def settings_of(git: Git) -> dict[str, str]:
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


def configure(git: Git, settings: dict[str, str]) -> None:
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


def is_git_directory(folder: Path) -> bool:
    """Whether it is what `.git` is in a working tree, under any name."""
    return (folder / "HEAD").is_file() and (folder / "objects").is_dir() and (folder / "refs").is_dir()
