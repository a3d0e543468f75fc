"""The command `prefect` in a process that serves for this project: `python -m flows.serve server start`.

A server stands behind a door (`flows/door.py`), makes its files for their owner alone, and sets up its database while
no other does.

With several runs at once on SQLite, cursors of unfinished statements are found among the server's garbage. To let go of
such a cursor takes the connection's mutex (CPython's `stmt_reset`), and the connection may be in use again by then, its
thread waiting for the database's lock. Collected on the event loop, as Python does by itself, the cursor holds up the
loop, which alone could end the transaction that has the lock: the server answers nobody until SQLite gives up, after
Prefect's 60 seconds. On a thread of its own the same wait holds up nothing. PostgreSQL knows nothing of this.
"""

from __future__ import annotations

import asyncio
import gc
import os
import runpy
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from artifacts.locks import Lock
from flows import environment

if TYPE_CHECKING:
    from prefect.server.database.interface import PrefectDBInterface
    from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

SECONDS = 0.5
"""Between two collections of what is young; every hundredth is of everything that came after the start."""
START = 40
"""Collections until the server has imported what it needs: half a million objects that stay."""
SET_UP = "the set-up of Prefect's database"
LOCK = 0x636F646574756E65
"""Its number in PostgreSQL: `codetune` in ASCII."""
WAIT_SECONDS = 100.0
"""Seconds to wait for another server's set-up of the same database; whoever starts a server waits 120 for it."""


def collect_beside(seconds: float = SECONDS) -> None:
    """From now on garbage is collected by a thread that does nothing else."""
    gc.disable()
    Thread(target=_collect, args=(seconds,), name="garbage", daemon=True).start()


def _collect(seconds: float) -> None:
    rounds = 0
    while True:
        time.sleep(seconds)
        rounds += 1
        gc.collect(1 if rounds % 100 and rounds != START else 2)
        if rounds == START:
            gc.freeze()


def behind_the_door() -> None:
    """From now on what uvicorn serves in this process is asked only by those who may."""
    import uvicorn
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING, PREFECT_UI_URL

    from flows.door import Door
    from flows.server import http

    serve = uvicorn.run

    def run(app: Any, *, host: str, port: int, **settings: Any) -> None:
        addresses = filter(None, [http(host, port), PREFECT_UI_URL.value()])
        serve(Door(app, PREFECT_SERVER_API_AUTH_STRING.value(), addresses), host=host, port=port, **settings)

    uvicorn.run = run  # type: ignore[assignment]


def set_up_alone() -> None:
    """Let servers that start together set up their database one after another: on a new one, each would find its tables
    changed by the other, and both would fill them."""
    from prefect.server.database import provide_database_interface
    from prefect.server.database.interface import PrefectDBInterface
    from prefect.server.models import block_registration

    create, fill = PrefectDBInterface.create_db, block_registration.run_block_auto_registration

    async def create_db(interface: PrefectDBInterface) -> None:
        async with _alone(interface):
            await create(interface)

    async def run_block_auto_registration(session: AsyncSession) -> None:
        async with _alone(provide_database_interface()):
            await fill(session=session)

    PrefectDBInterface.create_db = create_db  # type: ignore[assignment, method-assign]
    block_registration.run_block_auto_registration = run_block_auto_registration


@asynccontextmanager
async def _alone(interface: PrefectDBInterface) -> AsyncIterator[None]:
    from sqlalchemy.engine import make_url

    url = make_url(interface.database_config.connection_url)
    if url.get_backend_name() != "sqlite":
        async with _database_locked(await interface.engine()):
            yield
        return
    lock = Lock(_beside_database(url.database), SET_UP)
    lock.acquire(WAIT_SECONDS)
    try:
        yield
    finally:
        lock.release()


@asynccontextmanager
async def _database_locked(engine: AsyncEngine) -> AsyncIterator[None]:
    """Hold a lock of PostgreSQL's own: servers of other homes and machines set it up, too. It ends with the connection.

    Outside of transactions: an index is not built (`CREATE INDEX CONCURRENTLY`) while one is open.
    """
    from sqlalchemy import text

    async with engine.connect() as plain:
        connection = await plain.execution_options(isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + WAIT_SECONDS
        while not await connection.scalar(text(f"SELECT pg_try_advisory_lock({LOCK})")):
            if time.monotonic() > deadline:
                raise StageError(
                    f"{SET_UP} is held by another server",
                    field="PREFECT_API_DATABASE_CONNECTION_URL",
                    remedy="let it finish or end it, then start again",
                )
            await asyncio.sleep(0.1)
        try:
            yield
        finally:
            await connection.execute(text(f"SELECT pg_advisory_unlock({LOCK})"))


def _beside_database(database: str | None) -> Path:
    """The lock of what is set up: SQLite's file may be shared by homes."""
    from prefect.settings import PREFECT_HOME

    file = Path(database or "")
    named = file.is_absolute() and file.parent.is_dir()
    return Path(f"{file}.lock") if named else PREFECT_HOME.value() / "database.lock"


def keep_to_oneself() -> None:
    """Let nobody else read the records: they hold what runs were told."""
    from prefect.settings import PREFECT_HOME

    os.umask(0o077)
    for path in PREFECT_HOME.value().glob("prefect.db*"):  # made before, by Prefect itself
        with suppress(OSError):
            path.chmod(0o600)


if __name__ == "__main__":
    environment.apply(quiet=False)
    keep_to_oneself()
    collect_beside()
    behind_the_door()
    set_up_alone()
    sys.argv[0] = "prefect"
    runpy.run_module("prefect", run_name="__main__")
