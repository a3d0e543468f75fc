"""What the process of a deployed run says when it is ended, to a real server."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from prefect import flow, get_client, settings
from prefect.client.schemas.objects import State
from prefect.states import Completed, Pending, Running

from artifacts.installation import PROJECT
from flows import deployed, programs
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


SHELL = {"prefect.deployments.steps.run_shell_script": {"script": "touch {mark}"}}
OTHERS: dict[str, dict[str, Any]] = {
    "a command before": {"entrypoint": "flows.finetune.finetune", "pull_steps": [SHELL]},
    "a command beside the folder": {
        "entrypoint": "flows.finetune.finetune",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "/"}} | SHELL],
    },
    "a file": {"entrypoint": "theirs.py:theirs", "path": "{folder}"},
    "a module": {"entrypoint": "os.system"},
    "a module in their folder": {
        "entrypoint": "theirs.theirs",
        "pull_steps": [{"prefect.deployments.steps.set_working_directory": {"directory": "{folder}"}}],
    },
}


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("kind", OTHERS)
def test_a_deployment_does_not_say_which_code_is_run(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\ntheirs = None\n")
    said = json.loads(json.dumps(OTHERS[kind]).replace("{mark}", str(mark)).replace("{folder}", str(tmp_path)))
    (home := tmp_path / "home").mkdir()
    with get_client(sync_client=True) as client:
        flow_id = client.create_flow(some_flow)
        place = client.create_deployment(flow_id, f"theirs-{kind}", **said)
        run = client.create_flow_run_from_deployment(place, state=Pending()).id
    variables = {**os.environ, "PREFECT__FLOW_RUN_ID": str(run), "PREFECT_API_URL": settings.PREFECT_API_URL.value()}
    command = [sys.executable, "-P", "-m", "flows.deployed"]
    done = subprocess.run(command, env=variables, cwd=home, timeout=60, capture_output=True, text=True)
    state = state_of(run)
    assert state.is_failed() and "deployment cannot" in (state.message or ""), done.stderr
    assert done.returncode == 0 and not mark.exists()


@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("kind", OTHERS)
def test_nor_which_code_a_worker_asks_who_is_to_be_told(kind: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "theirs.py").write_text(f"open({str(mark)!r}, 'w')\ntheirs = None\n")
    said = json.loads(json.dumps(OTHERS[kind]).replace("{mark}", str(mark)).replace("{folder}", str(tmp_path)))
    assert "InputError" in asked(f"told-{kind}", said).stderr and not mark.exists()


@pytest.mark.usefixtures("prefect_server")
def test_a_worker_finds_ours() -> None:
    found = asked("told-ours", {"entrypoint": programs.FLOWS[0]})
    assert found.stdout.splitlines()[-1:] == ["finetune 2"], found.stderr


def asked(name: str, said: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """A worker's process asks for the flow of a crashed run, as Prefect has it ask."""
    with get_client(sync_client=True) as client:
        place = client.create_deployment(client.create_flow(some_flow), name, **said)
        run = client.create_flow_run_from_deployment(place, state=Pending()).id
    variables = {**os.environ, "PREFECT_API_URL": settings.PREFECT_API_URL.value() or ""}
    command = [sys.executable, "-P", "-c", ASKED, str(run)]
    return subprocess.run(command, env=variables, cwd="/", capture_output=True, text=True)


ASKED = """
import asyncio, sys
from prefect import get_client
from prefect.workers import process
from flows import programs
programs.keep_to_ours()
async def ask():
    async with get_client() as client:
        run = await client.read_flow_run(sys.argv[1])
    found = await process.load_flow_from_flow_run(run)
    print(found.name, len(found.on_crashed_hooks))
asyncio.run(ask())
"""


def signals_caught(process: subprocess.Popen[bytes]) -> bool:
    """Whether it has a handler for SIGHUP, which the system ends it by otherwise."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) & 1 << signal.SIGHUP - 1)


def test_a_process_that_waits_for_ever_at_its_end_is_ended() -> None:
    script = "import atexit, threading; from flows.processes import end_within; "
    script += "atexit.register(threading.Event().wait); end_within(0.5)"
    done = subprocess.run([sys.executable, "-c", script], timeout=60)
    assert done.returncode == -signal.SIGALRM


@pytest.mark.parametrize("flow", ["flows.finetune", "flows.reevaluation"])
def test_a_run_that_begins_insists_on_its_server_and_one_that_is_prepared_does_not(flow: str) -> None:
    program = (
        "import importlib, sys, flows.deployed, prefect.client.base; from tasks.running.insistence import insist\n"
        "insist(lambda: flows.deployed.FLOW in sys.modules)\n"
        "client = prefect.client.base.PrefectHttpxSyncClient()\n"
        f"before = client._has_connected; importlib.import_module({flow!r}); print(before, client._has_connected)"
    )
    said = subprocess.check_output([sys.executable, "-c", program], cwd=PROJECT, text=True)
    assert said.split() == ["False", "True"]
