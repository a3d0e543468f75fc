"""`codetune up`: everything that it takes to deploy, schedule and watch runs on one machine, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Annotated
from urllib.parse import urlsplit

import psutil
from cyclopts import Parameter
from prefect.client.orchestration import get_client
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
)
from rich.console import Console

from artifacts.errors import InputError
from flows import deploying, notification, processes, server
from flows.environment import PROJECT
from flows.processes import Service

ENDS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends it all: Ctrl-C, `kill`, a closed terminal."""
WORKER = socket.gethostname()
"""The worker's name: one on each machine."""
PATIENCE = 180.0
"""Seconds that the server gets to answer: the first time it sets up its database."""
GRACE = 120.0
"""Seconds that the worker gets to end its run: training writes a checkpoint first."""


def up(
    *,
    host: Annotated[str | None, Parameter(help="Where the server listens. Default: PREFECT_SERVER_API_HOST.")] = None,
    port: Annotated[int | None, Parameter(help="And its port. Default: PREFECT_SERVER_API_PORT, or 4200.")] = None,
) -> int:
    """Start server, work pool, deployments and a worker on this machine. Ctrl-C ends all of it.

    The server keeps its records in SQLite below PREFECT_HOME, or in the PostgreSQL that
    PREFECT_API_DATABASE_CONNECTION_URL names.
    """
    host, port = host or PREFECT_SERVER_API_HOST.value(), port or PREFECT_SERVER_API_PORT.value()
    _check_free(host, port)
    address = f"http://{host}:{port}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    processes.adopt_orphans()
    running: list[Service] = []
    try:
        for number in ENDS:
            signal.signal(number, signal.default_int_handler)
        _start(address, running, console)
        _keep(running, address, console)
    except KeyboardInterrupt:
        console.print("stopping the worker, then the server")
    finally:
        for number in ENDS:
            signal.signal(number, signal.SIG_IGN)  # once is enough
        _stop(running, address, console)
    console.print("everything is stopped; runs, schedules and results are kept")
    return 0


def _start(address: str, running: list[Service], console: Console) -> None:
    log = PREFECT_HOME.value() / "codetune-server.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    console.print(f"starting the server ({_database()}) …")
    running.append(Service("server", partial(_launch_server, address, log), log))
    _await_server(running[0], address)
    api = f"{address}/api"
    console.print("registering the pool and the deployments …")
    deploying.register(api)
    _close_runs(address, console)
    running.append(Service("worker", partial(_launch_worker, api)))
    _welcome(address, console)


def _stop(running: Sequence[Service], address: str, console: Console) -> None:
    """The runs first, while there is a worker to see it and a server to be told."""
    processes.end(processes.below(service.process.pid for service in running if service.name == "worker"), GRACE)
    for service in reversed(running):
        service.stop(GRACE)
        if service.name == "worker" and server.answers(address):
            _close_runs(address, console)  # it may have taken another one meanwhile
    processes.end(processes.below([os.getpid()]), GRACE)


def _keep(running: Sequence[Service], address: str, console: Console) -> None:
    """Start again what ends. Never returns: something is raised."""
    while True:
        for service in running:
            if service.process.poll() is not None:
                console.print(f"the {service.name} ended with status {service.process.returncode}; starting it again")
                if service.name == "worker":
                    _end_orphans(running)
                    _close_runs(address, console)
                service.restart()
                if service.name == "server":
                    _await_server(service, address)
                    with server.Server(address).ready(), get_client(sync_client=True) as client:
                        deploying.watch_over_runs(client)
        processes.reap_orphans({service.process.pid for service in running})
        time.sleep(0.5)


def _end_orphans(running: Sequence[Service]) -> None:
    """What a worker leaves behind ends by itself: it has a checkpoint to write and something to tell."""
    own = {service.process.pid for service in running}
    orphans = [child for child in processes.below([os.getpid()]) if child.pid not in own]
    _, alive = psutil.wait_procs(orphans, timeout=GRACE)
    processes.end(alive, GRACE)


def _close_runs(address: str, console: Console) -> None:
    """Nobody else would say that the runs of a worker that is gone are over."""
    with server.Server(address).ready(), get_client(sync_client=True) as client:
        for run in deploying.close_runs(client, WORKER):
            console.print(f"the run {run.name} lost its worker; press Retry to continue it")
            notification.notify(None, run, run.state)


def _launch_server(address: str, log: Path) -> Popen[bytes]:
    with log.open("ab") as file:
        return server.launch(address, output=file.fileno())


def _launch_worker(api: str) -> Popen[bytes]:
    return processes.spawn(
        ["-m", "prefect", "worker", "start", "--pool", deploying.POOL, "--name", WORKER],
        environment=processes.own_environment(
            PREFECT_API_URL=api,
            # What runs say is worth seeing here too: nothing else is shown.
            PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="INFO",
            # Runs are started as `python -m flows.deployed`: this Python, and this project.
            PATH=os.pathsep.join(filter(None, [str(Path(sys.executable).parent), os.environ.get("PATH")])),
            PYTHONPATH=os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")])),
        ),
        folder=PROJECT,
    )


def _await_server(service: Service, address: str) -> None:
    """Raises StageError with the end of its log when it ends instead of answering."""
    deadline = time.monotonic() + PATIENCE
    while not server.answers(address):
        if service.process.poll() is not None or time.monotonic() > deadline:
            raise service.failure()
        time.sleep(0.2)


def _check_free(host: str, port: int) -> None:
    address = f"http://{host}:{port}"
    another = f"take another port: `make up PORT={port + 100}`, or `codetune up --port {port + 100}`"
    if server.answers(address):
        raise InputError(
            f"a Prefect server runs at {address} already",
            field="--port",
            remedy=f"stop it, or use it: `prefect deploy --all`, `prefect worker start --pool {deploying.POOL}`; "
            f"or {another}",
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(
                f"cannot listen at {host}:{port}: {reason.lower()}",
                field="--port",
                remedy=f"end the program that listens there, or {another}",
            ) from error


def _welcome(address: str, console: Console) -> None:
    prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
    there = "" if PREFECT_API_URL.value() == f"{address}/api" else f"PREFECT_API_URL={address}/api "
    console.print(f"\n[bold]dashboard  {address}[/]")
    console.print(f"  the demo   {there}{prefect} deployment run finetune/demo")
    console.print(f"             or press Run at {address}/deployments")
    console.print("  the end    Ctrl-C\n")


def _database() -> str:
    """Which one, in words: an address without the password."""
    text = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "sqlite")
    if text.startswith("sqlite"):
        return "records in SQLite"
    parts = urlsplit(text)
    return f"records in {parts.scheme.partition('+')[0]} at {parts.hostname}:{parts.port or 5432}{parts.path}"
