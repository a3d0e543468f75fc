"""The Prefect server that a run talks to: the person's own, or one for the time of the run.

Prefect would start a server by itself, but only when the flow begins, after importing its whole server into this
process, and without the dashboard. Started here it boots while the flow is being imported, and can be watched.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
from prefect.settings import PREFECT_API_URL, temporary_settings

from artifacts.errors import StageError

USUAL = "http://127.0.0.1:4200"
"""Where `prefect server start` listens unless told otherwise."""


def start() -> Server:
    """A server, started if need be; wait for it with `ready` before using it. One that was started here ends with this
    process."""
    if configured := PREFECT_API_URL.value():
        return Server(configured.removesuffix("/api"))
    if _answers(USUAL):
        return Server(USUAL)
    port = _free_port()
    # It records runs; scheduling them is for a server that stays.
    command = [sys.executable, "-m", "prefect", "server", "start", "--no-scheduler", "--no-late-runs"]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(
        [*command, "--port", str(port)],
        # its dashboard would look for the API at the usual port
        env={**os.environ, "PREFECT_SERVER_UI_API_URL": f"{address}/api"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=_follow,
    )
    # At exit and not when the flow ends: what Prefect still has to tell it (logs, events) is sent at exit, before this.
    atexit.register(_stop, process)
    return Server(address, process)


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
        while not _answers(self.address):
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


def _answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/api/health", timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def _free_port() -> int:
    """Never the usual one: another run would take the server there for one that stays."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _follow() -> None:
    """In the child: end when the parent does, even if it is killed, and not by its Ctrl-C (PR_SET_PDEATHSIG)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)
