"""`codetune deploy`: what `codetune up` registers, with a server that runs elsewhere."""

from __future__ import annotations

from flows import deploying


def deploy() -> int:
    """Register the work pool, the deployments and the watch over dead runs with the server at PREFECT_API_URL.

    `codetune worker` then takes runs, here or on another machine.
    """
    deploying.register(f"{deploying.named_server()}/api")
    return 0
