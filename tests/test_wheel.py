"""The wheel, as a person installs it: into an environment without this checkout, used from an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

from tests.waiting import free_port, until

ROOT = Path(__file__).parents[1]
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
QUICK = [
    "training.max_steps=2",
    "training.warmup_steps=1",
    "sampling.files=60",
    "retention=null",
    "prompts.max_chunks=8",
    "prompts.line_prompts=4",
]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the commands of an environment in which the wheel is installed. Other packages come from that of
    the tests, whose `.pth` files (an editable codetune among them) do not count there."""
    folder = tmp_path_factory.mktemp("installed")
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", folder, ROOT], check=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", symlinks=True)
    python = folder / "env" / "bin" / "python"
    site = subprocess.check_output([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True)
    (Path(site.strip()) / "others.pth").write_text(sysconfig.get_path("purelib"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", wheel], check=True)
    return python.parent


@pytest.fixture
def elsewhere(tmp_path: Path) -> dict[str, str]:
    """An environment that knows nothing of this checkout."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if name != "PYTHONPATH" and (not name.startswith("PREFECT_") or "_SSL_" in name)
    }
    return ours | {"PREFECT_HOME": str(tmp_path / "prefect"), "CODETUNE_LOCKS": str(tmp_path)}


def test_it_has_its_licence(installed: Path) -> None:
    ask = "from importlib.metadata import distribution; one = distribution('codetune');"
    ask += "print(one.metadata['License-Expression']); print(one.read_text('licenses/LICENSE'))"
    said = subprocess.check_output([installed / "python", "-P", "-c", ask], text=True)
    assert said == f"Apache-2.0 AND MIT\n{(ROOT / 'LICENSE').read_text()}\n"


def test_the_demo_runs_from_an_empty_folder(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    said = subprocess.check_output([installed / "codetune", "--version"], cwd=empty, env=elsewhere, text=True)
    assert said.strip() == VERSION
    changes = [word for change in QUICK for word in ("--set", change)]
    command = [installed / "codetune", "run", "demo", "--json", *changes]
    done = subprocess.run(command, cwd=empty, env=elsewhere, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["state"] == "completed" and Path(summary["report"]).is_relative_to(empty / "store")


def test_up_deploys_from_an_empty_folder(installed: Path, elsewhere: dict[str, str], tmp_path: Path) -> None:
    (empty := tmp_path / "empty").mkdir()
    with (said := tmp_path / "said.txt").open("w") as file:
        command = [installed / "codetune", "up", "--port", str(free_port())]
        up = subprocess.Popen(command, cwd=empty, env=elsewhere, stdout=file, stderr=file)
    try:
        until(lambda: "the end" in said.read_text() or up.poll() is not None)
    finally:
        up.send_signal(signal.SIGINT)
        assert up.wait(120) == 0, said.read_text()
    assert not list(empty.iterdir())
