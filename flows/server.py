"""The Prefect server that a run talks to: the person's own, or one for the time of the run.

Prefect would start a server by itself, but only when the flow begins, after importing its whole server into this
process, and without the dashboard. Started here it boots while the flow is being imported, and can be watched.
"""

from __future__ import annotations

import atexit
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from artifacts.errors import StageError
from flows import processes

USUAL = "http://127.0.0.1:4200"
"""Where `prefect server start` listens unless told otherwise."""


def start() -> Server:
    """A server, started if need be; wait for it with `ready` before using it. One that was started here ends with this
    process."""
    if configured := PREFECT_API_URL.value():
        return Server(configured.removesuffix("/api"))
    if answers(USUAL):
        return Server(USUAL)
    address = f"http://127.0.0.1:{_free_port()}"
    # It records runs; scheduling them is for a server that stays.
    process = launch(address, "--no-scheduler", "--no-late-runs")
    # At exit and not when the flow ends: what Prefect still has to tell it (logs, events) is sent at exit, before this.
    atexit.register(_stop, process)
    return Server(address, process)


def launch(address: str, *options: str, output: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a server at an address of this machine, with options of `prefect server start`; it ends with this one."""
    host, _, port = address.removeprefix("http://").rpartition(":")
    return processes.spawn(
        ["-m", "flows.serve", "server", "start", *options, "--host", host, "--port", port],
        # its dashboard would look for the API at the usual port
        environment=processes.own_environment(
            PREFECT_SERVER_UI_API_URL=f"{address}/api", PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="WARNING"
        ),
        output=output,
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


class Server:
    """A Prefect server at an address; with `process`, one of ours that may not answer yet."""

    def __init__(self, address: str, process: subprocess.Popen[bytes] | None = None) -> None:
        self.address = address
        self.temporary = process is not None
        self._process = process

    @contextmanager
    def ready(self, patience: float = 120.0) -> Iterator[None]:
        """Wait at most `patience` seconds until it answers, and let Prefect talk to it within the block.

        Raises:
            StageError: it does not.
        """
        deadline = time.monotonic() + patience
        while not answers(self.address):
            ended = self._process is not None and self._process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise StageError(
                    f"the Prefect server at {self.address} does not answer",
                    field="PREFECT_API_URL",
                    remedy="start it with `prefect server start`, or unset PREFECT_API_URL to have one for each run",
                )
            time.sleep(0.1)
        with temporary_settings({PREFECT_API_URL: f"{self.address}/api"}):
            yield


def answers(address: str) -> bool:
    """Whether a Prefect server is there."""
    try:
        # Plain http needs no certificates: loading them takes fifty times as long as to ask.
        answer = httpx.get(f"{address}/api/health", timeout=2, verify=not address.startswith("http:"))
        return answer.status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    """Never the usual one: another run would take the server there for one that stays."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
