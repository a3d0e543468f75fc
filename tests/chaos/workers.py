"""Runs that a worker has taken: killed with their worker, killed under it, and cancelled from the dashboard."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import psutil

from tests.chaos.kills import judge_results
from tests.chaos.machine import (
    MARKER,
    PROJECT,
    STAGES,
    Machine,
    Results,
    environment,
    processes,
    stop,
    wait_until,
)

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State

POOL = "chaos"


@dataclass
class Worker:
    """A process worker of a pool that takes one run at a time."""

    machine: Machine
    process: subprocess.Popen[bytes]
    marker: str
    said: Path

    @classmethod
    def start(cls, machine: Machine) -> Worker:
        marker = f"worker-{uuid4()}"
        said = machine.folder / f"{marker}.log"
        with said.open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process"],
                cwd=PROJECT,
                env={
                    **environment(machine.folder),
                    **machine.api,
                    MARKER: marker,
                    "PREFECT_WORKER_QUERY_SECONDS": "1",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return cls(machine, process, marker, said)

    def flow(self) -> psutil.Process | None:
        """The process of the flow run, while there is one."""
        return self._having("prefect.flow_engine", "prefect.engine")

    def training(self) -> psutil.Process | None:
        """The training process, while there is one."""
        return self._having("tasks.training.worker")

    def end(self) -> None:
        """SIGTERM, and nothing is left."""
        stop(self.process, signal.SIGTERM)
        self.process.wait(60)
        wait_until("every process of the worker is gone", lambda: not processes(self.marker))

    def words(self) -> str:
        return self.said.read_text(errors="replace")[-3000:]

    def _having(self, *modules: str) -> psutil.Process | None:
        for process in processes(self.marker):
            try:
                if {*modules} & {*process.cmdline()}:
                    return process
            except psutil.NoSuchProcess:
                continue
        return None


class Office:
    """The machine's deployment and what is known of its runs."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self._prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        self._prefect("work-pool", "set-concurrency-limit", POOL, "1")
        self._prefect("--no-prompt", "deploy", "flows.finetune.finetune", "--name", "chaos", "--pool", POOL)

    def submit(self, store: Results) -> UUID:
        """A run of the small recipe for the worker to take, as the dashboard makes one."""
        with self._client() as client:
            deployment = client.read_deployment_by_name("finetune/chaos")
            return client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"config": {"recipe": str(self.machine.recipe)}},
                job_variables={"env": {"CODETUNE_STORE": str(store.root)}},
            ).id

    def state(self, run: UUID) -> State[Any]:
        with self._client() as client:
            state = client.read_flow_run(run).state
            assert state is not None
            return state

    def cancel(self, run: UUID) -> None:
        """What the dashboard's button does."""
        from prefect.client.schemas.objects import State, StateType

        with self._client() as client:
            client.set_flow_run_state(run, State(type=StateType.CANCELLING, name="Cancelling"))

    def task_states(self, run: UUID) -> dict[str, str]:
        """Names of the states of a run's stages."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with self._client() as client:
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
        return {task.name: task.state_name or "" for task in tasks if task.name in STAGES}

    def _client(self) -> Any:
        from prefect import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        with temporary_settings({PREFECT_API_URL: f"{self.machine.server.address}/api"}):
            return get_client(sync_client=True)

    def _prefect(self, *arguments: str) -> None:
        subprocess.run(
            [sys.executable, "-m", "prefect", *arguments],
            cwd=PROJECT,
            env={**environment(self.machine.folder), **self.machine.api},
            check=True,
            capture_output=True,
            timeout=200,
        )


def finish(office: Office, store: Results, finished: set[str]) -> None:
    """A new worker and a new run: the slot must be free, and what was finished is not done again."""
    worker = Worker.start(office.machine)
    try:
        run = office.submit(store)
        wait_until(f"the run is done\n{worker.words()}", lambda: office.state(run).is_final())
        assert office.state(run).is_completed(), worker.words()
        wrong = {
            stage: state
            for stage, state in office.task_states(run).items()
            if (state == "Cached") != (stage in finished)
        }
        assert not wrong, f"{wrong}, finished were {finished}"
    finally:
        worker.end()
    assert not store.held_locks() and not store.unfinished()
    judge_results(office.machine, store)


def chain(office: Office, chance: random.Random, kills: int) -> int:
    """A run whose worker is killed again and again, each time followed by a new worker and a new run. Returns how many
    kills met a run at work."""
    machine, store, struck = office.machine, office.machine.store(), 0
    while struck < kills and "reporting" not in store.finished():
        before = store.finished()
        worker = Worker.start(machine)
        run = office.submit(store)
        stage = chance.choice([stage for stage in STAGES if stage not in before][:2])
        wait_until(f"{stage} begins\n{worker.words()}", lambda: store.at_work(stage) or office.state(run).is_final())  # noqa: B023
        time.sleep(chance.uniform(0, machine.seconds[stage] + 0.3))
        struck += not office.state(run).is_final()
        stop(worker.process, signal.SIGKILL)
        worker.process.wait()
        # The flow process notices that its worker is gone, and ends; its training process ends with it.
        wait_until("the run that lost its worker is gone", lambda: not processes(worker.marker))  # noqa: B023
        assert office.state(run).is_final(), office.state(run)
        again = [stage for stage in before if store.finished().get(stage) != before[stage]]
        assert not again and not store.held_locks(), (again, store.held_locks())
    finish(office, store, {*store.finished()})
    return struck
