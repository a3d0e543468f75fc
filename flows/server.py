"""The Prefect server that a run talks to: the person's own, or one for the time of the run.

Prefect would start a server by itself, but only when the flow begins, after importing its whole server into this
process, and without the dashboard. Started here it boots while the flow is being imported, and can be watched.

One that is started here is closed (`flows/door.py`): it wants a key that its owner alone can read (`flows/access.py`).
"""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread, main_thread
from typing import IO
from urllib.parse import urlsplit

import httpx
import psutil
from prefect.context import _temporary_global_settings_context, get_settings_context
from prefect.events import worker
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_DATABASE_CONNECTION_URL,
    PREFECT_API_URL,
    PREFECT_HOME,
    PREFECT_UI_STATIC_DIRECTORY,
    temporary_settings,
)

from artifacts.errors import CodetuneError, InputError, StageError
from flows import access, processes
from tasks.running.insistence import insistence

log = logging.getLogger(__name__)

USUAL = "http://127.0.0.1:4200"
"""Where a server is looked for that nobody named."""
STARTS = 3
"""Times in a row that a server is started again which ends before it answers."""
INTERRUPT = signal.SIGUSR1
"""Interrupts the main thread as Ctrl-C does, whose own signal is ignored in what a script starts in the background."""
PATIENCE = 120.0
"""Seconds that a server may take until it answers: starting takes a minute on a machine that is full."""
AGAIN = "finished stages are kept and training continues at its last checkpoint: run the same command again"


