"""`codetune deploy`: what `codetune up` registers, with a server that runs elsewhere."""

from __future__ import annotations

from prefect.settings import PREFECT_API_URL

from artifacts.errors import InputError
from flows import deploying


def deploy() -> int:
    """Register the work pool, the deployments and the watch over dead runs with the server at PREFECT_API_URL.

    A worker then takes runs with `prefect worker start --pool gpu`, here or on another machine.
    """
    api = PREFECT_API_URL.value()
    if not api:
        raise InputError(
            "no server is named",
            field="PREFECT_API_URL",
            remedy="set it, for example to http://127.0.0.1:4200/api; or `codetune up` starts a server as well",
        )
    deploying.register(api)
    return 0
