"""What tests with servers of their own need."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import httpx

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun, TaskRun

T = TypeVar("T")


def until(found: Callable[[], T | None], patience: float = 280) -> T:
    """What is found in the end. What takes long is asked for seldom: a server's answers take time from what it does."""
    begun = time.monotonic()
    while not (value := found()):
        waited = time.monotonic() - begun
        assert waited < patience, "waited in vain"
        time.sleep(min(0.1 + waited / 20, 0.5))
    return value


def flow_run(address: str, run: UUID) -> FlowRun:
    """A run as the server at an address knows it. Without a client of Prefect's: one takes as long to make as fifty
    answers, and runs are asked for again and again."""
    from prefect.client.schemas.objects import FlowRun
    from prefect.settings import PREFECT_API_AUTH_STRING

    user, _, password = (PREFECT_API_AUTH_STRING.value() or "").partition(":")

    def answer() -> httpx.Response | None:
        given = httpx.get(f"{address}/api/flow_runs/{run}", timeout=60, verify=False, auth=(user, password))
        return None if given.status_code == 503 else given  # SQLite is busy

    return FlowRun.model_validate(until(answer).raise_for_status().json())


def ended_task_runs(
    client: SyncPrefectClient, run: UUID, names: Collection[str], count: int | None = None
) -> list[TaskRun]:
    """A flow run's task runs of these names, once `count` of them have ended, as many as there are names if left out:
    the server hears of them a bit later than of the flow run."""
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

    wanted = FlowRunFilter(id=FlowRunFilterId(any_=[run]))

    def ended() -> list[TaskRun] | None:
        found = [one for one in client.read_task_runs(flow_run_filter=wanted) if one.name in names]
        final = [one for one in found if one.state and one.state.is_final()]
        return final if len(final) >= (count or len(names)) else None

    return until(ended)


def import_path(project: Path) -> str:
    """The `PYTHONPATH` of processes that import a project: its folder, then what this process was given."""
    return os.pathsep.join(filter(None, [str(project), os.environ.get("PYTHONPATH")]))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
