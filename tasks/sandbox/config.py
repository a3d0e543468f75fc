"""What goes into a jail: limits, and the folders that an interpreter needs to read."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import sysconfig
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pydantic import Field

from artifacts.configuration import Config, Seconds, Threads, Whole
from artifacts.errors import StageError

_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "turtledemo"}
_PACKAGES = ("numpy",)
"""Installed packages that programs and tests may import."""
_SYSTEM = ("/usr/share/zoneinfo", "/usr/lib/locale", "/etc/ld.so.cache", "/etc/localtime", "/dev/urandom", "/dev/zero")
NAMESPACES = True
"""Whether a jail makes namespaces where the kernel lets it."""
ENTRIES = 10_000
"""Files and folders of the scratch folder."""
_MAPPED = """
import ctypes, importlib, os, sys
sys.path += sys.argv[2:]
for name in ("libgcc_s.so.1", "libm.so.6", "libstdc++.so.6"):
    try:
        ctypes.CDLL(name)
    except OSError:
        pass
extensions = {name.partition(".")[0] for name in os.listdir(sys.argv[1]) if ".so" in name}
for name in (*extensions - {"_tkinter"}, *(("numpy", "numpy.random") if sys.argv[2:] else ())):
    try:
        importlib.import_module(name)
    except Exception:
        pass
for line in open("/proc/self/maps"):
    path = line.rstrip("\\n").partition("/")[2]
    if ".so" in path:
        print("/" + path)
"""
"""Names the shared libraries that an interpreter opens for what may be imported."""


class Limits(Config):
    """What one program may use, its test included."""

    seconds: Seconds = 10
    """Wall clock; processor time is limited to a second more."""
    memory_mib: Whole = Field(1024, ge=64, le=1 << 20)
    """Address space of each of the two processes."""
    file_mib: Whole = Field(16, ge=1, le=1 << 20)
    """Size of one file."""
    scratch_mib: Whole = Field(64, ge=1, le=1 << 20)
    """All files of the scratch folder together, open and mapped ones that have no name included."""
    descriptors: Whole = Field(64, ge=16, le=1024)
    """Open files."""
    threads: Threads = 32
    """Threads of the program."""


@cache
def interpreter() -> str:
    """The interpreter without its virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


@cache
def _folders() -> dict[str, Any]:
    library = Path(sysconfig.get_path("stdlib"))
    configured = Path(sysconfig.get_config_var("DESTSHARED") or library)
    dynamic = (
        configured if os.access(configured, os.R_OK) else library / "lib-dynload"
    )  # an interpreter may have been moved
    entries = [str(entry) for entry in library.iterdir() if entry.name not in _NOT_LIBRARY]
    packages = {
        name: Path(place)
        for name in _PACKAGES
        for place in (getattr(find_spec(name), "submodule_search_locations", None) or [])
    }
    beside = [path.with_name(f"{name}.libs") for name, path in packages.items()]
    linked = [*packages.values(), *(path for path in beside if path.is_dir())]
    return {
        "path": [str(library), str(dynamic)],
        "packages": {name: str(path) for name, path in packages.items()},
        "readable": [*sorted(entries), str(dynamic), *map(str, linked), *_libraries(dynamic, packages), *_SYSTEM],
        "listable": [str(library)],
        "private": any(
            not folder.stat().st_mode & stat.S_IXOTH
            for path in (library, dynamic, *linked)
            for folder in (path, *path.parents)
        ),
    }


def _libraries(dynamic: Path, packages: dict[str, Path]) -> list[str]:
    """Shared libraries one by one: folders of the system hold other things, too.

    Raises:
        StageError: the interpreter cannot be started.
    """
    places = sorted({str(path.parent) for path in packages.values()})
    command = [interpreter(), "-I", "-S", "-B", "-W", "ignore", "-c", _MAPPED, str(dynamic), *places]
    try:
        said = subprocess.run(command, cwd="/", env={"LC_ALL": "C.UTF-8"}, capture_output=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None)
        why = os.fsdecode(told).strip().splitlines()[-1] if told else type(error).__name__
        raise StageError(
            f"{interpreter()} cannot be started for the sandbox: {why}",
            remedy="let this user run that interpreter, or use another for the virtual environment",
        ) from error
    return sorted(set(os.fsdecode(said.stdout).splitlines()))


def of(limits: Limits) -> dict[str, Any]:
    """The settings of a jail as its entry point reads them."""
    return {
        **_folders(),
        "parent": os.getpid(),
        "seconds": limits.seconds,
        "memory": limits.memory_mib << 20,
        "file": limits.file_mib << 20,
        "descriptors": limits.descriptors,
        "threads": limits.threads,
        "scratch": limits.scratch_mib << 20,
        "files": ENTRIES,
        "namespaces": NAMESPACES,
    }
