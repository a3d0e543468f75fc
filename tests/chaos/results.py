"""The table of the long form: which fault was tried how often, and how often it was survived."""

from __future__ import annotations

import fcntl
import json
import re
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

PROJECT = Path(__file__).parents[2]
RESULTS = PROJECT / "bench" / "results" / "chaos.json"
DOCUMENT = PROJECT / "docs" / "reliability.md"
IN_WORDS = re.compile(r"^\| fault \| tried \| survived \|\n(\|.*\n)*", re.MULTILINE)
"""The table in a document."""


class Row(TypedDict):
    """How often a fault was tried, and survived."""

    fault: str
    tried: int
    survived: int


class Table:
    """Counts by fault, written after every change: what was found is not lost when the long form itself is ended.

    Several processes may write to the same file, each the faults that it tries. Rows of faults that nobody tries this
    time stay as they are.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._tried: Counter[str] = Counter()
        self._survived: Counter[str] = Counter()

    @property
    def all_survived(self) -> bool:
        return self._survived == self._tried

    def tried(self, fault: str) -> int:
        return self._tried[fault]

    def add(self, fault: str, tried: int = 1, survived: int = 1) -> None:
        """Count, write, and say."""
        self._tried[fault] += tried
        self._survived[fault] += survived
        with self._file.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            rows = {row["fault"]: row for row in read(self._file)}
            rows[fault] = {"fault": fault, "tried": self._tried[fault], "survived": self._survived[fault]}
            self._file.write_text(json.dumps(list(rows.values()), indent=1) + "\n")
        say(f"{fault}: {self._survived[fault]} of {self._tried[fault]} survived")

    @contextmanager
    def trial(self, fault: str) -> Iterator[None]:
        """One try of one fault: survived unless the block raises, which is printed and goes no further."""
        try:
            yield
        except Exception:
            traceback.print_exc()
            self.add(fault, survived=0)
        else:
            self.add(fault)


def read(file: Path) -> list[Row]:
    """The rows of a file; none if there is none."""
    text = file.read_text() if file.exists() else ""
    rows: list[Row] = json.loads(text or "[]")
    return rows


def in_words(rows: list[Row]) -> str:
    """The rows as a table of a document."""
    lines = [f"| {row['fault']} | {row['tried']} | {row['survived']} |" for row in rows]
    return "\n".join(["| fault | tried | survived |", "| --- | --- | --- |", *lines, ""])


def renew_document() -> None:
    """Put the results into the document."""
    DOCUMENT.write_text(IN_WORDS.sub(lambda _: in_words(read(RESULTS)), DOCUMENT.read_text()))


def say(text: str) -> None:
    """A line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)
