"""The process of a deployed run: `python -m flows.deployed`, which a worker starts in place of `prefect.engine`.

It runs that engine, and adds what a run needs on a machine where everything may be killed:

- It runs the flows of this project and no other code, whatever its deployment names: whoever may ask a server for a run
  chooses among those, on every machine with a worker.
- It ends with its worker, however that ends: the kernel tells it, from its first moment on. Nobody else would notice
  such a run any more, and it would keep its place in the pool.
- However it ends, its state says so, in words that a person understands.
- A server that goes away while the run is being prepared does not lose it: it starts again when the server is back.
  Prefect repeats requests only after a first one was answered, and a run that begins makes many first ones.
"""

from __future__ import annotations

import logging
import os
import runpy
import select
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any
from uuid import UUID

import httpx

from artifacts.errors import InputError
from flows import environment, processes, programs
from tasks.running.insistence import insist

ENGINE = "prefect.engine"
FLOW = "flows.finetune"
"""The engine imports it when all is prepared."""
WAIT_SECONDS = 300.0
"""Seconds that a server may be away before a run that has not begun gives up."""
INSISTENCE = 3.0
"""Seconds after which it is raised again that the worker is gone, until something comes of it."""
LAST_WORDS = 180.0
"""Seconds in which what is left to be told must have been told."""
UNDER_WAY = 3.0
"""Seconds in which a request that this process gave up may still take effect: the server waits for its database."""
RESUME = "Finished stages are kept and training continues at its last checkpoint: press Retry."
STOPPED = f"This run was told to stop (SIGTERM): its worker or its machine was being stopped. {RESUME}"
ORPHANED = f"The worker of this run is gone, and the run ended with it. {RESUME}"


class Ended(BaseException):
    """Somebody else ends this run; the text says who, for a person."""

    killed = True
    """For the store's list of runs, as the dashboard has it: nobody cancelled the run."""


def main() -> int:
    """Run the engine until it is done. Returns the exit status."""
    variables = dict(os.environ)
    environment.apply(quiet=False)
    run, end = UUID(variables["PREFECT__FLOW_RUN_ID"]), End()
    insist(lambda: FLOW in sys.modules)  # from when it begins: its stages' ends must not be lost
    try:
        end.follow_worker(variables.get("PREFECT__CONTROL_PORT"))
        for name in ("prefect.flow_runs", ENGINE):
            logging.getLogger(name).addFilter(_is_news)
        status = _run_engine()
        if status.code and not end.reason and _lost_server(status) and _has_not_begun(run):
            os.execve(sys.executable, [sys.executable, "-P", "-m", "flows.deployed"], variables)
        if not end.reason and not _writes_to_nobody():
            processes.end_within(LAST_WORDS)
            raise status
        end.has_come()
    except BaseException:  # Ended, or what came of it in the code that it met
        if not end.reason and not _writes_to_nobody():
            raise
        end.has_come()
    processes.end_within(LAST_WORDS)
    _report(run, end.reason or ORPHANED)
    return 0


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a record says more than that the engine has met what the run's state tells."""
    said = record.getMessage()
    return not (said.startswith(("Engine execution", "Execution")) and " exception" in said)


