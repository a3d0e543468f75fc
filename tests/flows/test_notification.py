"""The webhook, against real receivers on loopback, called by real flow runs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from prefect import flow

from artifacts.errors import InputError
from flows import notification
from flows.finetune import finetune
from tests.flows.receiver import SECRET, Receiver

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def receive(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], Receiver]]:
    opened: list[Receiver] = []
    monkeypatch.setattr(notification, "PAUSE", 0.0)
    monkeypatch.setattr(notification, "TIMEOUT", 0.5)

    def start(status: int) -> Receiver:
        opened.append(Receiver(status))
        monkeypatch.setenv(notification.VARIABLE, opened[-1].address)
        return opened[-1]

    yield start
    for receiver in opened:
        receiver.close()


def run(end: Callable[[], Any]) -> Any:
    """A flow with the pipeline's hooks that ends as `end` does."""

    def body(config: dict[str, str]) -> Any:
        return end()

    hooks = {
        "on_completion": finetune.on_completion_hooks,
        "on_failure": finetune.on_failure_hooks,
        "on_crashed": finetune.on_crashed_hooks,
        "on_cancellation": finetune.on_cancellation_hooks,
    }
    assert all(notification.notify in found for found in hooks.values())
    return flow(name="noted", persist_result=False, **hooks)(body)({"recipe": "demo"}, return_state=True)


def refuse() -> None:
    raise InputError("no such word", field="sampling.source", remedy="name another")


def test_success_is_told(receive: Callable[[int], Receiver]) -> None:
    receiver = receive(200)
    run(lambda: "fine")
    (said,) = receiver.received
    assert (said["state"], said["recipe"]) == ("completed", "demo")
    assert said["dashboard"].endswith(f"/runs/flow-run/{said['run']['id']}") and said["seconds"] >= 0


def test_failure_is_told_with_what_to_do(receive: Callable[[int], Receiver]) -> None:
    receiver = receive(200)
    run(refuse)
    (said,) = receiver.received
    assert said["state"] == "failed"
    assert said["error"] == {"field": "sampling.source", "problem": "no such word", "remedy": "name another"}


def test_a_crash_is_told(receive: Callable[[int], Receiver]) -> None:
    receiver = receive(200)

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(die)
    assert [said["state"] for said in receiver.received] == ["crashed"]
    assert receiver.received[0]["error"]["problem"]


@pytest.mark.parametrize("status", [500, 0])
def test_a_receiver_that_fails_or_hangs_fails_no_run_and_its_address_stays_secret(
    status: int, receive: Callable[[int], Receiver], caplog: pytest.LogCaptureFixture
) -> None:
    receiver = receive(status)
    with caplog.at_level(logging.DEBUG):
        assert run(lambda: "fine").is_completed()
    assert len(receiver.received) == notification.ATTEMPTS
    assert "nobody was notified" in caplog.text and SECRET not in caplog.text


def test_without_an_address_nothing_is_sent(
    receive: Callable[[int], Receiver], monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = receive(200)
    monkeypatch.delenv(notification.VARIABLE)
    assert run(lambda: "fine").is_completed()
    assert not receiver.received
