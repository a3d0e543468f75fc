"""The seeded choice: the files that come first in an order made of seed and content alone, of near-duplicates one.

The pool lies in an SQLite file, so that memory stays flat however many files are looked at and however many are
wanted. What it holds at the end does not depend on the order in which files were added.
"""

from __future__ import annotations

import errno
import hashlib
import sqlite3
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from artifacts.progress import SILENT, Progress
from tasks.contamination import shingles, similarity
from tasks.sampling.candidates import Row, SourceFile

if TYPE_CHECKING:
    from tasks.contamination.overlap import Ids

_SCHEMA = """
CREATE TABLE seen (sha256 BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE pool (rank BLOB PRIMARY KEY, sha256 BLOB, repo TEXT, path TEXT, license TEXT, language TEXT,
                   revision TEXT, secrets TEXT, bands BLOB, content BLOB);
CREATE TABLE kept (file INTEGER PRIMARY KEY, rank BLOB);
CREATE TABLE bands (hash INTEGER, file INTEGER, PRIMARY KEY (hash, file)) WITHOUT ROWID;
"""
_SLACK = 512
"""Files beyond the wanted ones that are kept before the surplus is thrown out."""
_PLACES, _BITS = 512, 27
"""Bits of a table for a file, of which there are some forty bands; and two to the power of this at most, 16 MB."""
_COMPARED = 64
"""Files with which one is compared at most, those that share most bands with it: what is similar is among them."""


