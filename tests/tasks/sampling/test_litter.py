"""Environments, builds and caches in a plain folder are nobody's code, and folders of the same names are somebody's."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.store import Store
from tasks.sampling import SamplingConfig, source_fingerprint
from tasks.sampling.config import LocalSource
from tasks.sampling.local_source import OpenLocalSource
from tests.tasks.sampling.reading import PROGRAM

LITTER: dict[str, tuple[str, ...]] = {
    "conda": ("env/conda-meta/history", "env/lib/python3.11/os.py", "env/lib/python3.11/json/decoder.py"),
    "an old virtualenv": ("ve/bin/activate", "ve/lib/python2.7/orig-prefix.txt", "ve/lib/python2.7/os.py"),
    "an environment unpacked": ("py/bin/python3", "py/lib/python3.12/os.py", "py/lib/python3.12/site.py"),
    "an interpreter's library": ("python3.11/os.py", "python3.11/site.py", "python3.11/json/decoder.py"),
    "PyPy": ("pp/bin/pypy3", "pp/lib/pypy3.10/os.py", "pp/lib/pypy3.10/site.py"),
    "Windows": ("w/Scripts/activate.bat", "w/Lib/abc.py", "w/Lib/json/decoder.py"),
    "a virtual environment": ("v/pyvenv.cfg", "v/lib/python3.11/site-packages/a.py"),
    "installed packages": ("lib/site-packages/a.py",),
    "node": ("node_modules/a/index.py",),
    "bower": ("bower_components/a/index.py",),
    "tox and nox": (".tox/py311/a.py", ".nox/b.py"),
    "eggs": (".eggs/a.py", "mine.egg-info/a.py", "b.egg/c.py", "d.dist-info/e.py"),
    "setuptools": ("setup.py", "build/lib/mine/a.py", "build/bdist.linux-x86_64/b.py"),
    "setuptools, nothing installed": ("setup.cfg", "build/bdist.linux-x86_64/b.py"),
    "setuptools, compiled": ("setup.py", "build/temp.linux-x86_64-3.11/b.py", "build/lib.linux-x86_64-3.11/c.py"),
    "Cargo": ("Cargo.toml", "target/debug/a.py"),
    "Maven": ("pom.xml", "target/classes/a.py"),
    "Gradle": ("build.gradle.kts", "build/generated/a.py"),
    "CMake": ("out/CMakeCache.txt", "out/a.py"),
    ".NET": ("mine.csproj", "obj/a.py", "bin/b.py"),
    "Go's vendored modules": ("go.mod", "vendor/modules.txt", "vendor/example.org/a.py"),
    "Composer": ("vendor/autoload.php", "vendor/a/b.py"),
    "Mix": ("mix.exs", "_build/a.py", "deps/b.py"),
    "a cache that says so": ("somewhere/CACHEDIR.TAG", "somewhere/a.py"),
    "a folder that ignores itself": ("htmlcov/.gitignore", "htmlcov/a.py"),
    "a bare repository": ("mine.git/HEAD", "mine.git/objects/a.py", "mine.git/refs/b.py"),
}
UNTOLD = {"tox and nox", "a cache that says so", "a folder that ignores itself"}
"""What comes and goes with the use of tools."""
NO_LITTER = (
    "env/settings.py",
    "build/__init__.py",
    "build/steps.py",
    "target/aim.py",
    "vendor/sales.py",
    "bin/tool.py",
    "lib/helpers.py",
    "obj/model.py",
    "deps/graph.py",
    "python3.11/examples.py",
    "Scripts/deploy.py",
    "dist/spread.py",
    "packages/core/a.py",
)


def write(root: Path, name: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text("*\n" if name.endswith(".gitignore") else PROGRAM.format(name))


def taken(root: Path) -> tuple[set[str], str]:
    source = OpenLocalSource(LocalSource(paths=(str(root),), repositories="path"), ("Python",))
    rows = [row for batch in source.batches() for row in batch.rows()]
    return {row.path for row in rows if row.path.endswith(".py") and row.path != "setup.py"}, source.describe()


@pytest.mark.parametrize("kind", LITTER)
def test_litter_is_left_out_and_counted(kind: str, tmp_path: Path) -> None:
    for name in ("mine/core.py", *(f"part/{name}" for name in LITTER[kind])):
        write(tmp_path, name)
    paths, said = taken(tmp_path)
    assert {path for path in paths if path != "part/setup.py"} == {"mine/core.py"}
    assert ("left out: " in said) == (kind not in UNTOLD)
    assert kind in UNTOLD or any(character.isdigit() for character in said.split("left out: ")[1])


def test_folders_of_the_same_names_are_taken(tmp_path: Path) -> None:
    for name in NO_LITTER:
        write(tmp_path, name)
    paths, said = taken(tmp_path)
    assert paths == set(NO_LITTER) and "left out" not in said


def test_caches_that_come_with_use_change_no_key(tmp_path: Path) -> None:
    write(tmp_path, "mine/core.py")
    config = SamplingConfig.model_validate({"source": {"kind": "local", "paths": [str(tmp_path)]}})
    before = source_fingerprint(config)
    for name in ("mine/__pycache__/core.cpython-311.pyc", ".pytest_cache/CACHEDIR.TAG", ".git-hidden/a.py"):
        write(tmp_path, name)
    Store(tmp_path / "store")
    write(tmp_path, "store/reporting/0/report.html")
    assert source_fingerprint(config) == before
