"""The webhook, against real receivers on loopback, called by real flow runs."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Thread
from typing import Any
from uuid import uuid4

import pytest
from prefect import flow
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

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


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed_and_not_delivered(
    status: int, receive: Callable[[int], Receiver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    elsewhere = receive(200)
    here = Receiver(status, location=elsewhere.address)
    monkeypatch.setenv(notification.VARIABLE, here.address)
    assert run(lambda: "fine").is_completed()
    here.close()
    assert not elsewhere.received and len(here.received) == notification.ATTEMPTS
    assert f"status {status}" in caplog.text and SECRET not in caplog.text


ENDLESS = {
    "a status that drips": lambda client: [client.send(b"H"), time.sleep(0.2)],
    "headers that drip": lambda client: [client.send(b"HTTP/1.1 200 OK\r\nX: "), [drip(client) for _ in range(40)]],
    "interim answers without end": lambda client: [client.send(b"HTTP/1.1 100 Go on\r\n\r\n") for _ in range(10**6)],
    "a body without end": lambda client: client.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 10**7),
}  # fmt: skip


def drip(client: socket.socket) -> None:
    time.sleep(0.2)
    client.send(b"x")


@pytest.mark.parametrize("how", ENDLESS)
def test_an_endless_answer_holds_up_no_run(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                Thread(target=serve, args=(client,), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with suppress(OSError), client:
            client.recv(65536)
            ENDLESS[how](client)

    monkeypatch.setattr(notification, "TIMEOUT", 0.5)
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as server:
        Thread(target=answer, daemon=True).start()
        started = time.monotonic()
        problem = notification._post(f"http://[::1]:{server.getsockname()[1]}/{SECRET}", b"{}")
        assert time.monotonic() - started < 2
        assert (problem == "") is (how == "a body without end") and SECRET not in problem


BROKEN = {
    "nothing listens": ("http://127.0.0.1:1/x", {}),
    "no such name": ("http://no-such-host.invalid/x", {}),
    "a proxy that is not there": ("http://hooks.invalid/x", {"http_proxy": "http://127.0.0.1:1"}),
    "a SOCKS proxy": ("https://hooks.invalid/x", {"https_proxy": "socks5://127.0.0.1:1"}),
    "no TLS": ("https://127.0.0.1:{port}/x", {}),
    "a file": ("file:///etc/passwd", {}),
    "no port": ("http://127.0.0.1:http/x", {}),
    "no address": ("http://[::1/x", {}),
    "a line end in it": ("http://127.0.0.1:{port}/x\r\nHost: y", {}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_whatever_is_wrong_with_the_address_is_one_line(
    what: str, receive: Callable[[int], Receiver], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    address, variables = BROKEN[what]
    receiver = receive(200)
    monkeypatch.setenv(notification.VARIABLE, address.format(port=receiver.server.server_port))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    notification.notify(None, FlowRun(name="demo", flow_id=uuid4(), parameters={}), Completed(message="fine"))
    lines = [record for record in caplog.records if record.name == notification.__name__]
    assert len(lines) == 1 and "nobody was notified" in lines[0].getMessage() and not receiver.received


def test_a_password_in_the_address_is_sent_as_one(receive: Callable[[int], Receiver]) -> None:
    receiver = receive(200)
    address = receiver.address.replace("http://", "http://me:p%40ss@")
    assert notification._post(address, b"{}") == "" and receiver.received == [{}]
