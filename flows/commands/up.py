"""`codetune up`: everything that it takes to deploy, schedule and watch runs on one machine, until Ctrl-C."""

from __future__ import annotations

import ipaddress
import os
import socket
import sys
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from cyclopts import Parameter
from prefect.settings import (
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_HOME,
    PREFECT_SERVER_API_HOST,
    PREFECT_SERVER_API_PORT,
)

from artifacts.errors import InputError
from flows import access, deploying, environment, server
from flows.commands.options import PORTS, not_blank, use_store
from flows.output import Console
from flows.services import Services, usual_name


def up(
    *,
    host: Annotated[
        str | None,
        Parameter(validator=not_blank, help="Where the server listens. Default: PREFECT_SERVER_API_HOST."),
    ] = None,
    port: Annotated[
        int | None, Parameter(validator=PORTS, help="And its port. Default: PREFECT_SERVER_API_PORT, or 4200.")
    ] = None,
    public_address: Annotated[
        str | None,
        Parameter(
            validator=not_blank,
            help="What others call it, http://gpu-box:4200. Default: PREFECT_UI_URL, or this host.",
        ),
    ] = None,
) -> int:
    """Start server, deployments and a worker here; Ctrl-C ends them.

    The server keeps its records in SQLite below PREFECT_HOME, or in the PostgreSQL that
    PREFECT_API_DATABASE_CONNECTION_URL names.
    """
    use_store(None)
    host = host or PREFECT_SERVER_API_HOST.value()
    port = PREFECT_SERVER_API_PORT.value() if port is None else port
    try:
        everywhere = ipaddress.ip_address(host).is_unspecified
    except ValueError:
        everywhere = False
    environment.spare_loopback(host)
    listening = server.http(host, port)
    address = server.http("::1" if ":" in host else "127.0.0.1", port) if everywhere else listening
    _check_free(host, port, address)
    public = public_address or os.environ.get("PREFECT_UI_URL") or ""
    public = _checked(public) or (server.http(socket.gethostname(), port) if everywhere else address)
    key = access.own_key()
    there = server.Server(address, key, public)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    services = Services(there, usual_name(), console)

    def start() -> None:
        console.print(f"starting the server ({_database()}) …")
        services.start_server(
            lambda output: server.launch(listening, key, output=output, public=public),
            PREFECT_HOME.value() / "codetune-server.log",
        )
        console.print("registering the pool and the deployments …")
        for sentence in deploying.register(there):
            console.print(sentence, markup=False)
        services.start_worker()
        _welcome(there, console)

    services.run(start)
    console.print("everything is stopped; runs, schedules and results are kept")
    return 0


def _checked(public: str) -> str:
    """The public address, as it is put before the pages of the dashboard; nothing when there is none.

    Raises:
        InputError: it is no address.
    """
    try:
        parts = urlsplit(public)
        usable = not public or (parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0)
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"{public} is no address of a server", field="--public-address", remedy="write it like http://gpu-box:4200"
        )
    return public.rstrip("/")


def _check_free(host: str, port: int, address: str) -> None:
    if not 0 < port < 1 << 16:
        raise InputError(f"{port} is no port", field="--port", remedy="take one from 1 to 65535; the usual one is 4200")
    other = port + 100 if port + 100 < 1 << 16 else port - 100
    another = f"take another port: `make up PORT={other}`, or `codetune up --port {other}`"
    if server.answers(address):
        raise InputError(
            f"a Prefect server runs at {address} already",
            field="--port",
            remedy=f"stop it, or use it: `codetune deploy`, `codetune worker`; or {another}",
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except socket.gaierror as error:
        raise InputError(
            f"{host} is no address of this machine", field="--host", remedy="listen at 127.0.0.1, or at 0.0.0.0"
        ) from error
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"cannot listen at {host}:{port}: {reason.lower()}",
            field="--port",
            remedy=f"end the program that listens there, or {another}",
        ) from error


def _welcome(there: server.Server, console: Console) -> None:
    prefect = os.path.relpath(Path(sys.executable).with_name("prefect"))
    told = access.keep_profile(there.address, there.public, there.variables["PREFECT_API_AUTH_STRING"])
    console.print("")
    console.print(f"dashboard  {there.page()}", style="bold", markup=False)
    console.print("             it holds the key: anyone who has this address may start programs here")
    if told:
        console.print(f"  the demo   {prefect} --profile {access.PROFILE} deployment run finetune/demo")
    console.print(f"             or press Run at {there.public}/deployments", markup=False)
    console.print("  the end    Ctrl-C\n")


def _database() -> str:
    """Which one, in words: an address without the password."""
    text = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "sqlite")
    if text.startswith("sqlite"):
        return "records in SQLite"
    parts = urlsplit(text)
    return f"records in {parts.scheme.partition('+')[0]} at {parts.hostname}:{parts.port or 5432}{parts.path}"
