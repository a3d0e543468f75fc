"""Folders that hold nobody's code or code of others: environments, installed packages, caches, builds.

Told by their names where those mean nothing else, else by what is in them or beside them. Only folders that no git
repository vouches for are judged: there, what is tracked counts.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

INSTALLED = frozenset({"site-packages", "dist-packages", "node_modules", "__pypackages__"})
_PACKAGES = INSTALLED | {"bower_components", "jspm_packages", "Pods", "elm-stuff", "dist-newstyle"}
_PACKAGE_INFO = (".egg-info", ".dist-info", ".egg")
_ENVIRONMENT, _BUILD, _DEPENDENCIES = "environments", "build results", "installed packages"
_CACHE, _HIDDEN = "caches", "hidden folders"
UNTOLD = frozenset({_CACHE, _HIDDEN})
"""What comes and goes as programs are used, and nobody misses: it is not counted."""
_INTERPRETER = re.compile(r"(?:python|pypy)\d(?:\.\d+)?t?")
_BESIDE: dict[str, tuple[tuple[str, ...], str]] = {
    "target": (("Cargo.toml", "pom.xml", "build.sbt"), _BUILD),
    "build": (("build.gradle", "build.gradle.kts", "settings.gradle", "settings.gradle.kts"), _BUILD),
    "obj": ((".csproj", ".fsproj", ".vbproj"), _BUILD),
    "bin": ((".csproj", ".fsproj", ".vbproj"), _BUILD),
    "_build": (("mix.exs", "rebar.config", "dune-project"), _BUILD),
    "deps": (("mix.exs",), _DEPENDENCIES),
    "renv": (("renv.lock",), _DEPENDENCIES),
    "Carthage": (("Cartfile",), _DEPENDENCIES),
}
"""By a folder's name: the files (or ends of their names) that make it what it usually is when they are beside it."""
_INSIDE: tuple[tuple[frozenset[str], str], ...] = (
    (frozenset({"pyvenv.cfg"}), _ENVIRONMENT),
    (frozenset({"conda-meta"}), _ENVIRONMENT),
    (frozenset({"CACHEDIR.TAG"}), _CACHE),
    (frozenset({"CMakeCache.txt"}), _BUILD),
    (frozenset({"HEAD", "objects", "refs"}), "git's own files"),
    (frozenset({".locks", ".work", ".runs"}), _CACHE),  # a store of codetune's: it grows with every run
)
"""What makes a folder litter when all of it is inside."""
_VENDORED = ("modules.txt", "autoload.php", "bundle")
"""In a folder `vendor`: Go's, Composer's and Bundler's."""


def kind_of(folder: Path, inside: Collection[str], beside: Collection[str]) -> str | None:
    """What kind of litter a folder is; None for one that may hold somebody's code.

    Args:
        inside: names of what is in it.
        beside: names of what is in the folder that holds it.
    """
    if (kind := by_name(folder.name)) is not None:
        return kind
    for names, kind in _INSIDE:
        if names <= set(inside):
            return kind
    if _is_environment(folder, inside):
        return _ENVIRONMENT
    if folder.name == "vendor" and any(name in inside for name in _VENDORED):
        return _DEPENDENCIES
    if folder.name == "build" and "__init__.py" not in inside:
        made = any(name == "lib" or name.startswith(("lib.", "bdist.", "temp.", "scripts-")) for name in inside)
        if made and not {"setup.py", "pyproject.toml", "setup.cfg"}.isdisjoint(beside):
            return _BUILD
    marks, kind = _BESIDE.get(folder.name, ((), ""))
    if any(name == mark or (mark.startswith(".") and name.endswith(mark)) for name in beside for mark in marks):
        return kind
    return _CACHE if ".gitignore" in inside and _ignores_itself(folder) else None


def by_name(name: str) -> str | None:
    """The same from the name alone."""
    if name == "__pycache__":
        return _CACHE
    if name in _PACKAGES or name.endswith(_PACKAGE_INFO):
        return _DEPENDENCIES
    return _HIDDEN if name.startswith(".") else None


def _is_environment(folder: Path, inside: Collection[str]) -> bool:
    """Whether a folder is the place of an interpreter (a virtual environment before Python 3.3's, or one that was
    installed or unpacked there), or the standard library of one."""
    if _INTERPRETER.fullmatch(folder.name) and {"os.py", "site.py"} <= set(inside):
        return True
    if "bin" in inside and "lib" in inside:
        try:
            libraries = [path for path in (folder / "lib").iterdir() if _INTERPRETER.fullmatch(path.name)]
        except OSError:
            return False
        marks = ("orig-prefix.txt", "os.py", "site-packages")
        return any((library / mark).exists() for library in libraries for mark in marks)
    return "Scripts" in inside and (folder / "Scripts" / "activate.bat").exists()


def _ignores_itself(folder: Path) -> bool:
    """Whether a tool wrote a `.gitignore` into it that leaves out everything, as environments and caches have."""
    place = folder / ".gitignore"
    try:
        if not place.is_file():
            return False
        with place.open("rb") as file:
            lines = [line.strip() for line in file.read(4096).splitlines()]
    except OSError:
        return False
    return [line for line in lines if line and not line.startswith(b"#")] == [b"*"]
