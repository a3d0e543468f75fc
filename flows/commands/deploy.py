"""`codetune deploy`: what `codetune up` registers, with a server that runs elsewhere."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from flows import deploying, server
from flows.output import Console


def deploy(
    *,
    reset: Annotated[
        bool, Parameter(help="Undo what was changed in the dashboard: deployments are as the files say.", negative="")
    ] = False,
) -> int:
    """Register the deployments with a server that runs elsewhere.

    Also the work pool and the watch over dead runs, with the server at PREFECT_API_URL. What was changed in the
    dashboard stays. `codetune worker` then takes runs, here or on another machine.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    for sentence in deploying.register(server.Server(deploying.named_server()), reset=reset):
        console.print(sentence)
    return 0
