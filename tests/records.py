"""An empty database for Prefect's servers: making one takes seconds of every server's start, copying it none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

KEPT = Path(__file__).parents[1] / ".pytest_cache"


def copy_to(file: Path) -> None:
    """Put it there, with all tables of the installed version; it is made once and kept with pytest's cache."""
    KEPT.mkdir(exist_ok=True)
    empty = KEPT / f"prefect-{version('prefect')}.db"
    with FileLock(f"{empty}.lock"):
        if not empty.exists():
            _make(empty)
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(empty, file)


def _make(file: Path) -> None:
    unfinished = file.with_suffix(".unfinished")
    unfinished.unlink(missing_ok=True)
    settings = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    settings["PREFECT_API_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{unfinished}"
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(command, env=settings, check=True, stdout=subprocess.DEVNULL)
    unfinished.rename(file)
