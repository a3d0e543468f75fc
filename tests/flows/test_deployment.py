"""`codetune up` and what it deploys: one for the whole module, on a copy of the project, with a home of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import httpx
import psutil
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings
from prefect.states import AwaitingRetry, Pending, Scheduled

from flows import stages
from flows.server import answers

PROJECT = Path(__file__).parents[2]
T = TypeVar("T")
SMALL_DEMO = {
    "recipe": "demo",
    "sampling": {"files": 24},
    "tokenization": {"max_length": 64},
    "training": {"max_steps": 2, "warmup_steps": 0, "quantization": "none"},
    "exporting": {"merged": False},
    "kept": None,
    "generation": {
        "max_chunks": 4,
        "line_prompts": 2,
        "fim_prompts": 2,
        "block_prompts": 0,
        "prompt_tokens": 32,
        "max_new_tokens": 4,
    },
    "evaluation": {"resamples": 2000},
}
STAGES = {*stages.STAGES} - {"quantization", "kept", "execution"}
"""Those that run: what is trained as published is not quantized."""


def until(found: Callable[[], T | None], patience: float = 200) -> T:
    """What is found in the end."""
    deadline = time.monotonic() + patience
    while not (value := found()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.2)
    return value


@dataclass
class Up:
    """A running `codetune up`."""

    process: subprocess.Popen[str]
    address: str
    project: Path
    said: Path
    card: dict[str, str]
    """The environment of whoever computes on the same card."""

    def service(self, command: str) -> psutil.Process:
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if command in " ".join(child.cmdline()))

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings({PREFECT_API_URL: f"{self.address}/api"}), get_client(sync_client=True) as client:
            yield client


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project: what a run leaves behind must not lie in the original."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("artifacts", "tasks", "flows"):
        shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("prefect.yaml", "prefect.toml"):
        shutil.copy(PROJECT / name, folder)
    (folder / "models").symlink_to(PROJECT / "models")
    return folder


def command(port: int) -> list[str]:
    return [sys.executable, "-c", "from flows.cli import main; main()", "up", "--port", str(port)]


def clean(**changes: str) -> dict[str, str]:
    """An environment in which no setting of Prefect stands: all that matters is in the project's file."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")} | changes


