"""Held-out files: they stay in the sample's tables, since there may be more of them than memory holds. What draws some
reads names first, and then the texts of those that it has drawn."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from artifacts.rows import count_rows, each_row, rows_at
from artifacts.schema import Domain


@dataclass(frozen=True)
class AddedLines:
    """Lines of a file that are asked for, where the others are not."""

    start: int
    """First character."""
    end: int
    unit: str
    """What they are drawn with for an interval."""


@dataclass(frozen=True)
class HeldOutFile:
    """A held-out file."""

    repo: str
    path: str
    language: str
    content: str
    domain: Domain = "held_out"
    added: tuple[AddedLines, ...] | None = None
    """None where all of it is asked for."""

    @property
    def asked(self) -> str:
        """The text that is asked for."""
        if self.added is None:
            return self.content
        return "".join(self.content[one.start : one.end] for one in self.added)

    def unit_of(self, start: int, end: int) -> str | None:
        """What the characters from `start` to `end` are drawn with; None where they are not asked for."""
        if self.added is None:
            return self.repo
        return next((one.unit for one in self.added if one.start <= start and end <= one.end), None)


@dataclass(frozen=True)
class HeldOutFiles:
    """The files of some tables (`DatasetSample`), which are read anew whenever they are asked for. They are numbered
    from 0, through all tables."""

    tables: tuple[Path, ...]
    folder: Path
    """Where there is room for temporary files."""
    domain: Domain = "held_out"
    left_out: Collection[int] = field(default=frozenset(), repr=False)
    """Numbers of files that are not asked about."""

    @property
    def total(self) -> int:
        """How many there are, those that are left out among them."""
        return sum(map(count_rows, self.tables))

    def __iter__(self) -> Iterator[HeldOutFile]:
        """All that may be asked about, in order."""
        for number, row in enumerate(each_row(self.tables, _COLUMNS)):
            if number not in self.left_out:
                yield self._file(row)

    def names(self) -> Iterator[tuple[str, str]]:
        """Repository and path of every file, also of those that are left out."""
        return ((row["repo"], row["path"]) for row in each_row(self.tables, ("repo", "path")))

    def repositories(self) -> Iterator[str | None]:
        """Of every file the repository, or None where it is left out."""
        for number, row in enumerate(each_row(self.tables, ("repo",))):
            yield None if number in self.left_out else row["repo"]

    def at(self, numbers: Collection[int]) -> dict[int, HeldOutFile]:
        """Some of the files, by their numbers."""
        return {number: self._file(row) for number, row in rows_at(self.tables, numbers, _COLUMNS)}

    def _file(self, row: Mapping[str, Any]) -> HeldOutFile:
        lines = row.get("added")
        added = None if lines is None else tuple(AddedLines(**one) for one in lines)
        return HeldOutFile(row["repo"], row["path"], row["language"], row["content"], self.domain, added)


_COLUMNS = ("repo", "path", "language", "content", "added")
