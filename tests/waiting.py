"""What tests with servers of their own need."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar
from uuid import UUID

import httpx

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun

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

    def answer() -> httpx.Response | None:
        given = httpx.get(f"{address}/api/flow_runs/{run}", timeout=60, verify=False)
        return None if given.status_code == 503 else given  # SQLite is busy

    return FlowRun.model_validate(until(answer).raise_for_status().json())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
