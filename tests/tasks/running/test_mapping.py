"""Parts under way: in their order, and no more than may be."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tasks.running.mapping import in_order


@dataclass
class Part:
    """A part that is done when it is asked for."""

    number: int
    under_way: set[int]

    def result(self) -> int:
        self.under_way.discard(self.number)
        return self.number


@pytest.mark.parametrize("ahead", [0, 1, 3, 50])
def test_no_more_parts_are_under_way_than_asked_for(ahead: int) -> None:
    under_way: set[int] = set()
    most = [0]

    def submit(number: int) -> Part:
        under_way.add(number)
        most.append(len(under_way))
        return Part(number, under_way)

    assert list(in_order(submit, range(20), lambda: ahead)) == list(range(20))
    assert max(most) == min(20, max(1, ahead))


def test_how_many_is_asked_before_each() -> None:
    begun: list[int] = []
    allowed = iter([1, 1, 4, 4, 4, 4, 4, 2, 2])

    def submit(number: int) -> Part:
        begun.append(number)
        return Part(number, set())

    results = in_order(submit, range(100), lambda: next(allowed))
    assert (next(results), len(begun)) == (0, 1)
    assert (next(results), len(begun)) == (1, 5)
    assert (next(results), len(begun)) == (2, 5)
