"""How a failure in the training process becomes an exception in the supervising one."""

from __future__ import annotations

import errno
import json
import os

import pytest

from artifacts.errors import InputError, StageError
from tasks.training.fallback import NoMemoryError, out_of_memory
from tasks.training.messages import Sender, error_of

OUTPUT = "the end of its output"


def through_the_pipe(error: Exception) -> Exception:
    reader, writer = os.pipe()
    Sender(writer).fail(error)
    os.close(writer)
    with os.fdopen(reader) as lines:
        return error_of(json.loads(lines.readline()), OUTPUT)


@pytest.mark.parametrize("kind", [InputError, StageError])
def test_our_errors_arrive_whole(kind: type[InputError] | type[StageError]) -> None:
    error = kind("no such layer", field="training.lora.target_modules", remedy="name another")
    arrived = through_the_pipe(error)
    assert type(arrived) is kind
    assert str(arrived) == str(error)


def test_a_full_disk_stays_a_full_disk() -> None:
    arrived = through_the_pipe(OSError(errno.ENOSPC, "No space left on device", "/store/optimizer.pt"))
    assert isinstance(arrived, OSError)
    assert (arrived.errno, arrived.filename) == (errno.ENOSPC, "/store/optimizer.pt")


def test_a_crash_is_told_with_type_message_and_output() -> None:
    arrived = through_the_pipe(ZeroDivisionError("division by zero"))
    assert isinstance(arrived, StageError)
    assert "ZeroDivisionError" in str(arrived) and "division by zero" in str(arrived) and OUTPUT in str(arrived)


def test_running_out_of_memory_arrives_with_its_step() -> None:
    explained = out_of_memory(MemoryError(), step=37)
    assert explained is not None
    arrived = through_the_pipe(explained)
    assert isinstance(arrived, NoMemoryError)
    assert (arrived.step, str(arrived)) == (37, str(explained))


def test_nobody_listening_is_no_failure() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    sender = Sender(writer)
    sender.send("step", step=1, details={})
    sender.send("step", step=2, details={})
    os.close(writer)
