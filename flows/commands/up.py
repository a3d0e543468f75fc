"""`codetune up`: everything that it takes to deploy, schedule and watch runs on one machine, until Ctrl-C."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
)
from rich.console import Console

from artifacts.errors import InputError
from flows import deploying, server
from flows.commands.options import PORTS, use_store
from flows.services import Services, usual_name


def up(
    *,
    host: Annotated[str | None, Parameter(help="Where the server listens. Default: PREFECT_SERVER_API_HOST.")] = None,
    port: Annotated[
        int | None, Parameter(validator=PORTS, help="And its port. Default: PREFECT_SERVER_API_PORT, or 4200.")
    ] = None,
) -> int:
    """Start server, deployments and a worker here; Ctrl-C ends them.

    The server keeps its records in SQLite below PREFECT_HOME, or in the PostgreSQL that
    PREFECT_API_DATABASE_CONNECTION_URL names.
    """
    use_store(None)
    host, port = host or PREFECT_SERVER_API_HOST.value(), port or PREFECT_SERVER_API_PORT.value()
    _check_free(host, port)
    address = f"http://{host}:{port}"
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    services = Services(address, usual_name(), console)

    def start() -> None:
        console.print(f"starting the server ({_database()}) …")
        services.start_server(PREFECT_HOME.value() / "codetune-server.log")
        console.print("registering the pool and the deployments …")
        for sentence in deploying.register(f"{address}/api"):
            console.print(sentence, markup=False)
        services.start_worker()
        _welcome(address, console)

    services.run(start)
    console.print("everything is stopped; runs, schedules and results are kept")
    return 0


def _check_free(host: str, port: int) -> None:
    address = f"http://{host}:{port}"
    another = f"take another port: `make up PORT={port + 100}`, or `codetune up --port {port + 100}`"
    if server.answers(address):
        raise InputError(
            f"a Prefect server runs at {address} already",
            field="--port",
            remedy=f"stop it, or use it: `codetune deploy`, `codetune worker`; or {another}",
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
