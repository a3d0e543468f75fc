"""Progress of long work, told to whoever listens: the terminal, the dashboard, or nobody.

Stages call `begin` and `update` as often as they like; listeners slow it down to what they can show.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace


@dataclass(frozen=True)
class Tick:
    """One state of one piece of work."""

    title: str
    """What is being done, in a few words: `reading shards`."""
    completed: float
    total: float | None
    """How much there is to do, in `unit`; None when that is not known."""
    unit: str
    details: dict[str, float | str] = field(default_factory=dict)
    """Readings that a person wants to see beside the bar, in the order to show them: `{"loss": 1.43}`."""

    @property
    def fraction(self) -> float | None:
        return min(1.0, self.completed / self.total) if self.total else None


Listener = Callable[[Tick], None]


class Progress:
    """Hands each tick of a stage's work to its listeners."""

    def __init__(self, *listeners: Listener) -> None:
        self._listeners = listeners
        self._tick = Tick("", 0, None, "")

    def begin(self, title: str, total: float | None = None, unit: str = "") -> None:
        """Start a new piece of work; whatever was in progress before counts as done."""
        self._tick = Tick(title, 0, total, unit)
        self._tell()

    def update(self, completed: float, **details: float | str) -> None:
        """Say how far the piece of work is, in absolute terms, with readings worth showing."""
        self._tick = replace(self._tick, completed=completed, details=details)
        self._tell()

    def advance(self, by: float = 1) -> None:
        """Say that `by` more is done."""
        self.update(self._tick.completed + by, **self._tick.details)

    def _tell(self) -> None:
        for listener in self._listeners:
            listener(self._tick)


SILENT = Progress()
"""For tests and for callers who do not care."""