@contextmanager
def started(project: Path, home: Path, **environment: str) -> Iterator[Up]:
    port, said = free_port(), home / "said.txt"
    home.mkdir(exist_ok=True)
    path = os.pathsep.join([str(project), os.environ.get("PYTHONPATH", "")])
    card = {"CODETUNE_CARD": "stand-in", "CODETUNE_LOCKS": str(home)}
    settings = clean(PREFECT_HOME=str(home), PYTHONPATH=path, CODETUNE_STORE="results", PWD="/", **card, **environment)
    with said.open("w") as file:
        process = subprocess.Popen(command(port), cwd=project, env=settings, stdout=file, stderr=file, text=True)
    up = Up(process, f"http://127.0.0.1:{port}", project, said, card)
    try:
        until(lambda: "the end" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield up
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def up(project: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with started(project, tmp_path_factory.mktemp("home")) as running:
        yield running


def test_the_projects_file_decides_the_servers_settings(up: Up) -> None:
    settings = httpx.get(f"{up.address}/api/admin/settings").json()
    server = settings["server"]
    assert server["concurrency"]["lease_storage"] == "prefect.server.concurrency.lease_storage.filesystem"
    assert (server["ui"]["v2_enabled"], server["analytics_enabled"]) == (False, False)
    assert settings["flows"]["heartbeat_frequency"] == 30
    assert settings["results"]["local_storage_path"] == "store/.records"
    assert httpx.get(f"{up.address}/ui-settings").json()["api_url"] == f"{up.address}/api"


def test_a_second_one_on_the_same_port_says_what_to_do(up: Up, tmp_path: Path) -> None:
    settings = clean(PREFECT_HOME=str(tmp_path))
    port = int(up.address.rpartition(":")[2])
    done = subprocess.run(command(port), cwd=up.project, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "a Prefect server runs at" in done.stderr and f"make up PORT={port + 100}" in done.stderr


def test_everything_is_deployed(up: Up) -> None:
    with up.client() as client:
        found = {deployment.name: deployment for deployment in client.read_deployments()}
        pool = client.read_work_pool("gpu")
    assert {"demo", "codellama-7b-t4", "evaluate"} <= found.keys()
    for deployment in found.values():
        (place,) = (step["prefect.deployments.steps.set_working_directory"] for step in deployment.pull_steps or ())
        assert (deployment.work_pool_name, place) == ("gpu", {"directory": str(up.project)})
    assert pool.concurrency_limit == 1
    (weekly,) = found["codellama-7b-t4"].schedules
    assert (weekly.schedule.timezone, weekly.active) == ("Europe/Berlin", False)  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def scheduler() -> None:
    """A scheduler that works: Prefect 3.8.8 inserts no runs with SQLAlchemy 2.1, which pyproject.toml rules out."""
    if version("sqlalchemy") >= "2.1":
        pytest.skip("the installed SQLAlchemy is newer than constraints.txt: install again")


@pytest.fixture(scope="module")
def scheduled(up: Up, scheduler: None) -> list[FlowRun]:
    """The first two runs that a schedule of every few seconds started, both ended."""
    from prefect.client.schemas.schedules import IntervalSchedule

    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        client.request(
            "PATCH", "/deployments/{id}", path_params={"id": demo.id}, json={"parameters": {"config": SMALL_DEMO}}
        )
        client.create_deployment_schedules(demo.id, [(IntervalSchedule(interval=timedelta(seconds=5)), True)])

        def ended() -> list[FlowRun] | None:
            runs = [run for run in client.read_flow_runs() if run.state and run.state.is_final()]
            return sorted(runs, key=lambda run: str(run.start_time)) if len(runs) >= 2 else None

        runs = until(ended)
        client.request("PATCH", "/deployments/{id}", path_params={"id": demo.id}, json={"paused": True})
        for run in client.read_flow_runs():  # those that came due meanwhile stand in line before what other tests start
            if not (run.state and run.state.is_final()):
                client.delete_flow_run(run.id)
    return runs[:2]


def test_a_schedule_fires_and_its_run_completes(up: Up, scheduled: list[FlowRun]) -> None:
    first = scheduled[0]
    assert first.auto_scheduled and first.state is not None and first.state.is_completed(), up.said.read_text()
    manifests = list((up.project / "results").glob("*/*/manifest.json"))
    assert sorted(path.parts[-3] for path in manifests) == sorted(STAGES)


def test_the_next_one_finds_everything_in_the_store(up: Up, scheduled: list[FlowRun]) -> None:
    with up.client() as client:
        of_second = [run for run in client.read_task_runs() if run.flow_run_id == scheduled[1].id]
    states = {run.name: run.state_name for run in of_second if run.name in STAGES}
    assert states == dict.fromkeys(STAGES, "Cached")
    assert scheduled[1].total_run_time < scheduled[0].total_run_time / 2


def test_a_server_that_is_killed_is_started_again_and_loses_no_run(up: Up) -> None:
    """One run that waits for the worker, and one that is being prepared."""
    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        waiting, begun = (
            client.create_flow_run_from_deployment(demo.id, parameters={"config": SMALL_DEMO}, state=state)
            for state in (Scheduled(), Pending())
        )
        up.service("worker start").suspend()
        up.process.send_signal(signal.SIGSTOP)  # or it starts the server again at once
        up.service("server start").kill()
    path = os.pathsep.join([str(up.project), os.environ.get("PYTHONPATH", "")])
    run = clean(
        PREFECT__FLOW_RUN_ID=str(begun.id),
        PREFECT_API_URL=f"{up.address}/api",
        PREFECT_HOME=str(up.said.parent),
        PYTHONPATH=path,
        CODETUNE_STORE="results",
    )
    prepared = subprocess.Popen(
        [sys.executable, "-m", "flows.deployed"], cwd=up.project, env=run, stderr=subprocess.PIPE, text=True
    )
    assert prepared.stderr is not None
    until(lambda: "went away before the run began" in prepared.stderr.readline())  # type: ignore[union-attr]
    up.process.send_signal(signal.SIGCONT)
    until(lambda: "starting it again" in up.said.read_text())
    until(lambda: answers(up.address))
    up.service("worker start").resume()
    said = prepared.communicate(timeout=200)[1]
    assert prepared.returncode == 0, said

    def ended() -> list[FlowRun] | None:
        with up.client() as client:
            runs = [client.read_flow_run(run.id) for run in (waiting, begun)]
        return runs if all(run.state and run.state.is_final() for run in runs) else None

    assert [run.state_name for run in until(ended)] == ["Completed", "Completed"], up.said.read_text()


def everything_below(up: Up) -> list[psutil.Process]:
    return [psutil.Process(up.process.pid), *psutil.Process(up.process.pid).children(recursive=True)]


def trains(up: Up) -> bool:
    """Whether optimizer steps are being made: the event file bears the process's number."""
    with suppress(psutil.NoSuchProcess):  # some end while they are looked at
        pids = [one.pid for one in everything_below(up) if "tasks.training.worker" in one.cmdline()]
        events = up.project / "results" / ".work" / "training"
        return any([*events.glob(f"*/result/tensorboard/events*.{pid}.*")] for pid in pids)
    return False


@pytest.fixture(scope="module")
def long_run(up: Up) -> FlowRun:
    """A run of the worker's that trains and trains."""
    config = json.loads(json.dumps(SMALL_DEMO))
    config["training"]["max_steps"] = 5000
    with up.client() as client:
        demo = client.read_deployment_by_name("finetune/demo")
        run = client.create_flow_run_from_deployment(demo.id, parameters={"config": config})
    until(lambda: trains(up))
    return run


def test_a_run_by_hand_waits_for_the_card_until_the_workers_run_is_gone(up: Up, long_run: FlowRun) -> None:
    """That one goes with its worker, and says so."""
    recipe = up.project / "by-hand.yaml"
    recipe.write_text(json.dumps(SMALL_DEMO))  # which is YAML
    run = ["run", str(recipe), "--refresh", "training", "--store", "results"]
    environment = {**clean(PREFECT_API_URL=f"{up.address}/api", PYTHONPATH=str(up.project)), **up.card}
    by_hand = subprocess.Popen(
        [sys.executable, "-c", "from flows.cli import main; main()", *run], cwd=up.project, env=environment
    )
    with up.client() as client:
        until(lambda: "another run uses the card" in str(client.read_logs(limit=200)))
        up.service("worker start").kill()
        crashed = until(lambda: (found := client.read_flow_run(long_run.id)).state_name == "Crashed" and found)
        assert crashed.state is not None and "The worker of this run is gone" in (crashed.state.message or "")
        until(lambda: "the card stand-in is free" in str(client.read_logs(limit=200)))
    by_hand.terminate()
    by_hand.wait(60)


def test_ctrl_c_ends_everything_at_work(up: Up, long_run: FlowRun) -> None:
    """The last test of the module that uses it. Training has written a checkpoint."""
    with up.client() as client:
        client.set_flow_run_state(long_run.id, AwaitingRetry(), force=True)  # as Retry in the dashboard does
    until(lambda: trains(up))
    everything = everything_below(up)
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(200) == 0, up.said.read_text()
    assert not [process for process in everything[1:] if process.is_running()]
    assert list((up.project / "results").glob(".work/training/*/checkpoints/step-*/checkpoint.json"))
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{up.address}/api/health")


def test_everything_ends_with_a_kill_of_the_parent(project: Path, tmp_path: Path) -> None:
    with started(project, tmp_path / "home") as up:
        everything = everything_below(up)
        assert len(everything) == 3
        up.process.send_signal(signal.SIGKILL)
        up.process.wait()
        _, alive = psutil.wait_procs(everything, timeout=60)
        assert not alive, [process.cmdline() for process in alive]
