"""Work that falls into parts: one pure function over many items, wherever the parts are computed.

A stage that fans out takes a `Mapper` and knows nothing else of threads, processes or other machines. What it hands
over must travel: the function and every item hold all that a worker needs as values (texts, settings, a tokenizer),
or name what every machine can reach (a file on the hub). Nothing names a path of this machine or of the store.
Results come back as values, in the order of the items, so that the bytes of a stage do not depend on who computed them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)


class Pending(Protocol[B]):
    """A result that is being computed."""

    def result(self) -> B:
        """Wait for it. Raises what the work raised."""


class Mapper(Protocol):
    """Computes the parts of some work."""

    workers: int
    """Parts that can be computed at once."""

    def map(
        self, title: str, work: Callable[[T], R], items: Iterable[T], ahead: Callable[[], int] | None = None
    ) -> Generator[R, None, None]:
        """`work(item)` for each item, in order. Close the generator to leave the rest undone.

        Args:
            title: what is done to a part, for people.
            ahead: how many parts may be under way, asked before each; None for as many as there are workers.
        """


class Here:
    """One part after the other, in the caller's own thread."""

    workers = 1

    def map(
        self, title: str, work: Callable[[T], R], items: Iterable[T], ahead: Callable[[], int] | None = None
    ) -> Generator[R, None, None]:
        """See `Mapper`."""
        for item in items:
            yield work(item)


HERE: Mapper = Here()


def in_order(
    submit: Callable[[T], Pending[R]], items: Iterable[T], ahead: Callable[[], int]
) -> Generator[R, None, None]:
    """The results for the items in their order, at most `ahead()` (one at least) under way."""
    waiting: deque[Pending[R]] = deque()
    rest = iter(items)
    going = True
    while True:
        while going and len(waiting) < max(1, ahead()):
            try:
                waiting.append(submit(next(rest)))
            except StopIteration:
                going = False
        if not waiting:
            return
        yield waiting.popleft().result()