class Pool:
    """The `files` best-placed of all files added, without exact duplicates.

    Args:
        file: where to keep it; created, and deleted on leaving.
        files: how many are wanted.
        seed: decides the order.
    """

    def __init__(self, file: Path, files: int, seed: int) -> None:
        self._file, self._files, self._seed = file, files, seed
        self._different = self._held = 0
        self._bound: bytes | None = None
        """Rank from which on files cannot be chosen any more; None as long as there are too few."""

    def __enter__(self) -> Pool:
        self._file.unlink(missing_ok=True)
        self._database = sqlite3.connect(self._file, isolation_level=None)
        # It is thrown away after a crash, so nothing has to survive one.
        self._database.executescript(
            "PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-32768;" + _SCHEMA
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._file.unlink(missing_ok=True)

    @property
    def folder(self) -> Path:
        """Where there is room for more temporary files."""
        return self._file.parent

    @property
    def different(self) -> int:
        """Different contents added so far."""
        return self._different

    def add(self, file: SourceFile) -> bool:
        """Take a file into account. False for an exact duplicate; of equal contents the first by name stands."""
        rank = self._rank(file.sha256)
        row = file.row
        names = (row.repo, row.path, row.license, row.language, row.revision, "\n".join(file.secrets))
        if not self._execute("INSERT OR IGNORE INTO seen VALUES (?)", (file.sha256,)).rowcount:
            self._execute(
                "UPDATE pool SET repo=?, path=?, license=?, language=?, revision=?, secrets=? "
                "WHERE rank=? AND (repo, path, license, language, revision, secrets) > (?, ?, ?, ?, ?, ?)",
                (*names, rank, *names),
            )
            return False
        self._different += 1
        if self._bound is not None and rank > self._bound:
            return True
        self._execute(
            "INSERT INTO pool VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (rank, file.sha256, *names, file.bands, file.content),
        )
        self._held += 1
        if self._held >= self._files + _SLACK:
            self._trim()
        return True

    def chosen(self) -> int:
        """How many files the choice holds."""
        self._trim()
        return self._held

    def repositories(self) -> dict[str, int]:
        """Chosen files by repository."""
        self._trim()
        return dict(self._database.execute("SELECT repo, count(*) FROM pool GROUP BY repo ORDER BY repo"))

    def repository(self, sha256: bytes) -> str:
        """Of a chosen file."""
        (repo,) = self._execute("SELECT repo FROM pool WHERE rank=?", (self._rank(sha256),)).fetchone()
        return str(repo)

    def files(self) -> Iterator[SourceFile]:
        """The chosen files in seeded order."""
        self._trim()
        query = "SELECT repo, path, license, language, revision, content, sha256, secrets FROM pool ORDER BY rank"
        with closing(self._database.execute(query)) as cursor:
            for repo, path, license_, language, revision, content, sha256, secrets in cursor:
                row = Row(repo, path, license_, language, revision, len(content))
                yield SourceFile(row, content, sha256, secrets=tuple(secrets.splitlines()))

    def remove(self, contents: Collection[bytes]) -> None:
        """Take files out of the choice, by their sha256; no others come in for them."""
        self._trim()
        for sha256 in contents:
            self._held -= self._execute("DELETE FROM pool WHERE rank=?", (self._rank(sha256),)).rowcount

    def thin(self, threshold: float, progress: Progress = SILENT) -> int:
        """Take out every file that is similar to one before it in the seeded order. Returns how many.

        No others come in for them. Files need the bands of this threshold (`tasks.contamination.bands`).
        """
        progress.begin("looking for near-duplicates", self.chosen(), "files")

        @lru_cache(maxsize=32)
        def shingles_of(file: int) -> Ids:
            query = "SELECT content FROM pool JOIN kept USING (rank) WHERE file=?"
            (content,) = self._execute(query, (file,)).fetchone()
            return shingles(content.decode())

        recurs = self._recurring()
        similar: list[bytes] = []
        with closing(self._execute("SELECT rank, sha256, bands, content FROM pool ORDER BY rank")) as cursor:
            for number, (rank, sha256, bands, content) in enumerate(cursor, 1):
                hashes = recurs(bands)
                if others := self._sharing(hashes):
                    mine = shingles(content.decode())
                    if any(similarity(mine, shingles_of(other)) >= threshold for other in others):
                        similar.append(sha256)
                        continue
                self._execute("INSERT INTO kept VALUES (?, ?)", (number, rank))
                for band in hashes:
                    self._execute("INSERT OR IGNORE INTO bands VALUES (?, ?)", (band, number))
                progress.update(number, dropped=len(similar))
        self.remove(similar)
        return len(similar)

    def _recurring(self) -> Callable[[bytes], list[int]]:
        """Which of a file's bands may be another's too. Most are not, and need no place in the index.

        Two tables of bits tell whether a hash has been seen, and whether it has been seen before that. So a few that
        are of one file alone are taken for others', which costs time and changes nothing.
        """
        import numpy as np

        bits = np.uint64(2 ** min(_BITS, (_PLACES * self.chosen()).bit_length()) - 1)
        once, again = (np.zeros(int(bits) // 8 + 1, np.uint8) for _ in range(2))

        def places(hashes: Ids) -> tuple[Ids, Ids]:
            return (hashes & bits) >> np.uint64(3), (1 << (hashes & np.uint64(7))).astype(np.uint8)

        with closing(self._execute("SELECT bands FROM pool")) as cursor:
            while rows := cursor.fetchmany(1024):
                here = np.sort(np.frombuffer(b"".join(bands for (bands,) in rows), "<u8") & bits)
                twice = here[1:][here[1:] == here[:-1]]
                byte, bit = places(here)
                np.bitwise_or.at(again, byte, once[byte] & bit)
                np.bitwise_or.at(once, byte, bit)
                np.bitwise_or.at(again, *places(twice))

        def recurring(bands: bytes) -> list[int]:
            hashes = np.frombuffer(bands, "<u8")
            byte, bit = places(hashes)
            found: list[int] = hashes[(again[byte] & bit) > 0].astype(np.int64).tolist()
            return found

        return recurring

    def _sharing(self, hashes: list[int]) -> list[int]:
        """The files before this one to compare it with."""
        marks = ",".join("?" * len(hashes))
        query = f"SELECT file FROM bands WHERE hash IN ({marks})"
        shared = Counter(file for (file,) in self._execute(query, tuple(hashes)))
        # of those with as many bands the first ones, whatever the order in which they were found
        return sorted(shared, key=lambda file: (-shared[file], file))[:_COMPARED]

    def _rank(self, sha256: bytes) -> bytes:
        return hashlib.sha256(f"{self._seed}:".encode() + sha256).digest()

    def _trim(self) -> None:
        if self._held > self._files:
            query = "SELECT rank FROM pool ORDER BY rank LIMIT 1 OFFSET ?"
            (self._bound,) = self._database.execute(query, (self._files - 1,)).fetchone()
            self._held -= self._execute("DELETE FROM pool WHERE rank > ?", (self._bound,)).rowcount

    def _execute(self, statement: str, values: tuple[object, ...] = ()) -> sqlite3.Cursor:
        try:
            return self._database.execute(statement, values)
        except sqlite3.OperationalError as error:
            # Told as the operating system would tell it, so that a full disk is reported like any other.
            code = errno.ENOSPC if "full" in str(error) else errno.EIO
            raise OSError(code, f"cannot keep the pool of samples: {error}", str(self._file)) from error
