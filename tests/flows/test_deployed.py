"""What the process of a deployed run says when it is ended, to a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import pytest
from prefect import flow, get_client, settings
from prefect.client.schemas.objects import State
from prefect.states import Completed, Pending, Running

from artifacts.installation import PROJECT
from flows import deployed
from tests.waiting import free_port, until


@flow(name="deployed")
def some_flow() -> None: ...


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    usual = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    for number, handler in usual.items():
        signal.signal(number, handler)


def run_in(state: State[None]) -> UUID:
    with get_client(sync_client=True) as client:
        return client.create_flow_run(some_flow, state=state).id


def state_of(run: UUID) -> State[None]:
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        assert state is not None
        return state


def begin_late(run: UUID) -> None:
    """The request that says `Running`, held up until the run is called crashed."""
    while not state_of(run).is_crashed():
        time.sleep(0.02)
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run, Running())


@pytest.mark.usefixtures("prefect_server")
def test_a_request_that_was_under_way_does_not_bring_a_crashed_run_back() -> None:
    run = run_in(Pending())
    late = threading.Thread(target=begin_late, args=[run])
    late.start()
    deployed._report(run, deployed.ORPHANED)
    late.join()
    state = state_of(run)
    assert state.is_crashed() and state.message == deployed.ORPHANED


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_is_done_stays_done() -> None:
    run = run_in(Completed())
    deployed._report(run, deployed.ORPHANED)
    assert state_of(run).is_completed()


@pytest.mark.usefixtures("prefect_server")
def test_what_becomes_of_the_end_in_the_code_that_it_meets_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    class Met(deployed.End):
        def follow_worker(self, port: str | None) -> None:
            self.reason = deployed.ORPHANED
            raise RuntimeError("generator didn't stop after throw()")

    run = run_in(Running())
    monkeypatch.setenv("PREFECT__FLOW_RUN_ID", str(run))
    monkeypatch.setattr(deployed, "End", Met)
    assert deployed.main() == 0
    assert state_of(run).is_crashed()
    assert 0 < signal.getitimer(signal.ITIMER_REAL)[0] <= deployed.LAST_WORDS


@pytest.mark.usefixtures("prefect_server")
def test_what_a_run_says_of_its_end_is_not_cut_off_when_it_hears_of_it_again() -> None:
    """The port where its worker listened is closed, and then the kernel tells that the worker is gone, too."""
    run = run_in(Pending())
    address = settings.PREFECT_API_URL.value()
    variables = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run), "PREFECT__CONTROL_PORT": str(free_port())}
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.deployed"], env={**variables, "PREFECT_API_URL": address}, cwd=PROJECT
    )
    caught = until(lambda: signals_caught(process) or process.poll() is not None)
    assert caught is True, "it ended before it listened"
    while process.poll() is None:
        process.send_signal(signal.SIGHUP)
        time.sleep(0.05)
    state = state_of(run)
    assert state.is_crashed() and state.message == deployed.ORPHANED


@pytest.mark.usefixtures("prefect_server")
def test_a_run_that_meets_its_workers_end_in_what_it_writes_says_so() -> None:
    """Rich ends a process whose pipe nobody reads, and that may come before the kernel's word."""
    run = run_in(Pending())
    variables = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run), "PREFECT_API_URL": settings.PREFECT_API_URL.value()}
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "flows.deployed"]
    done = subprocess.run(command, env=variables, cwd=PROJECT, stdout=writer, stderr=writer, timeout=60)
    os.close(writer)
    assert done.returncode == 0
    state = state_of(run)
    assert state.is_crashed() and state.message == deployed.ORPHANED


def signals_caught(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has a handler for SIGHUP, which the system ends it by otherwise."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGHUP - 1)


def test_a_process_that_waits_for_ever_at_its_end_is_ended() -> None:
    script = "import atexit, threading; from flows.processes import end_within; "
    script += "atexit.register(threading.Event().wait); end_within(0.5)"
    done = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert done.returncode == -signal.SIGALRM
