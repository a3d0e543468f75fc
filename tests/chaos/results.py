"""The table of the long form: which fault was tried how often, and how often it was survived."""

from __future__ import annotations

import json
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Table:
    """Counts by fault, written after every change: what was found is not lost when the long form itself is ended.

    Rows of faults that are not tried this time stay as they are in the file.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._kept = {row["fault"]: row for row in json.loads(file.read_text())} if file.exists() else {}
        self._tried: Counter[str] = Counter()
        self._survived: Counter[str] = Counter()

    @property
    def all_survived(self) -> bool:
        return self._survived == self._tried

    def tried(self, fault: str) -> int:
        return self._tried[fault]

    def add(self, fault: str, tried: int = 1, survived: int = 1) -> None:
        """Count, and write."""
        self._tried[fault] += tried
        self._survived[fault] += survived
        rows = dict(self._kept)
        for name in self._tried:
            rows[name] = {"fault": name, "tried": self._tried[name], "survived": self._survived[name]}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.write_text(json.dumps(list(rows.values()), indent=1) + "\n")

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
        print(f"{fault}: {self._survived[fault]} of {self._tried[fault]}", flush=True)
