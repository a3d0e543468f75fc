"""`codetune worker`: what takes runs on this machine in `codetune up`, from a server that runs elsewhere."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter
from prefect.client.orchestration import get_client

from flows import deploying, server
from flows.commands.options import not_blank, use_store
from flows.output import Console
from flows.services import Services, usual_name

WAIT_SECONDS = 10.0
"""Seconds that the server gets to answer at first. Later it may stay away as long as it takes."""


def worker(
    *,
    name: Annotated[
        str | None,
        Parameter(validator=not_blank, help="What it is called, each worker by another name. Default: this machine's."),
    ] = None,
    healthcheck: Annotated[
        bool, Parameter(help="Tell at http://127.0.0.1:8080/health whether it still asks for runs.", negative="")
    ] = False,
) -> int:
    """Take runs from a server that runs elsewhere, until Ctrl-C.

    The server is that at PREFECT_API_URL. Ctrl-C lets the run at work write its checkpoint.
    """
    use_store(None)
    address = deploying.named_server()
    there = server.Server(address)
    with there.ready(WAIT_SECONDS), get_client(sync_client=True) as client:
        deploying.check_pool(client)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    name = name or usual_name()
    services = Services(there, name, console)

    def start() -> None:
        services.start_worker(*(["--with-healthcheck"] if healthcheck else []))
        console.print(f"{name} takes runs of the pool {deploying.POOL} from {address}; Ctrl-C ends it")

    services.run(start)
    console.print("the worker is stopped; press Retry to continue a run that it ended")
    return 0
