"""What is held out, and so what is drawn for an interval: what it is called, and what a gain on it proves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from artifacts.presentation import counted

HeldOutBy = Literal["repository", "folder", "release", "commit", "commit-date"]
FEWEST = 6
"""Units below which there is no interval: even when all of five agree, chance alone does that in 6 of 100 cases."""


@dataclass(frozen=True)
class HeldOutUnit:
    """One kind of it."""

    one: str
    many: str
    proves: str
    """Of a gain, a whole sentence."""
    whole: str
    """Of a division, a whole sentence."""
    of_lines: bool = False
    """Whether lines are asked for that were added later, and not whole files."""

    def count(self, number: int) -> str:
        """`1 file`, `1,200 files`."""
        return counted(number, self.one, self.many)


UNITS: dict[HeldOutBy, HeldOutUnit] = {
    "repository": HeldOutUnit(
        "repository",
        "repositories",
        "A gain is one on repositories that the model has never seen.",
        "Divided by repository: none is on both sides.",
    ),
    "folder": HeldOutUnit(
        "folder",
        "folders",
        "A gain is one on other folders of the repositories that were trained on. It says nothing of a repository"
        " never seen.",
        "Divided by folder: none is on both sides, but folders of one repository are.",
    ),
    "release": HeldOutUnit(
        "file",
        "files",
        "A gain is one on lines that a newer release added to projects whose older release was trained on. It says"
        " nothing of a repository never seen.",
        "Divided by release: of each project an older one is trained on, and lines that the newest added are held out.",
        of_lines=True,
    ),
    "commit": HeldOutUnit(
        "commit",
        "commits",
        "A gain is one on lines that later commits added to the repositories that were trained on, and what further"
        " commits will add. It says nothing of a repository never seen.",
        "Divided by commit: files are trained on as they were, and lines that later commits added are held out.",
        of_lines=True,
    ),
    "commit-date": HeldOutUnit(
        "file",
        "files",
        "A gain is one on lines that were added later to the repositories that were trained on. It says nothing of a"
        " repository never seen.",
        "Divided by date: files are trained on as they were, and lines that later commits added are held out.",
        of_lines=True,
    ),
}