def _load_ours(run: Any) -> Any:
    """The flow of a run, in the folder that its deployment names; one that names other code has failed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType

    if run.deployment_id is None:
        raise ValueError("the run has no deployment")
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment(run.deployment_id)
        try:
            places = programs.folders(deployment)
        except InputError as error:
            client.set_flow_run_state(run.id, State[None](type=StateType.FAILED, message=str(error)), force=True)
            raise SystemExit(0) from None
    for place in places:
        os.chdir(place)
    return programs.load(deployment.entrypoint or "")


def _run_engine() -> SystemExit:
    from prefect import flow_engine

    flow_engine.load_flow = _load_ours  # type: ignore[assignment]  # its flows are of any signature
    try:
        runpy.run_module(ENGINE, run_name="__main__", alter_sys=True)
    except SystemExit as status:
        return status
    return SystemExit(0)


def _writes_to_nobody() -> bool:
    """Whether the worker, which reads what is written here, is gone though the kernel did not say so yet: Rich ends a
    process that writes to such a pipe."""
    pipes = select.poll()
    for descriptor in (1, 2):
        pipes.register(descriptor, 0)  # POLLERR, the lack of a reader, comes unasked for
    return any(event & select.POLLERR for _, event in pipes.poll(0))


class End:
    """Raises Ended in this thread when the worker is gone, or when SIGTERM comes and the engine has no use for it."""

    def __init__(self) -> None:
        self.reason = ""
        """Who ended the run, once somebody did."""

    def follow_worker(self, port: str | None) -> None:
        """Begin to listen. `port` is where the worker listens for its runs."""
        if os.getsid(0) != os.getpid():
            os.setsid()  # Ctrl-C in the worker's terminal is for the worker
        signal.signal(signal.SIGTERM, self._stopped)
        signal.signal(signal.SIGHUP, self._orphaned)
        processes.hear_of_parents_end(signal.SIGHUP)
        if port:
            try:
                socket.create_connection(("127.0.0.1", int(port)), timeout=10).close()
            except ConnectionRefusedError:  # it was gone before
                self._orphaned()

    def has_come(self) -> None:
        """Raise nothing any more. That its worker is gone a run may hear twice, of a port that is closed and of the
        kernel, and the second time while it says so."""
        signal.signal(signal.SIGHUP, self._mute)
        signal.setitimer(signal.ITIMER_REAL, 0)

    def _stopped(self, _number: int, _frame: FrameType | None) -> None:
        self.reason = STOPPED
        raise Ended(self.reason)

    def _orphaned(self, _number: int = signal.SIGHUP, _frame: FrameType | None = None) -> None:
        self._mute()
        self.reason = ORPHANED
        signal.signal(signal.SIGALRM, self._again)
        signal.setitimer(signal.ITIMER_REAL, INSISTENCE, INSISTENCE)
        self._again()

    def _mute(self, _number: int = signal.SIGHUP, _frame: FrameType | None = None) -> None:
        """Nobody reads what is said any more: Rich ends a process that writes to such a pipe."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (1, 2):
            os.dup2(nowhere, descriptor)

    def _again(self, _number: int = signal.SIGALRM, _frame: FrameType | None = None) -> None:
        """Code that was called may have swallowed the first one."""
        handled = sys.exception()
        while handled and not isinstance(handled, Ended):
            handled = handled.__context__
        if not handled:  # those who are on their way out have a checkpoint to write
            raise Ended(self.reason)


def _report(run: UUID, reason: str) -> None:
    """Say how the run ended, unless the engine could say more than that it crashed."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import State, StateType

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    with get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        if state is None or not state.is_final() or state.is_crashed():
            cancelled = state is not None and state.is_cancelling()
            ended = State[None](type=StateType.CANCELLED if cancelled else StateType.CRASHED, message=reason)
            client.set_flow_run_state(run, ended, force=True)
            # It was about to begin: a request that says so may come after this one.
            deadline = time.monotonic() + (UNDER_WAY if state is None or state.is_pending() else 0)
            while time.monotonic() < deadline:
                time.sleep(0.2)
                now = client.read_flow_run(run).state
                if now is not None and now.is_running():
                    client.set_flow_run_state(run, ended, force=True)


def _lost_server(end: SystemExit) -> bool:
    """Whether a request that failed is what the engine ended for."""
    error: BaseException | None = end
    while error:
        if isinstance(error, httpx.TransportError):
            return True
        error = error.__cause__ or error.__context__
    return False


def _has_not_begun(run: UUID) -> bool:
    """Whether the run can be started again, asked when the server is back."""
    from prefect.client.orchestration import get_client
    from prefect.logging import get_logger

    from flows.server import Server

    address = os.environ["PREFECT_API_URL"].removesuffix("/api")
    get_logger("engine").warning("the server at %s went away before the run began; it begins again later", address)
    with Server(address).ready(WAIT_SECONDS), get_client(sync_client=True) as client:
        state = client.read_flow_run(run).state
        return state is not None and state.is_pending()


if __name__ == "__main__":
    sys.exit(main())
