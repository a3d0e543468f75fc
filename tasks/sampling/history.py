"""What was added later: releases of one project, the newest commits, and the lines by which two files differ."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import NamedTuple

from artifacts.lines import lines_of
from tasks.checkout import Commit

_VERSION = re.compile(r"v?(\d{1,9}(?:\.\d{1,9}){1,5})(?:[._-]?([a-z]{1,12})[._-]?(\d{0,9}))?", re.IGNORECASE)
"""At least two numbers: `step-1` and `step-2` are no releases. Behind them what `1.0rc1` and `1.0.post2` have."""
_BEFORE_RELEASE = frozenset({"a", "alpha", "b", "beta", "c", "rc", "pre", "preview", "dev", "snapshot"})
_RENAMED = 0.5
"""Share of lines that a file has of one that is gone, from which it is that file under another name, as for git."""

MOST_COMMITS = 0.5
"""Share of the commits that is held out at most."""

Version = tuple[tuple[int, ...], int, str, int]


class Release(NamedTuple):
    """A folder that holds one release of a project."""

    project: str
    version: Version
    called: str
    """The version as it is written."""
    folder: Path


class Span(NamedTuple):
    """Characters of a file, whole lines."""

    start: int
    end: int
    unit: str = ""
    """What its lines are drawn with for an interval."""


def release_of(file: Path, root: Path) -> Release | None:
    """The release that a file is of, by the first folder on its way, from `root` on, that is named like one."""
    folders = [folder for folder in reversed(file.parents) if folder == root or root in folder.parents]
    return next((found for folder in folders if (found := _named(folder))), None)


def _named(folder: Path) -> Release | None:
    """`Some_name-1.2rc1` is of `some-name`."""
    for separator in re.finditer(r"[-_ ]", folder.name):
        if match := _VERSION.fullmatch(folder.name, separator.end()):
            numbers = [int(number) for number in match[1].split(".")]
            while numbers[-1:] == [0]:
                numbers.pop()  # 1.0 is 1.0.0
            word = (match[2] or "").lower()
            rank = -1 if word in _BEFORE_RELEASE else 1 if word else 0
            project = re.sub(r"[-_. ]+", "-", folder.name[: separator.start()]).lower()
            version = (tuple(numbers), rank, word, int(match[3] or 0))
            return Release(project, version, folder.name[separator.end() :], folder) if project else None
    return None


def newest(histories: Mapping[Path, Sequence[Commit]], share: float) -> dict[Path, int]:
    """How many commits of each repository are among the newest of all; all of them only of those that began later.

    Args:
        histories: commits of each repository, the oldest first.
        share: of all commits, above 0; one at least.
    """
    order = sorted(
        (commit.seconds, number, str(top), top)
        for top, found in histories.items()
        for number, commit in enumerate(found)
    )
    taken = Counter(top for *_, top in order[-max(1, round(share * len(order))) :])
    if len(histories) == 1:  # without an earlier commit there is nothing to learn
        taken = Counter({top: min(count, len(histories[top]) - 1) for top, count in taken.items()})
    return {top: taken[top] for top in histories}


def added(before: str, after: str) -> list[Span]:
    """The lines of a text that an earlier one did not have at that place; white space at their ends aside, and no empty
    ones at the ends of a span."""
    lines = lines_of(after)
    old, new = ([line.strip() for line in some] for some in (lines_of(before), lines))
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    same = 0
    while same < min(len(old), len(new)) - first and old[-1 - same] == new[-1 - same]:
        same += 1
    blocks = SequenceMatcher(None, old[first : len(old) - same], new[first : len(new) - same]).get_matching_blocks()
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    spans, place = [], first
    for _, found, size in blocks:  # the last is empty and at the end
        start, end = place, first + found
        while start < end and not new[start]:
            start += 1
        while start < end and not new[end - 1]:
            end -= 1
        if start < end:
            spans.append(Span(starts[start], starts[end]))
        place = first + found + size
    return spans


class RemovedFiles:
    """Files that are not there any more under their names, for finding them under others."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._where: dict[str, list[int]] = {}
        for number, text in enumerate(texts):
            for line in _telling(text):
                self._where.setdefault(line, []).append(number)

    def renamed(self, text: str) -> str | None:
        """What a file was before it got its present name; None for one that was not there."""
        lines = _telling(text)
        shared = Counter(number for line in lines for number in self._where.get(line, ()))
        number, count = min(shared.items(), key=lambda one: (-one[1], one[0]), default=(0, 0))
        return (
            self._texts[number]
            if count and count >= _RENAMED * max(len(lines), len(_telling(self._texts[number])))
            else None
        )


def _telling(text: str) -> set[str]:
    """Different lines that are more than a bracket or a word."""
    return {line for one in lines_of(text) if len(line := one.strip()) >= 8}
