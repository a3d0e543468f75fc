"""What was committed: the commits of a branch, their files, and the lines that they added."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tasks.checkout.asking import Git, Refused, asked, check_name, configure, settings_of, unquoted

_HUNK = re.compile(rb"@@ -\d+(?:,\d+)? \+\d+(?:,(\d+))? @@")


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

    def ask(git: Git) -> list[Commit]:
        configure(git, settings_of(git))
        if not (head := git.ask("rev-parse", "--verify", "--quiet", "HEAD", fine=(0, 1)).strip().decode()):
            return []
        found, latest = list[Commit](), 0
        for line in reversed(git.ask("rev-list", "--first-parent", "--timestamp", head).decode().splitlines()):
            seconds, _, identifier = line.partition(" ")
            latest = max(latest, int(seconds))
            found.append(Commit(latest, identifier))
        return found

    return asked(top, ask)


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

    def ask(git: Git) -> list[EarlierFile]:
        configure(git, settings_of(git))
        found = []
        for line in git.ask("ls-tree", "-r", "-z", "-l", "--full-tree", commit).split(b"\0")[:-1]:
            facts, name = line.split(b"\t", 1)
            mode, _, identifier, size = facts.split()
            check_name(name, name.split(b"/"), "a commit")
            if mode.startswith(b"100"):
                if not size.isdigit():
                    raise Refused("it lacks the contents of earlier commits, as a partial clone does")
                found.append(EarlierFile(os.fsdecode(name), identifier.decode(), int(size)))
        return found

    return asked(top, ask)


def contents_of(top: Path, blobs: Sequence[str]) -> list[bytes]:
    """What files of earlier commits held, by their blobs.

    Raises:
        Refused: git cannot read the repository, or the clone lacks one of them.
    """

    def ask(git: Git) -> list[bytes]:
        configure(git, settings_of(git))
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

    return asked(top, ask) if blobs else []


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

    def ask(git: Git) -> None:
        configure(git, settings_of(git))
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
                    name = os.fsdecode(unquoted(line[4:].rstrip(b"\t\n")).removeprefix(b"b/"))

    asked(top, ask)
