"""Work that falls into parts: one pure function over many items, wherever the parts are computed.

A stage that fans out takes a `Mapper` and knows nothing else of threads, processes or other machines. What it hands
over must travel: the function and every item hold all that a worker needs as values (texts, settings, a tokenizer),
or name what every machine can reach (a file on the hub). Nothing names a path of this machine or of the store.
Results come back as values, in the order of the items, so that the bytes of a stage do not depend on who computed them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from importlib.util import find_spec
from typing import Literal, Protocol, TypeVar

from pydantic import model_validator

from artifacts.configuration import Config, Name, Threads, Unkeyed
from artifacts.errors import InputError

T = TypeVar("T")
R = TypeVar("R")
A = TypeVar("A", contravariant=True)
B = TypeVar("B", covariant=True)


class WorkersConfig(Config):
    """Who computes the parts of the stages that fall into parts: sampling and tokenization. Changes no bytes."""

    runner: Literal["threads", "processes", "dask"] = Unkeyed("threads")
    """Prefect's task runner: `threads` of the run's own process; `processes` of this machine; `dask`: the workers of a
    running Dask cluster (needs `pip install codetune[dask]`)."""
    count: Threads = Unkeyed(4)
    """Threads or processes; with `dask`, parts under way at once: twice the cluster's threads keep it busy."""
    address: Name | None = Unkeyed(None)
    """`dask` only: the scheduler, as in `tcp://10.0.0.5:8786`."""

    @model_validator(mode="after")
    def _reachable(self) -> WorkersConfig:
        if (self.runner == "dask") != (self.address is not None):
            raise ValueError("the runner `dask` needs the address of a scheduler, and no other runner takes one")
        return self

    def check(self) -> None:
        """Raises InputError where what the runner needs is not installed."""
        if self.runner == "dask" and find_spec("prefect_dask") is None:
            raise InputError(
                "the runner dask needs prefect-dask, which is not installed",
                field="workers.runner",
                remedy="pip install 'codetune[dask]', or set workers.runner=threads",
            )


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
