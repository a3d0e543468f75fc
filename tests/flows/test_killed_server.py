"""The temporary server of a run is killed while others compute the parts of a stage: each runner goes on."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from prefect import flow, task
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_HOME,
    temporary_settings,
)

from flows import server
from tasks.running.mapping import WorkersConfig
from tasks.running.workers import started
from tests import records
from tests.servers import tell_all
from tests.waiting import import_path, until

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[server.Temporary]:
    """A run's own server, up."""
    monkeypatch.setattr(server, "USUAL", "http://127.0.0.1:1")  # whatever runs on this machine is not ours
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    records.copy_to(tmp_path / "prefect.db")
    with temporary_settings({PREFECT_HOME: tmp_path}, restore_defaults={PREFECT_API_URL, PREFECT_API_AUTH_STRING}):
        made = server.start()
        assert isinstance(made, server.Temporary)
        with made.ready():
            yield made
            if made._failure is None:  # nobody is there else, and the events insist for a minute
                tell_all()
        made._stop()


@pytest.fixture
def workers(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[WorkersConfig]:
    """Who computes: two workers of the kind that the test names."""
    if request.param != "dask":
        yield WorkersConfig(runner=request.param, count=2)
        return
    found = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(found)]
    commands = [["scheduler", "--port", "0", "--host", "127.0.0.1", *common]]
    commands += [["worker", "--no-nanny", "--nthreads", "2", *common]]
    # As on another machine: nobody told the worker of codetune's settings for Prefect.
    places = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    places |= {"PYTHONPATH": import_path(PROJECT), "PREFECT_HOME": str(tmp_path / "worker")}
    cluster = [subprocess.Popen([sys.executable, "-m", "dask", *command], env=places) for command in commands]
    try:
        from distributed import Client

        with Client(scheduler_file=str(found), set_as_default=False, timeout=120) as client:
            client.wait_for_workers(1, timeout=120)
            yield WorkersConfig(runner="dask", count=2, address=client.scheduler.address)
    finally:
        for process in cluster:
            process.kill()
            process.wait()


class Traveller:
    """An item that leaves a mark where it arrives, just before the worker asks the server for the first time."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return arrive, (self.mark,)


def arrive(mark: Path) -> Traveller:
    mark.touch()
    return Traveller(mark)


def known(_item: Traveller) -> int:
    return 7


@task(name="stage")
def stage(config: WorkersConfig, victim: int, mark: Path) -> list[int]:
    """As a stage does it: its parts are runs below its own."""
    with started(config) as mapper:
        os.kill(victim, 9)
        return list(mapper.map("knowing", known, [Traveller(mark)] * 3))


@flow(validate_parameters=False)
def in_a_run(config: WorkersConfig, victim: int, mark: Path) -> list[int]:
    return stage(config, victim, mark)


@pytest.mark.parametrize("workers", ["threads", "processes", "dask"], indirect=True)
def test_a_killed_server_stops_no_runner(
    workers: WorkersConfig, temporary: server.Temporary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, launch = tmp_path / "mark", temporary._launch

    def late() -> subprocess.Popen[bytes]:
        if workers.runner != "threads":
            until(mark.exists)
        time.sleep(1)
        return launch()

    monkeypatch.setattr(temporary, "_launch", late)
    assert in_a_run(workers, temporary._process.pid, mark) == [7, 7, 7]


def programs(item: int) -> list[list[str]]:
    """What was started below this process, a while after it told of its first part."""
    time.sleep(2 * item)
    return [one.cmdline() for one in psutil.Process().children(recursive=True)]


@task(name="stage")
def looking(config: WorkersConfig) -> list[list[list[str]]]:
    with started(config) as mapper:
        return list(mapper.map("looking", programs, [0, 0, 1, 1]))


@flow
def looking_around(config: WorkersConfig) -> list[list[list[str]]]:
    return looking(config)


@pytest.mark.parametrize("workers", ["processes", "dask"], indirect=True)
def test_no_worker_starts_a_server(workers: WorkersConfig, temporary: server.Temporary) -> None:
    assert not [one for seen in looking_around(workers) for one in seen if "resource_tracker" not in str(one)]
    assert httpx.get(f"{temporary.address}/api/admin/version").status_code == 401


@pytest.mark.parametrize("workers", ["processes"], indirect=True)
def test_one_that_cannot_be_started_again_ends_a_pool_at_once(
    workers: WorkersConfig, temporary: server.Temporary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "STARTS", 1)  # each takes a minute on a machine that is full
    mark, launch = tmp_path / "mark", temporary._launch

    def damaged() -> subprocess.Popen[bytes]:
        until(mark.exists)
        (tmp_path / "prefect.db").write_bytes(b"no database" * 1000)
        (tmp_path / "prefect.db-wal").unlink(missing_ok=True)  # it may hold all of the database
        return launch()

    monkeypatch.setattr(temporary, "_launch", damaged)
    with pytest.raises((KeyboardInterrupt, httpx.TransportError)):
        in_a_run(workers, temporary._process.pid, mark)
    assert until(lambda: temporary._failure) and not multiprocessing.active_children()
