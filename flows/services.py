"""What is kept running on a machine until somebody ends it: the worker, and with `codetune up` the server as well."""

from __future__ import annotations

import math
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from subprocess import Popen
from urllib.parse import quote

import psutil
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_HOME

from artifacts.errors import InputError
from artifacts.installation import home
from artifacts.locks import Lock
from flows import deploying, notification, processes, server
from flows.output import Console
from flows.processes import Service

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends it all: Ctrl-C, `kill`, a closed terminal."""
WAIT_SECONDS = 180.0
"""Seconds that a server which was started here gets to answer: the first time it sets up its database."""
GRACE = 120.0
"""Seconds that the worker gets to end its run: training writes a checkpoint first."""


def usual_name() -> str:
    """Of the worker of this machine. Names of hosts may be equal (`ubuntu`, `localhost`), and a worker says of the runs
    that bear its name that they are over; so something is added that `PREFECT_HOME` keeps."""
    kept = PREFECT_HOME.value() / "codetune-worker"
    kept.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), kept.open("x") as file:
        file.write(secrets.token_hex(2))
    return f"{socket.gethostname()}-{kept.read_text()}"


class Services:
    """Server and worker of this machine, started again when they end.

    Args:
        watched: the server, here or elsewhere.
        worker: what the worker is called.
        console: where it is said what happens.
    """

    def __init__(self, watched: server.Server, worker: str, console: Console) -> None:
        self._server, self._worker, self._console = watched, worker, console
        address = watched.address
        self._running: list[Service] = []
        # Held while the worker is at work: runs that bear its name are then its own, or those of one that is gone.
        place = PREFECT_HOME.value() / f"codetune-worker-{quote(f'{worker} {address}', safe='')}.lock"
        self._name = Lock(place, f"the worker {worker}")
        self._wait = math.inf
        """Seconds that a server may be away: one that runs elsewhere comes back some day."""

    def run(self, start: Callable[[], None]) -> None:
        """Call `start`, which starts what is wanted, and keep it running until Ctrl-C, SIGTERM or a closed terminal;
        then end the run at work, the worker and the server, in this order."""
        processes.adopt_orphans()
        try:
            for number in ENDS:
                signal.signal(number, signal.default_int_handler)
            start()
            self._keep()
        except KeyboardInterrupt:
            self._console.print(f"stopping {', then '.join(f'the {one.name}' for one in reversed(self._running))}")
        finally:
            for number in ENDS:
                signal.signal(number, signal.SIG_IGN)  # once is enough
            self._stop()

    def start_server(self, launch: Callable[[int], Popen[bytes]], log: Path) -> None:
        """Returns when it answers. `launch` starts it and has it write to a file descriptor.

        Raises:
            StageError: it ends instead.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        self._wait = WAIT_SECONDS

        def start() -> Popen[bytes]:
            with open(log, "ab", opener=partial(os.open, mode=0o600)) as file:
                os.fchmod(file.fileno(), 0o600)  # it may say what runs were told
                return launch(file.fileno())

        self._running.append(Service("server", start, log))
        self._await_server(self._running[-1])

    def start_worker(self, *options: str) -> None:
        """A worker of the pool, with options of `prefect worker start`. Runs that one of this name did not end are said
        to be over.

        Raises:
            InputError: another worker of this name is at work.
        """
        if not self._name.try_acquire():
            raise InputError(
                f"a worker that is called {self._worker} takes runs from {self._server.address} already",
                field="--name",
                remedy="end it, or give this one another name: `codetune worker --name …`",
            )
        self._close_runs()
        launch = partial(_launch_worker, self._server.variables, self._worker, options)
        self._running.append(Service("worker", launch))

    def _stop(self) -> None:
        """The runs first, while there is a worker to see it and a server to be told."""
        processes.end(processes.below(one.process.pid for one in self._running if one.name == "worker"), GRACE)
        for service in reversed(self._running):
            service.stop(GRACE)
            if service.name == "worker" and self._server.answers():
                self._close_runs()  # it may have taken another one meanwhile
        processes.end(processes.below([os.getpid()]), GRACE)

    def _keep(self) -> None:
        """Start again what ends. Never returns: something is raised."""
        while True:
            for service in self._running:
                if service.process.poll() is not None:
                    self._console.print(
                        f"the {service.name} ended with status {service.process.returncode}; starting it again"
                    )
                    self._start_again(service)
            processes.reap_orphans({service.process.pid for service in self._running})
            time.sleep(0.5)

    def _start_again(self, service: Service) -> None:
        if service.name == "worker":
            # What a worker leaves behind ends by itself: it has a checkpoint to write and something to tell.
            own = {service.process.pid for service in self._running}
            orphans = [child for child in processes.below([os.getpid()]) if child.pid not in own]
            _, alive = psutil.wait_procs(orphans, timeout=GRACE)
            processes.end(alive, GRACE)
            self._close_runs()
        service.restart()
        if service.name == "server":
            self._await_server(service)
            with self._server.ready(), get_client(sync_client=True) as client:
                deploying.watch_over_runs(client)

    def _close_runs(self) -> None:
        """Nobody else would say that the runs of a worker that is gone are over."""
        if not self._server.answers():
            self._console.print(f"waiting for the server at {self._server.address}")
        with self._server.ready(self._wait), get_client(sync_client=True) as client:
            for run in deploying.close_runs(client, self._worker):
                self._console.print(f"the run {run.name} lost its worker; press Retry to continue it")
                notification.notify(None, run, run.state)

    def _await_server(self, service: Service) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._server.answers():
            if service.process.poll() is not None or time.monotonic() > deadline:
                raise server.why_it_ended(service.said(), service.process.poll(), f"{service.log} has all that it said")
            time.sleep(0.2)


def _launch_worker(variables: dict[str, str], name: str, options: tuple[str, ...]) -> Popen[bytes]:
    return processes.spawn(
        ["-m", "flows.labour", "worker", "start", "--pool", deploying.POOL, "--name", name, *options],
        environment=processes.own_environment(
            **variables,
            # What runs say is worth seeing here too: nothing else is shown.
            PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="INFO",
            # Runs are started as `python -m flows.deployed`: this Python, and this project.
            PATH=os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")])),
        ),
        folder=home(),
    )
