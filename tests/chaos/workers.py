"""Runs that a worker has taken: killed with their worker, killed under it, and cancelled from the dashboard."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID, uuid4

import psutil

from flows.processes import spawn
from tests.chaos.kills import judge_results
from tests.chaos.machine import (
    MARKER,
    PROJECT,
    STAGES,
    Machine,
    Results,
    environment,
    free_port,
    processes,
    stop,
    wait_until,
)
from tests.chaos.results import say
from tests.waiting import flow_run

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


BEGINNING = timedelta(seconds=100)
"""What runs may take to begin here. `codetune up` gives them five minutes, which nobody needs to wait for.

Where the server was killed, Prefect puts off what follows an event that it lost. The first that is heard of a run then
is a heartbeat, 30 s after it began: on a full machine, 70 s after a worker took it."""


@dataclass
class Launched:
    """Something that takes runs, as a process, with all that it starts."""

    process: subprocess.Popen[bytes]
    marker: str
    said: Path

    @classmethod
    def launch(cls, machine: Machine, command: list[str], **variables: str) -> Self:
        """Start a module of Python with the machine's settings and these variables."""
        marker = f"{cls.__name__.lower()}-{uuid4()}"
        said = machine.folder / f"{marker}.log"
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        words = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO"}
        store = {"CODETUNE_STORE": str(machine.folder / "deployed")}  # where `submit` says
        settings = {**environment(machine.folder), **words, **store, MARKER: marker, "PATH": path, **variables}
        with said.open("wb") as log:
            process = spawn(command, folder=PROJECT, environment=settings, output=log.fileno())
        return cls(process, marker, said)

    def flow(self) -> psutil.Process | None:
        """The process of the flow run, while there is one."""
        return self._having("flows.deployed")

    def training(self) -> psutil.Process | None:
        """The training process, while there is one."""
        return self._having("tasks.training.worker")

    def end(self, patience: float = 60) -> None:
        """SIGTERM, and nothing is left."""
        stop(self.process, signal.SIGTERM)
        self.process.wait(patience)
        wait_until("every process is gone", lambda: not processes(self.marker))

    def words(self) -> str:
        """The end of what it said."""
        return self.said.read_text(errors="replace")[-3000:]

    def _having(self, module: str) -> psutil.Process | None:
        for process in processes(self.marker):
            try:
                if module in process.cmdline():
                    return process
            except psutil.NoSuchProcess:
                continue
        return None


class Worker(Launched):
    """A process worker of a pool that takes one run at a time."""

    @classmethod
    def start(cls, machine: Machine) -> Worker:
        command = ["-m", "prefect", "worker", "start", "--pool", "gpu"]
        return cls.launch(machine, command, PREFECT_WORKER_QUERY_SECONDS="1", **machine.api)


class Up(Launched):
    """`codetune up`: a worker and a server of its own, at `address`."""

    address = ""
    home = Path()

    @classmethod
    def start(cls, machine: Machine, home: Path) -> Up:
        """With its records in `home`; returns when it takes runs."""
        port = free_port()
        command = ["-c", "from flows.cli import main; main()", "up", "--port", str(port)]
        up = cls.launch(machine, command, PREFECT_HOME=str(home))
        up.address, up.home = f"http://127.0.0.1:{port}", home
        wait_until("it is up", lambda: "the end" in up.words() or up.process.poll() is not None)
        assert up.process.poll() is None, up.words()
        return up


class Office:
    """A server's deployments and what is known of its runs: the machine's, or that of a `codetune up`."""

    def __init__(self, machine: Machine, up: Up | None = None) -> None:
        self.machine, self._address = machine, up.address if up else machine.server.address
        self._key = up.home / "codetune-key" if up else None

    @classmethod
    def opened(cls, machine: Machine) -> Office:
        """With the pool and the deployments that `codetune up` makes."""
        from flows import deploying, server

        office = cls(machine)
        deploying.register(server.Server(machine.server.address))
        with office.client() as client:
            deploying.watch_over_runs(client, beginning=BEGINNING)
        return office

    def submit(self, store: Results) -> UUID:
        """A run of the small recipe for the worker to take, as the dashboard makes one. No other may be at work."""
        (link := self.machine.folder / "deployed").unlink(missing_ok=True)
        link.symlink_to(store.root)
        with self.client() as client:
            deployment = client.read_deployment_by_name("finetune/demo")
            return client.create_flow_run_from_deployment(
                deployment.id,
                parameters={"config": {"recipe": str(self.machine.recipe)}},
            ).id

    def state(self, run: UUID) -> State[Any]:
        with self._known():
            state = flow_run(self._address, run).state
        assert state is not None
        return state

    def forget(self, run: UUID) -> None:
        """Delete it, whatever its state."""
        with self.client() as client:
            client.delete_flow_run(run)

    def retry(self, run: UUID) -> None:
        """What the dashboard's button Retry does."""
        from prefect.states import AwaitingRetry

        with self.client() as client:
            client.set_flow_run_state(run, AwaitingRetry(), force=True)

    def cancel(self, run: UUID) -> None:
        """What the dashboard's button Cancel does."""
        from prefect.client.schemas.objects import State, StateType

        with self.client() as client:
            client.set_flow_run_state(run, State(type=StateType.CANCELLING, name="Cancelling"))

    def task_states(self, run: UUID) -> dict[str, str]:
        """Names of the states of a run's stages."""
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        with self.client() as client:
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
        return {task.name: task.state_name or "" for task in tasks if task.name in STAGES}

    def client(self) -> Any:
        """A client of the server."""
        from prefect import get_client

        with self._known():
            return get_client(sync_client=True)

    def _known(self) -> Any:
        """Settings by which Prefect talks to the server."""
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

        key = self._key.read_text() if self._key else None
        return temporary_settings({PREFECT_API_URL: f"{self._address}/api", PREFECT_API_AUTH_STRING: key})


