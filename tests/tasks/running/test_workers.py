"""Parts of stages on every task runner: the same bytes, as task runs that the dashboard shows."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect import flow, get_client
from prefect.settings import PREFECT_API_URL

from artifacts.errors import InputError, StageError
from artifacts.store import Store
from tasks import sampling, tokenization
from tasks.models.base_model import ModelConfig, locate
from tasks.running import mapping
from tasks.running.mapping import WorkersConfig
from tasks.running.run import Run
from tasks.running.workers import started
from tasks.sampling import SamplingConfig
from tasks.tokenization import TokenizationConfig
from tests.conftest import BASE_MODEL
from tests.tasks.sampling.test_division import program
from tests.waiting import ended_task_runs, import_path, until

DENY = """
import sys

def deny(event, arguments):
    if event == "open" and str(arguments[0]).startswith({store!r}):
        raise PermissionError(arguments[0])

sys.addaudithook(deny)
"""
"""Run by Dask's workers: the store's disk is not theirs."""


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, stores: Path, prefect_server: None) -> Iterator[str]:
    """A Dask scheduler and two workers, as processes of their own that may not open files of the store."""
    folder = tmp_path_factory.mktemp("dask")
    found, preload = folder / "scheduler.json", folder / "deny.py"
    preload.write_text(textwrap.dedent(DENY.format(store=str(stores))))
    common = ["--no-dashboard", "--scheduler-file", str(found)]
    commands = [["scheduler", "--port", "0", "--host", "127.0.0.1", *common]]
    commands += [["worker", "--no-nanny", "--nthreads", "1", "--preload", str(preload), *common]] * 2
    # These tests' functions travel by name.
    places = os.environ | {"PYTHONPATH": import_path(Path(__file__).parents[3])}
    with (folder / "log").open("wb") as log:
        processes = [
            subprocess.Popen([sys.executable, "-m", "dask", *command], cwd=folder, env=places, stdout=log, stderr=log)
            for command in commands
        ]
    try:
        from distributed import Client

        until(lambda: _is_written(found) or any(process.poll() is not None for process in processes), patience=120)
        assert _is_written(found), (folder / "log").read_text()
        with Client(scheduler_file=str(found), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
            yield client.scheduler.address
    finally:
        for process in processes:
            process.kill()  # told to end, a worker would first wait for its scheduler
            process.wait()


def _is_written(file: Path) -> bool:
    return file.exists() and file.read_text().endswith("}")


def config_of(runner: str, address: str | None) -> WorkersConfig:
    return WorkersConfig.model_validate(
        {"runner": runner, "count": 2, "address": address if runner == "dask" else None}
    )


def tokenized(store: Store, source: Path, config: WorkersConfig) -> tuple[str, UUID]:
    """Fingerprint of the tokens made of a source, and the flow run that made them."""

    @flow
    def two_stages() -> tuple[str, UUID]:
        from prefect.runtime import flow_run

        run = Run(store, workers=config)
        paths = {"kind": "local", "paths": [str(source)]}
        general = {"kind": "local", "paths": ["package:anyio"], "repositories": "folder"}
        chosen = SamplingConfig.model_validate(
            {
                "source": paths,
                "files": 300,
                "near_duplicates": 0.7,
                "secrets": "replace",
                "replay": {"share": 0.1, "source": general, "files": 30},
            }
        )
        sample = run.stage(sampling.STAGE, chosen)
        assert sample.replay and sample.replay.size.files and sample.secrets
        assert sample.train.files + sample.held_out.files - sample.replay.size.files == 150
        settings = TokenizationConfig(max_length=64, batch_bytes=20_000)
        model = locate(ModelConfig(name=str(BASE_MODEL)))
        return run.stage(tokenization.STAGE, settings, sample=sample, model=model).fingerprint, UUID(flow_run.id)

    return two_stages()


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files in pairs that nearly equal each other; some hold a secret."""
    root = tmp_path_factory.mktemp("source")
    for number in range(300):
        path = root / f"r{number % 6}" / f"p{number}.py"
        path.parent.mkdir(exist_ok=True)
        secret = f'password = "hunter{number}"\n' * (number % 6 == 0)
        path.write_text(program(str(number // 2)) + secret + "again = 1\n" * (number % 2))
    return root


@pytest.fixture(scope="session")
def one_thread(stores: Path, source: Path, prefect_server: None) -> str:
    return tokenized(Store(stores / "one"), source, WorkersConfig(count=1))[0]


@pytest.mark.parametrize("runner", ["threads", "processes", "dask"])
def test_same_bytes_from_every_runner(
    runner: str, stores: Path, source: Path, one_thread: str, request: pytest.FixtureRequest
) -> None:
    address = request.getfixturevalue("cluster") if runner == "dask" else None
    fingerprint, run = tokenized(Store(stores / runner), source, config_of(runner, address))
    assert fingerprint == one_thread
    parts = {"sifting part 1", "sifting part 5", "tokenizing part 1", "tokenizing part 2"}
    with get_client(sync_client=True) as client:
        assert {part.name for part in ended_task_runs(client, run, parts)} == parts


def where(_item: int) -> int:
    time.sleep(0.3)
    return os.getpid()


def test_both_workers_of_a_cluster_work(cluster: str) -> None:
    with started(WorkersConfig(runner="dask", count=4, address=cluster)) as mapper:
        pids = set(mapper.map("where", where, range(8)))
    assert len(pids) == 2 and os.getpid() not in pids


def test_error_of_a_part_arrives_as_it_is(cluster: str) -> None:
    with (
        started(WorkersConfig(runner="dask", address=cluster)) as mapper,
        pytest.raises(InputError, match="bad part") as error,
    ):
        list(mapper.map("failing", fail, [1]))
    assert error.value.field == "somewhere"


def fail(_item: int) -> None:
    raise InputError("bad part", field="somewhere")


@pytest.mark.parametrize("end", [SystemExit, KeyboardInterrupt, "SIGKILL"])
def test_a_part_that_ends_its_process_is_an_error(end: object, prefect_server: None) -> None:
    with pytest.raises(StageError), started(WorkersConfig(runner="processes", count=1)) as mapper:
        list(mapper.map("ending", end_by, [end]))


def end_by(end: object) -> None:
    if isinstance(end, type) and issubclass(end, BaseException):
        raise end
    os.kill(os.getpid(), signal.SIGKILL)


def test_processes_end_with_a_parent_that_is_killed(prefect_server: None) -> None:
    program = """
        from tasks.running.mapping import WorkersConfig
        from tasks.running.workers import started
        from tests.tasks.running.test_workers import where
        if __name__ == "__main__":
            with started(WorkersConfig(runner="processes", count=1)) as mapper:
                for pid in mapper.map("where", where, range(10_000)):
                    print(pid, flush=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    environment = os.environ | {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    with subprocess.Popen(
        command, env=environment, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert not psutil.wait_procs([worker], timeout=30)[1]


def test_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import dask

    config = WorkersConfig(runner="dask", address="tcp://127.0.0.1:9")
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        with pytest.raises(StageError, match="tcp://127") as unanswered, started(config):
            pass
        assert unanswered.value.field == "workers.address"
        monkeypatch.setattr(mapping, "find_spec", lambda _name: None)
        with pytest.raises(InputError, match="prefect-dask") as refused:
            config.check()
        assert refused.value.field == "workers.runner"


def test_an_address_is_for_dask_and_dask_needs_one() -> None:
    for settings in ({"runner": "dask"}, {"runner": "threads", "address": "tcp://somewhere:1"}):
        with pytest.raises(ValueError, match="address"):
            WorkersConfig.model_validate(settings)