def http(host: str, port: int) -> str:
    """An address of this machine as others write it."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def start() -> Server:
    """A server, started if need be; wait for it with `ready` before using it. One that was started here ends with this
    process.

    Raises:
        InputError: PREFECT_API_URL is no address.
    """
    if configured := PREFECT_API_URL.value():
        return Server(named(configured))
    if answers(USUAL):
        if access.has_key(USUAL, key := access.own_key()):
            return Server(USUAL, key)
        # Another person of this machine may listen there, too.
        if _is_own(urlsplit(USUAL).port) and not refuses(USUAL, PREFECT_API_AUTH_STRING.value()):
            return Server(USUAL)
    return Temporary()


def named(api: str) -> str:
    """The address of the server whose API is at `api`.

    Raises:
        InputError: it is none.
    """
    try:
        parts = urlsplit(api)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise InputError(
            f"{api} is no address of a server",
            field="PREFECT_API_URL",
            remedy="write it like http://127.0.0.1:4200/api, or unset it to have a server for each run",
        )
    return api.rstrip("/").removesuffix("/api")


def launch(
    address: str, key: str, *options: str, output: int = subprocess.DEVNULL, public: str = ""
) -> subprocess.Popen[bytes]:
    """Start a server at an address of this machine, with options of `prefect server start`; it ends with this one.

    Args:
        address: where it listens.
        key: what it asks for.
        public: what it is called elsewhere, if it has a name there.
    """
    parts = urlsplit(address)
    called = public or address
    return processes.spawn(
        ["-m", "flows.serve", "server", "start", *options, "--host", str(parts.hostname), "--port", str(parts.port)],
        environment=processes.own_environment(
            PREFECT_SERVER_API_AUTH_STRING=key,
            PREFECT_API_AUTH_STRING=key,
            PREFECT_SERVER_CORS_ALLOWED_ORIGINS=called,
            # its dashboard would look for the API at the usual port
            PREFECT_SERVER_UI_API_URL=f"{called}/api",
            PREFECT_UI_URL=called,
            # by itself it writes the dashboard's files into the installation, which may be another user's
            PREFECT_SERVER_UI_STATIC_DIRECTORY=str(PREFECT_UI_STATIC_DIRECTORY.value() or PREFECT_HOME.value() / "ui"),
            PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL="WARNING",
            **_from_anywhere(),
        ),
        # Setting up its database, it looks for modules in its current folder first (alembic's `prepend_sys_path`).
        folder=Path("/"),
        output=output,
    )


def _from_anywhere() -> dict[str, str]:
    """The settings that may hold a path from the current folder, with the whole path."""
    database = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "")
    kind, found, path = database.partition(":///")
    told = {"PREFECT_HOME": str(PREFECT_HOME.value().absolute())}
    if found and kind.startswith("sqlite") and path and not path.startswith(("/", ":", "file:")):
        told["PREFECT_API_DATABASE_CONNECTION_URL"] = f"{kind}:///{Path(path).absolute()}"
    return told


class Server:
    """A Prefect server at an address.

    Args:
        address: where it is asked.
        key: what it must have been started with, if it was started here.
        public: what people call it, if that is another address.
    """

    temporary = False

    def __init__(self, address: str, key: str | None = None, public: str = "") -> None:
        self.address, self._key, self.public = address, key, public or address

    def page(self, path: str = "") -> str:
        """A page of the dashboard, as its owner opens it."""
        return access.opened(f"{self.public}{path}", self._key)

    @property
    def variables(self) -> dict[str, str]:
        """What a process of ours needs to know to talk to it. Only once it answers."""
        said = {"PREFECT_API_URL": f"{self.address}/api", "PREFECT_API_AUTH_STRING": self._key or ""}
        said |= {"PREFECT_UI_URL": self.public} if self.public != self.address else {}
        return {name: value for name, value in said.items() if value}

    def answers(self) -> bool:
        """Whether it is there, and no other program where one of ours was to listen."""
        return answers(self.address) and (self._key is None or access.has_key(self.address, self._key))

    @contextmanager
    def ready(self, patience: float = PATIENCE) -> Iterator[None]:
        """Wait at most `patience` seconds until it answers, and let Prefect talk to it within the block.

        Raises:
            StageError: it does not, or went away for good within the block.
            InputError: it asks for another password.
        """
        self._wait(patience)
        key = self._key or PREFECT_API_AUTH_STRING.value()
        if not key and access.is_here(self.address) and access.has_key(self.address, own := access.own_key()):
            key = self._key = own
        if refuses(self.address, key):
            raise InputError(
                f"the Prefect server at {self.address} asks for {'another' if key else 'a'} password",
                field="PREFECT_API_AUTH_STRING",
                remedy="set it to what the server was started with: of `codetune up`, PREFECT_HOME/codetune-key",
            )
        # Whatever is set, Prefect starts an open server to tell what happened where it sees no address.
        worker.should_emit_events_to_ephemeral_server = lambda: False
        settings = {PREFECT_API_URL: f"{self.address}/api", PREFECT_API_AUTH_STRING: key}
        variables = {setting.name: value for setting, value in settings.items() if value}
        try:
            # Prefect's threads know neither this block's settings nor the run's.
            with (
                temporary_settings(settings),
                _temporary_global_settings_context(get_settings_context()),
                _exported(variables),
            ):
                yield
        except httpx.TransportError as error:
            raise StageError(f"the Prefect server at {self.address} went away", remedy=AGAIN) from error

    def _wait(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self.answers():
            if time.monotonic() > deadline:
                raise StageError(
                    f"no Prefect server answers at {self.address}",
                    field="PREFECT_API_URL",
                    remedy="start it with `codetune up`, or unset PREFECT_API_URL to have one for each run",
                )
            time.sleep(0.1)


class Temporary(Server):
    """A server for the time of this process, started again when it ends. It may not answer yet."""

    temporary = True

    def __init__(self) -> None:
        self._own = access.own_key()
        with socket.socket() as probe:  # never the usual port: another run would take the server for one that stays
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        super().__init__(f"http://127.0.0.1:{port}", self._own)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - without a name, until the end
        self._process = self._launch()
        self._ending = Event()
        self._failure: CodetuneError | None = None
        self._answered = False
        # At exit and not when the flow ends: what Prefect still has to tell it (logs, events) is sent at exit, before.
        atexit.register(self._stop)

    @contextmanager
    def ready(self, patience: float = PATIENCE) -> Iterator[None]:
        with super().ready(patience):
            self._answered = True
            signal.signal(INTERRUPT, signal.default_int_handler)
            Thread(target=self._keep, name="server", daemon=True).start()
            try:
                with insistence(lambda: self._failure is None):
                    yield
            except (KeyboardInterrupt, httpx.TransportError):
                if self._failure:
                    raise self._failure from None
                raise

    def _launch(self) -> subprocess.Popen[bytes]:
        # It records runs; scheduling them is for a server that stays.
        return launch(self.address, self._own, "--no-scheduler", "--no-late-runs", output=self._said.fileno())

    def _wait(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        while not self.answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise why_it_ended(_end_of(self._said), self._process.poll())
            time.sleep(0.1)

    def _keep(self) -> None:
        """Start it again, at the same address and with the same records, whenever it ends."""
        starts = 0
        while True:
            status = self._process.wait()
            if self._ending.is_set():
                return
            starts = 0 if self._answered else starts + 1
            if starts == STARTS:
                self._failure = why_it_ended(_end_of(self._said), status, AGAIN)
                # In whatever it waits; what it asks from now on fails at once.
                signal.pthread_kill(main_thread().ident or 0, INTERRUPT)
                return
            log.warning("the Prefect server ended with status %d; starting it again", status)
            self._answered, self._process = False, self._launch()
            deadline = time.monotonic() + PATIENCE
            while self._process.poll() is None and not self._answered:
                if time.monotonic() > deadline:  # it hangs: that counts as an end
                    self._process.kill()
                time.sleep(0.2)
                self._answered = self.answers()

    def _stop(self) -> None:
        self._ending.set()
        self._process.terminate()
        self._process.wait()


def answers(address: str) -> bool:
    """Whether a Prefect server is there, and not some other program."""
    try:
        # Plain http needs no certificates: loading them takes fifty times as long as to ask.
        plain = urlsplit(address).scheme == "http"
        answer = httpx.get(f"{address}/api/health", timeout=2, verify=not plain, trust_env=not access.is_here(address))
        return answer.status_code == 200 and answer.json() is True
    except (httpx.HTTPError, httpx.InvalidURL, ValueError):
        return False


@contextmanager
def _exported(variables: dict[str, str]) -> Iterator[None]:
    """Have the processes that are started meanwhile know variables: those of a pool read Prefect's settings before they
    are told of a run's."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ |= variables
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def refuses(address: str, key: str | None) -> bool:
    """Whether a server asks for another password than this one, or for any."""
    user, _, password = (key or "").partition(":")
    plain, here = urlsplit(address).scheme == "http", access.is_here(address)
    asked = f"{address}/api/admin/version"
    auth = (user, password) if key else None
    try:
        return httpx.get(asked, auth=auth, timeout=10, verify=not plain, trust_env=not here).status_code == 401
    except httpx.HTTPError:
        return False  # whoever uses it says what is wrong


