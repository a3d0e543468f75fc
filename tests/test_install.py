"""What `tools/install.py` takes of the lock files."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools import install

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-dev.txt"])
def test_every_package_is_pinned_with_hashes(name: str) -> None:
    packages = install.locked(ROOT / name)
    assert {"torch", "prefect", "hatchling", "nvidia-cublas"} < packages.keys()
    assert all("==" in text and "--hash=sha256:" in text for text in packages.values())


def test_the_cpu_build_of_torch_has_the_locked_version_and_a_hash_for_each_python_and_processor() -> None:
    build = install.locked(install.CPU_TORCH)["torch"]
    assert build.split()[0] == install.locked(ROOT / "requirements.txt")["torch"].split()[0] + "+cpu"
    assert build.count("--hash=sha256:") >= 6


@pytest.mark.parametrize(
    "hosted, unreachable", [(True, []), (False, ["torch-cpu.txt"]), (False, ["uv.txt", "torch-cpu.txt"])]
)
def test_whatever_is_fetched_is_checked_against_a_hash(
    hosted: bool, unreachable: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(command: Sequence[object], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(commands[-1], int(Path(commands[-1][-1]).name in unreachable))

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(install, "_has_driver", lambda: False)
    monkeypatch.setattr(install, "find_spec", lambda _: None if hosted else "there")
    install.install(tmp_path / "env", dev=False)
    *fetching, project = (command for command in commands if "install" in command)
    assert len(fetching) >= 3 and all("--require-hashes" in command for command in fetching)
    assert project[-2:] == ["--editable", str(ROOT)]


def test_what_comes_as_sources_is_built_with_what_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def run(command: Sequence[object], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(commands[-1], 0)

    monkeypatch.setattr(subprocess, "run", run)
    install.install(tmp_path / "env", dev=True)
    (building,) = (command for command in commands if "--no-build-isolation" in command and "--editable" not in command)
    assert "--require-hashes" in building and commands.index(building) == len(commands) - 2
    packages = install.locked(ROOT / "requirements-dev.txt")
    assert {install.COMPILED, "cmake", "ninja", "scikit-build-core"} < packages.keys()


def test_without_a_driver_nothing_of_the_cuda_build_is_installed() -> None:
    packages = install.locked(ROOT / "requirements-dev.txt")
    kept = install.without_gpu(packages, dev=False)
    assert {"nvidia-ml-py", "prefect", "transformers"} < kept.keys()
    gone = packages.keys() - kept.keys()
    assert {"torch", "triton", "nvidia-cublas"} < gone
    assert all(name in ("torch", "triton") or name.startswith(("nvidia-", "cuda-")) for name in gone)
    assert "triton" in install.without_gpu(packages, dev=True)


def test_the_pinned_build_requirement_is_the_locked_one() -> None:
    (build,) = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    assert install.locked(ROOT / "requirements.txt")["hatchling"].startswith(build)


def test_the_lowest_versions_are_tested_with_the_locked_tools_and_the_locked_torch() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = install.locked(ROOT / "requirements-dev.txt")
    kept = install.kept_as_locked(project, packages)
    names = {line.partition("==")[0] for line in kept}
    assert {"torch", "triton", "editables", "hatchling", "pytest", "pytest-xdist"} < names
    assert not names & {"transformers", "playwright", "prefect-dask", "codetune"}
    assert all("==" in line and "--hash" not in line and not line.endswith("\\") for line in kept)


def test_an_environment_that_cannot_be_made_ends_in_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / "install.py", "--into", tmp_path / "file" / "env"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1 and "Traceback" not in done.stderr
