"""What goes into a jail: limits, and the folders that an interpreter needs to read."""

from __future__ import annotations

import os
import stat
import sys
import sysconfig
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from artifacts.configuration import Config

_NOT_LIBRARY = {"site-packages", "dist-packages", "test", "idlelib", "ensurepip", "turtledemo"}
_PACKAGES = ("numpy",)
"""Installed packages that programs and tests may import."""
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache")
_DEVICES = ("/etc/localtime", "/dev/urandom", "/dev/zero")


class Limits(Config):
    """What one program may use, its test included."""

    seconds: float = 10
    """Wall clock; processor time is limited to a second more."""
    memory_mib: int = 1024
    """Address space of each of the two processes."""
    file_mib: int = 16
    """Size of one file."""
    scratch_mib: int = 64
    """All files of the scratch folder together."""
    descriptors: int = 64
    """Open files."""
    threads: int = 32
    """Threads; it binds where the user can be changed (as root), elsewhere memory limits them."""


@cache
def interpreter() -> str:
    """The interpreter without its virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


@cache
def _folders() -> dict[str, Any]:
    library = [Path(sysconfig.get_path("stdlib"))]
    dynamic = Path(sysconfig.get_config_var("DESTSHARED") or library[0] / "lib-dynload")
    entries = {entry for folder in library for entry in folder.iterdir() if entry.name not in _NOT_LIBRARY}
    packages, linked = _packages()
    shared = [str(path) for path in Path(sys.base_prefix, "lib").glob("libpython*")]
    return {
        "path": [*map(str, [*library, dynamic]), *([packages] if packages else [])],
        "readable": [*sorted(map(str, entries)), str(dynamic), *linked, *shared, *_SYSTEM, *_DEVICES],
        "listable": [*map(str, library), *([packages] if packages else [])],
        "private": any(not _open_to_all(path) for path in [*library, dynamic, *map(Path, linked)]),
    }


def _packages() -> tuple[str | None, list[str]]:
    """A folder with links to the packages that may be imported, and the folders that they are."""
    found = {}
    for name in _PACKAGES:
        spec = find_spec(name)
        for place in (spec.submodule_search_locations or []) if spec else []:
            found[name] = Path(place)
            found |= {path.name: path for path in Path(place).parent.glob(f"{name}.libs")}
    if not found:
        return None, []
    folder = Path(tempfile.gettempdir(), f"codetune-packages-{os.getuid()}-{os.getpid()}")
    folder.mkdir(mode=0o755, exist_ok=True)
    for name, path in found.items():
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(path)
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(folder), [str(path) for path in found.values()]


def _open_to_all(path: Path) -> bool:
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


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
    }
