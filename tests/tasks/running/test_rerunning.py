"""Running again, on a real Prefect server: from a stage on, one stage alone, and what failed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.exceptions import TerminationSignal
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from artifacts.pruning import prune
from artifacts.store import Store
from flows import cli
from flows.deployed import Ended
from tasks.running.run import Run
from tests.servers import tell_all
from tests.tasks.running.chain import FIRST, SECOND, Settings, calls, chain
from tests.waiting import ended_task_runs

pytestmark = pytest.mark.usefixtures("prefect_server", "told_here")


@pytest.fixture(scope="module")
def told_here(prefect_server: Path) -> None:
    """What becomes of stages is told to this server, whatever servers tests before had."""
    tell_all()


ALL = ["first", "aside", "second", "third"]


def test_from_a_stage_on_runs_what_follows_from_it_and_nothing_else(tmp_path: Path) -> None:
    chain(str(tmp_path))
    assert calls(tmp_path) == ALL
    chain(str(tmp_path), from_stage="second")
    assert calls(tmp_path) == ["second", "third"]
    chain(str(tmp_path), from_stage="first")
    assert calls(tmp_path) == ["first", "second", "third"]
    chain(str(tmp_path), refresh=["first"])
    assert calls(tmp_path) == ["first"]


@flow(name="derived")
def derived(folder: str, from_stage: str | None = None) -> None:
    """Two stages: the second's settings were made from what the first one made."""
    with Run(Store(Path(folder) / "store"), from_stage=from_stage) as run:
        first = run.stage(FIRST, Settings(text="first", folder=folder))
        run.stage(SECOND, Settings(text="second", folder=folder, length=len(first.text)), after=first)


def test_from_a_stage_on_runs_what_its_result_decided_the_settings_of(tmp_path: Path) -> None:
    derived(str(tmp_path))
    derived(str(tmp_path))
    assert calls(tmp_path) == ["first", "second"]
    derived(str(tmp_path), from_stage="first")
    assert calls(tmp_path) == ["first", "second"]


def test_pruning_while_runs_come_and_go_takes_nothing_from_them(tmp_path: Path) -> None:
    """Each of the runs looks for what the one before made, while that is being removed."""
    store, done = Store(tmp_path / "store"), threading.Event()

    def prune_on() -> int:
        freed = 0
        while not done.is_set():
            freed += prune(store, 0).bytes
        return freed

    with ThreadPoolExecutor(1) as pool:
        pruning = pool.submit(prune_on)
        try:
            states = [set(chain(str(tmp_path), length=1 + number % 2)) for number in range(6)]
        finally:
            done.set()
        assert pruning.result() > 0 and states == [set(ALL)] * 6


def test_the_ledger_tells_a_failed_run_and_its_retry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    failed_at_second(tmp_path)
    assert cli.guarded(["runs", "--store", str(tmp_path / "store")]) == 0
    said = capsys.readouterr().out
    assert "chain-3" in said and "✓ first  ✓ aside  ✗ second" in said and "second is broken" in said
    chain(str(tmp_path))
    assert cli.guarded(["runs", "--store", str(tmp_path / "store"), "--json"]) == 0
    runs = json.loads(capsys.readouterr().out.splitlines()[-1])["runs"]
    assert [run["state"] for run in runs] == ["completed", "failed"] and runs[0]["bytes"] > 1000


ENDS: list[tuple[BaseException, str | None, str]] = [
    (Ended("its worker is gone"), None, "killed"),
    (TerminationSignal(15), None, "killed"),  # its worker was stopped
    (TerminationSignal(15), "cancel", "cancelled"),  # in the dashboard
    (KeyboardInterrupt(), None, "cancelled"),
]


@pytest.mark.parametrize(("error", "intent", "state"), ENDS)
def test_the_ledger_tells_a_run_whose_worker_was_killed_from_a_cancelled_one(
    error: BaseException, intent: str | None, state: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.running.run.get_intent", lambda: intent)
    store = Store(tmp_path / "store")
    with pytest.raises(type(error)), Run(store):
        raise error
    assert [run.state for run in store.ledger.runs()] == [state]


def failed_at_second(folder: Path, **parameters: Any) -> Any:
    """The id of a flow run that failed at its second stage; what was wrong is mended since."""
    broken = folder / "second is broken"
    broken.touch()
    state = chain(str(folder), **parameters, return_state=True)
    assert state.is_failed()
    broken.unlink()
    return state.state_details.flow_run_id


def test_retry_in_the_dashboard_runs_only_what_failed_and_what_follows(tmp_path: Path) -> None:
    run_id = failed_at_second(tmp_path, from_stage="first")
    assert calls(tmp_path) == ["first", "aside", "second"]
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(run_id, Scheduled(name="AwaitingRetry"), force=True)  # what its button does
        again = client.read_flow_run(run_id)
        assert run_flow(chain, flow_run=again, parameters=again.parameters) == {
            **dict.fromkeys(("first", "aside"), "cached"),
            **dict.fromkeys(("second", "third"), "ran"),
        }
    assert calls(tmp_path) == ["second", "third"]
    states = task_runs(run_id, count=7)
    assert states == {
        "first": ["Cached", "Completed"],
        "aside": ["Cached", "Completed"],
        "second": ["Completed", "Failed"],
        "third": ["Completed"],
    }


def test_what_the_store_has_is_marked_cached(tmp_path: Path) -> None:
    chain(str(tmp_path))
    cached = {stage: ["Cached"] for stage in ALL}
    state = chain(str(tmp_path), return_state=True)
    assert state.result() == dict.fromkeys(ALL, "cached")
    assert task_runs(state.state_details.flow_run_id, count=4) == cached
    shutil.rmtree(Store(tmp_path / "store").place / "third")
    state = chain(str(tmp_path), return_state=True)
    assert task_runs(state.state_details.flow_run_id, count=4) == cached | {"third": ["Completed"]}


def task_runs(run_id: Any, count: int) -> dict[str, list[str]]:
    """The states of a flow run's task runs by name, once that many have ended."""
    with get_client(sync_client=True) as client:
        runs = ended_task_runs(client, run_id, ALL, count)
    return {name: sorted(str(run.state_name) for run in runs if run.name == name) for name in ALL}


def test_prefects_own_command_retries_in_another_process(tmp_path: Path) -> None:
    from prefect.settings import PREFECT_API_URL

    run_id = failed_at_second(tmp_path, refresh=["first"])
    calls(tmp_path)
    arguments = ["flow-run", "retry", str(run_id), "--entrypoint", "tests.tasks.running.chain.chain"]
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *arguments], env=environment, capture_output=True, text=True, timeout=200
    )
    assert calls(tmp_path) == ["second", "third"], done.stdout + done.stderr
    (record,) = Store(tmp_path / "store").ledger.runs()
    assert (record.id, record.state) == (str(run_id), "completed")