_CAUSES = (
    (r"address already in use|Port \d+ is already in use", "--port", "take another port, or end what listens there"),
    (
        r"Can't locate revision|not a database|malformed|no such (?:table|column)|already exists|OperationalError"
        r"|DatabaseError|asyncpg|password authentication|unable to open database",
        "PREFECT_API_DATABASE_CONNECTION_URL",
        "",
    ),
    (r"PermissionError|Read-only file system|No space left|NotADirectoryError|FileExistsError", "PREFECT_HOME", ""),
)
_FINAL = re.compile(r"^(?:[\w.]*(?:Error|Exception|Revision\w*|Exit)\b.*:|Port \d+ is|FAILED:).*", re.MULTILINE)


def why_it_ended(said: str, status: int | None, remedy: str = "") -> StageError:
    """What to say of a server that did not come up, from the end of what it said."""
    reasons = _FINAL.findall(said) or said.strip().splitlines()[-1:]
    reason = reasons[-1].strip() if reasons else "it said nothing"
    field, what = "", ""
    for pattern, name, way in _CAUSES:
        if re.search(pattern, said, re.IGNORECASE):
            field, what = name, way or _other_place(name)
            break
    how = f"ended with status {status}" if status is not None else "does not answer"
    remedy = "; ".join(filter(None, [what, remedy])) or "mend what it names and try again"
    return StageError(f"the Prefect server {how}: {reason}", field=field or None, remedy=remedy)


def _other_place(name: str) -> str:
    home = PREFECT_HOME.value()
    database = str(PREFECT_API_DATABASE_CONNECTION_URL.value() or "")
    if name == "PREFECT_HOME" or not database.startswith("sqlite"):
        return f"see that {name} is right" + (
            f": {home} must be a folder that can be written" if name == "PREFECT_HOME" else ""
        )
    return f"move {database.partition('///')[2]} away, or name another folder with PREFECT_HOME ({home} now)"


def _end_of(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 20_000))
    return file.read().decode(errors="replace")


def _is_own(port: int | None) -> bool:
    """Whether the program that listens at a port of this machine is this person's."""
    try:
        listening = [one for one in psutil.net_connections("tcp") if one.status == psutil.CONN_LISTEN]
        pids = {one.pid for one in listening if one.laddr and one.laddr.port == port}
        return bool(pids) and all(pid and psutil.Process(pid).uids().effective == os.geteuid() for pid in pids)
    except psutil.Error:
        return False
