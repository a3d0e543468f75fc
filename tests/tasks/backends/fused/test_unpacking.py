"""The order in which weights are unpacked beside the products, on streams that only note what waits for what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from tasks.backends.fused.projection import Scratch

Clock = dict[str, int]


@dataclass
class Stream:
    """Does nothing but count, and knows what of the other streams is done before its next piece of work."""

    name: str
    clock: Clock = field(default_factory=dict)

    def work(self) -> Clock:
        self.clock[self.name] = self.clock.get(self.name, 0) + 1
        return dict(self.clock)

    def record_event(self) -> Clock:
        return dict(self.clock)

    def wait_event(self, event: Clock) -> None:
        self.clock = {name: max(self.clock.get(name, 0), event.get(name, 0)) for name in {*self.clock, *event}}

    def wait_stream(self, other: Stream) -> None:
        self.wait_event(other.clock)


@dataclass(frozen=True)
class Work:
    """A piece of work on a buffer."""

    stream: str
    clock: Clock
    buffer: int
    matrix: str

    def before(self, other: Work) -> bool:
        return self.clock[self.stream] <= other.clock.get(self.stream, 0)


class Machine:
    """Two streams, one current; what was unpacked and what was read, in the order of launching."""

    def __init__(self) -> None:
        self.main, self.side = Stream("main"), Stream("side")
        self.current = self.main
        self.writes: list[Work] = []
        self.reads: list[Work] = []

    @contextmanager
    def within(self, stream: Stream) -> Iterator[None]:
        before, self.current = self.current, stream
        yield
        self.current = before

    def projection(self, name: str, rows: int) -> Any:
        def unpack(matrix: torch.Tensor) -> None:
            self.writes.append(Work(self.current.name, self.current.work(), matrix.data_ptr(), name))

        return SimpleNamespace(name=name, unpacked_shape=(rows, 4), unpack=unpack)

    def step(self, scratch: Scratch, order: list[Any]) -> None:
        """Each product, and something else after it."""
        scratch.begin()
        for projection in order:
            matrix = scratch.matrix(projection)
            self.reads.append(Work("main", self.main.work(), matrix.data_ptr(), projection.name))
            self.main.work()
        scratch.end()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    one = Machine()
    monkeypatch.setattr(torch.cuda, "Stream", lambda priority: one.side)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: one.current)
    monkeypatch.setattr(torch.cuda, "stream", one.within)
    return one


@pytest.fixture
def scratch(machine: Machine) -> Scratch:
    like: Any = SimpleNamespace(is_cuda=True, dtype=torch.float16, device="cpu")
    return Scratch(480, like)


def test_no_product_reads_what_is_being_written_or_was_overwritten(machine: Machine, scratch: Scratch) -> None:
    names = ["qkv", "o", "gate_up", "down"]
    layers = [machine.projection(name, 10 * rows) for rows, name in enumerate(names * 3, 1)]
    order = [*layers, *layers[::-1]]
    for _ in range(3):
        machine.writes.clear()
        machine.reads.clear()
        machine.step(scratch, order)
        assert [read.matrix for read in machine.reads] == [write.matrix for write in machine.writes]
        for number, (read, write) in enumerate(zip(machine.reads, machine.writes, strict=True)):
            assert read.buffer == write.buffer and write.before(read)
            later = [one for one in machine.writes[number + 1 :] if one.buffer == read.buffer]
            assert all(read.before(one) for one in later)
        assert machine.main.clock.get("side", 0) == machine.side.clock.get("side", 0)  # nothing is left beside it


def test_matrices_are_unpacked_beside_the_product_before(machine: Machine, scratch: Scratch) -> None:
    order = [machine.projection(str(number), 10) for number in range(6)]
    machine.step(scratch, order)
    machine.writes.clear()
    machine.reads.clear()
    machine.step(scratch, order)
    assert {write.stream for write in machine.writes} == {"side"}
    for read, write in zip(machine.reads, machine.writes[1:], strict=False):
        assert not read.before(write)


def test_a_step_that_takes_no_matrix_leaves_nothing_running_beside_it(machine: Machine, scratch: Scratch) -> None:
    """A recording could not be ended: decoding few rows reads the quantized weights themselves."""
    machine.step(scratch, [machine.projection(str(number), 10) for number in range(4)])
    machine.writes.clear()
    machine.step(scratch, [])
    assert not machine.writes
