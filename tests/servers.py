"""A Prefect server for the flows that tests run in their own process: `python -m tests.servers DATABASE PORT`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from flows import processes
from tests import records
from tests.waiting import free_port, until

PROJECT = Path(__file__).parents[1]


class PrefectServer:
    """It starts with an empty database, and ends with this process at the latest."""

    def __init__(self) -> None:
        self._home = tempfile.TemporaryDirectory(prefix="codetune-prefect-")
        self.database, port = Path(self._home.name, "prefect.db"), free_port()
        self.address = f"http://127.0.0.1:{port}"
        with log_of(self.database).open("wb") as log:
            self._process = processes.spawn(
                ["-m", "tests.servers", str(self.database), str(port)],
                environment=processes.own_environment(
                    PREFECT_HOME=self._home.name,
                    PREFECT_API_DATABASE_CONNECTION_URL=f"sqlite+aiosqlite:///{self.database}",
                ),
                folder=PROJECT,
                output=log.fileno(),
            )

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._home.cleanup()


def log_of(database: Path) -> Path:
    """What the server of this database writes."""
    return database.with_suffix(".log")


def wait_for(address: str, database: Path, patience: float = 120) -> None:
    """Until the server answers. Raises AssertionError with its last words."""
    from flows.server import answers

    try:
        until(lambda: answers(address), patience)
    except AssertionError:
        said = log_of(database).read_text(errors="replace")[-2000:].strip() or "nothing"
        raise AssertionError(f"the tests' Prefect server does not answer at {address}; it wrote:\n{said}") from None


if __name__ == "__main__":
    records.copy_to(Path(sys.argv[1]))  # here: making one takes a while, in which tests can be collected
    # Nothing is scheduled, as in the server that a run starts for itself.
    options = ["--no-scheduler", "--no-late-runs", "--port", sys.argv[2]]
    os.execv(sys.executable, [sys.executable, "-m", "flows.serve", "server", "start", *options])


def tell_all() -> None:
    """Tell what is still to be told. What is told next goes to the server that is named then: the threads that do it
    keep the one that they began with."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    APILogWorker.instance().drain()
    EventsWorker.drain_all()
