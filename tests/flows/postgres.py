"""A real PostgreSQL server on loopback, for as long as a test needs it."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import free_port, until

PASSWORD = "swordfish-and-chips"


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`, as Debian puts it or on PATH; None when there is none."""
    folders = [*Path("/usr/lib/postgresql").glob("*/bin"), *map(Path, os.get_exec_path())]
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


@dataclass
class Postgres:
    """One that listens, with the superuser `codetune` and an empty database `postgres`."""

    folder: Path
    port: int
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        """As Prefect wants it."""
        return f"postgresql+asyncpg://codetune:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def ask(self, query: str) -> list[str]:
        """The rows of an answer."""
        folder = binaries()
        assert folder
        command = [folder / "psql", f"host=127.0.0.1 port={self.port} user=codetune dbname=postgres", "-Atc", query]
        done = subprocess.run(command, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.split()

    def close(self) -> int:
        """End it the polite way: it waits until nobody is connected any more."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def postgresql(programs: Path) -> Iterator[Postgres]:
    """Start one. It refuses to run as root, who therefore hands it to a user without rights."""
    user = pwd.getpwnam("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    folder = Path(tempfile.mkdtemp(prefix="codetune-postgres-"))  # pytest's own folders are closed to others
    secret, data, port = folder / "password", folder / "data", free_port()
    secret.write_text(PASSWORD)
    for path in (folder, secret):
        os.chown(path, user.pw_uid, user.pw_gid)
    other = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    init = ["-D", data, "-U", "codetune", "-A", "scram-sha-256", "--pwfile", secret, "--locale", "C", "--no-sync"]
    said = folder / "said.txt"
    try:
        subprocess.run([programs / "initdb", *init, "-E", "UTF8"], cwd=folder, check=True, capture_output=True, **other)
        options = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "fsync=off"]
        with said.open("wb") as file:
            process = subprocess.Popen(
                [programs / "postgres", "-D", data, "-p", str(port), *options],
                cwd=folder,
                stdout=file,
                stderr=file,
                **other,
            )
        try:
            ready = [programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)]
            until(lambda: process.poll() is not None or subprocess.run(ready).returncode == 0)
            assert process.poll() is None, said.read_text()
            yield Postgres(folder, port, process)
        finally:
            process.send_signal(signal.SIGINT)  # at once, whoever is connected
            process.wait(60)
    finally:
        shutil.rmtree(folder)