def finish(office: Office, store: Results, finished: set[str], run: UUID | None = None) -> None:
    """A new worker and a run that waits for one, or a new one: the slot must be free, and what was finished is not done
    again."""
    worker = Worker.start(office.machine)
    try:
        run = run or office.submit(store)
        wait_until(f"the run is done\n{worker.words()}", lambda: office.state(run).is_final())
        assert office.state(run).is_completed(), worker.words()
        # The server hears of them a bit later than of the flow run.
        wait_until("every stage has ended", lambda: not {*office.task_states(run).values()} & {"Pending", "Running"})
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


def server_killed(office: Office, chance: random.Random) -> None:
    """The server is killed while a worker prepares a run, and away for some seconds: the run is not lost."""
    machine, store = office.machine, office.machine.store(without=STAGES.index("exporting"))
    before = store.finished()
    worker = Worker.start(machine)
    try:
        run = office.submit(store)
        wait_until("the run is prepared", worker.flow)
        time.sleep(chance.uniform(0, 4))
        machine.server.kill()
        time.sleep(chance.uniform(0, 8))
        machine.server.start()
        wait_until("the run is done", lambda: office.state(run).is_final())
        assert office.state(run).is_completed(), (office.state(run), worker.words())
    finally:
        worker.end()
    assert all(store.finished()[stage] == before[stage] for stage in before)
    judge_results(machine, store)
    shutil.rmtree(store.root)


def run_killed(office: Office) -> None:
    """The process of a worker's run is killed, as when memory runs out: the worker says so, and takes the next one."""
    machine, store = office.machine, office.machine.store(without=STAGES.index("training"))
    worker = Worker.start(machine)
    try:
        lost = office.submit(store)
        wait_until("training begins", worker.training)
        stop(worker.flow(), signal.SIGKILL)
        wait_until("the worker says so", lambda: office.state(lost).is_crashed())
        wait_until("the training process is gone", lambda: worker.training() is None)
        run = office.submit(store)
        wait_until("the next run is done", lambda: office.state(run).is_final())
        assert office.state(run).is_completed(), (office.state(run), worker.words())
    finally:
        worker.end()
    judge_results(machine, store)
    shutil.rmtree(store.root)


def killed_early(office: Office, chance: random.Random) -> None:
    """A worker is killed about when it takes a run: it is still to be taken, or taken without a process yet, of which
    nobody but the server's automation is left to say that it is over, or it has a process, which says so itself."""
    store = office.machine.store(without=STAGES.index("exporting"))
    worker = Worker.start(office.machine)
    run = office.submit(store)
    try:
        waits = orphan(office, worker, run, chance)
        finish(office, store, {*store.finished()}, run if waits else None)
    except BaseException:  # see `chain`
        stop(worker.process, signal.SIGKILL)
        office.forget(run)
        raise
    shutil.rmtree(store.root)


def orphan(office: Office, worker: Worker, run: UUID, chance: random.Random) -> bool:
    """Kill the worker about when it takes the run. Returns whether the run is still to be taken; else it is over."""
    wait_until("the worker looks for runs", lambda: "started!" in worker.words())
    time.sleep(chance.uniform(0, 4))
    stop(worker.process, signal.SIGKILL)
    worker.process.wait()
    begun = worker.flow() is not None
    say(f"  worker killed, the run {office.state(run).name}, {'with' if begun else 'without'} a process")
    wait_until("the run that lost its worker is gone", lambda: not processes(worker.marker))
    if office.state(run).is_scheduled():
        return True
    wait_until("somebody says that the run is over", lambda: office.state(run).is_final())
    state = office.state(run)
    assert state.is_crashed() and (not begun or "worker" in state.message), state
    return False


def chain(office: Office, chance: random.Random, kills: int) -> int:
    """A run whose worker is killed again and again, each time followed by a new worker and a new run. Returns how many
    kills met a run at work."""
    machine, store, struck = office.machine, office.machine.store(), 0
    while struck < kills and "reporting" not in store.finished():
        before = store.finished()
        worker = Worker.start(machine)
        run = office.submit(store)
        try:
            struck += kill_during(office, worker, run, store, chance)
        except BaseException:  # else it would take the runs of what comes next, and this run their place in the pool
            stop(worker.process, signal.SIGKILL)
            office.forget(run)
            raise
        again = [stage for stage in before if store.finished().get(stage) != before[stage]]
        assert not again and not store.held_locks(), (again, store.held_locks())
    finish(office, store, {*store.finished()})
    shutil.rmtree(store.root)
    return struck


def kill_during(office: Office, worker: Worker, run: UUID, store: Results, chance: random.Random) -> bool:
    """Kill the worker of a run in one of the next two stages. Returns whether the run was at work."""

    def begun() -> bool:
        # A stage may have begun in the run before this one. Before there is a process: `killed_early`.
        return office.state(run).is_final() or (worker.flow() is not None and store.at_work(stage))

    stage = chance.choice([stage for stage in STAGES if stage not in store.finished()][:2])
    wait_until(f"{stage} begins\n{worker.words()}", begun)
    time.sleep(chance.uniform(0, office.machine.seconds[stage] + 0.3))
    met = not office.state(run).is_final()
    stop(worker.process, signal.SIGKILL)
    say(f"  worker killed in {stage}")
    worker.process.wait()
    # The kernel tells the flow process that its worker is gone, and it ends; its training process ends with it.
    wait_until("the run that lost its worker is gone", lambda: not processes(worker.marker))
    state = office.state(run)
    assert (state.is_crashed() and "worker" in state.message) or state.is_completed(), state
    return met
