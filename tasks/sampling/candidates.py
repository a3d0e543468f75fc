"""What the sources hand to the filter, and what comes through it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from artifacts.errors import InputError
from artifacts.presentation import counted
from artifacts.schema import FunnelStep

SECRETS, NEAR_DUPLICATES = "secrets", "near-duplicates"
STEPS = (
    "source",
    "language",
    "license",
    "content",
    "quality",
    SECRETS,
    "duplicates",
    "choice",
    NEAR_DUPLICATES,
    "copies",
)
"""The steps of the funnel in the order in which a file meets them."""

Reason = tuple[str, str]
"""The step of the funnel that drops a file, and why."""
NO_ROW: Reason = ("source", "not readable as a row")
UNREADABLE: Reason = ("content", "cannot be read")
LFS_POINTER: Reason = ("content", "pointer of Git LFS")
_LOST = (NO_ROW, UNREADABLE, LFS_POINTER)
"""A fault of the source, and nothing that a setting leaves out."""


class TooLittle(InputError):  # noqa: N818 - a finding; it is an error where there is no other way
    """What would be held out gives no interval."""


class Indivisible(TooLittle):
    """Nothing can be held out at all: there would be no run without a verdict, either."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of a file before its contents are read."""

    repo: str
    path: str
    license: str
    """An SPDX expression, an id of the source's own, or `unknown`."""
    language: str | None
    revision: str
    size: int | None = None
    """Bytes, where the source tells."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file that passed the filter."""

    row: Row
    content: bytes
    """UTF-8."""
    sha256: bytes
    bands: bytes = b""
    """What near-duplicates have in common (`tasks.contamination.bands`), where they are looked for."""
    secrets: tuple[str, ...] = ()
    """Kinds of the secrets that were replaced in it, one for each."""


class SourceBatch(Protocol):
    """Some rows of a source that are read at once: a row group, a few files, a few lines."""

    def rows(self) -> Sequence[Row | None]:
        """What is known of each; None for a row that the source could not make sense of."""

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        """The contents of the rows with these ascending numbers; None for one that cannot be read."""

    def portable(self, wanted: Callable[[Row | None], bool]) -> SourceBatch:
        """The same batch in a form that travels to a worker, which may be on a machine without this one's disk.

        Args:
            wanted: says of a row whether its contents will be asked for.
        """


@dataclass(frozen=True)
class Carried:
    """A batch that was read: its rows, and the contents that will be asked for."""

    facts: Sequence[Row | None]
    read: Mapping[int, bytes | None]

    def rows(self) -> Sequence[Row | None]:
        return self.facts

    def contents(self, wanted: Sequence[int]) -> Iterator[bytes | None]:
        return (self.read[number] for number in wanted)

    def portable(self, wanted: Callable[[Row | None], bool]) -> Carried:
        return self


class OpenSource(Protocol):
    """A source ready to be read."""

    states_licenses: bool
    """Whether it says of each file under which licence it is; only then can the allow-list apply."""
    samples: bool
    """Whether batches come in seeded order, so that reading may stop when enough is found."""

    def describe(self) -> str:
        """The source in words, after reading."""

    def fingerprint(self) -> str:
        """Equal when the same files would be read."""

    def batches(self) -> Iterator[SourceBatch]:
        """All that the source has; the order depends on nothing but contents and seed."""


UNKNOWN_LANGUAGE = "no known language"
"""Why a row is dropped of which nothing tells the language."""


@dataclass
class Tally:
    """How many rows were read and dropped, by step and reason."""

    rows: int = 0
    dropped: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def drop(self, step: str, reason: str, count: int = 1) -> None:
        if count:
            self.dropped[step][reason] += count

    def add(self, other: Tally) -> None:
        self.rows += other.rows
        for step, reasons in other.dropped.items():
            self.dropped[step].update(reasons)

    def funnel(self, unused: Collection[str] = ()) -> tuple[FunnelStep, ...]:
        """The steps in order, each with what went on; without those that were not asked for."""
        steps, kept = [], self.rows
        for name in STEPS:
            if name in unused:
                continue
            dropped = self.dropped.get(name, Counter())
            kept -= dropped.total()
            steps.append(FunnelStep(name=name, kept=kept, dropped=dict(dropped.most_common())))
        return tuple(steps)

    def lost(self) -> dict[str, int]:
        """Files that no setting leaves out, by what is wrong with them."""
        return {why: count for step, why in _LOST if (count := self.dropped.get(step, Counter())[why])}

    def in_words(self) -> str:
        """`120 files read; language dropped 100 (GO 90, SQL 10), …`."""
        parts = [f"{counted(self.rows, 'file')} read"]
        for step in STEPS:
            if reasons := self.dropped.get(step):
                details = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common(5))
                parts.append(f"{step} dropped {reasons.total()} ({details})")
        return "; ".join(parts)
