"""Several chunks in one sequence, none of which sees another: less of the work goes into padding."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Sequences:
    """Rows by sequence."""

    rows: Numbers
    """Those of the first sequence, of the second, and so on."""
    starts: Numbers
    """Where each sequence begins in `rows`, and where the last ends."""

    def __len__(self) -> int:
        return len(self.starts) - 1

    def of(self, numbers: Numbers) -> Sequences:
        """Some of them."""
        parts = [self.rows[self.starts[number] : self.starts[number + 1]] for number in numbers]
        sizes = self.starts[numbers + 1] - self.starts[numbers]
        return Sequences(np.concatenate(parts), np.concatenate([[0], np.cumsum(sizes)]))


def one_each(rows: Numbers) -> Sequences:
    """Every row is a sequence."""
    return Sequences(rows, np.arange(len(rows) + 1))


def packed(rows: Numbers, lengths: Numbers, room: int) -> Sequences:
    """Best fit, longest first: each row goes to the fullest sequence that has room for it.

    Args:
        lengths: of each row, at most `room`.
        room: tokens of a sequence.
    """
    sequences: list[list[int]] = []
    with_room: dict[int, list[int]] = {}  # sequences by the room that is left
    sizes: list[int] = []  # what is left anywhere, ascending
    for place in np.argsort(-lengths, kind="stable"):
        length = int(lengths[place])
        found = bisect.bisect_left(sizes, length)
        if found < len(sizes):
            size = sizes[found]
            number = with_room[size].pop()
            if not with_room[size]:
                del with_room[size], sizes[found]
        else:
            number, size = len(sequences), room
            sequences.append([])
        sequences[number].append(int(rows[place]))
        left = size - length
        if left not in with_room:
            bisect.insort(sizes, left)
        with_room.setdefault(left, []).append(number)
    starts = np.cumsum([0, *map(len, sequences)])
    return Sequences(np.array([row for one in sequences for row in one], np.int64), starts)
