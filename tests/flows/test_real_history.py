"""One real repository, and four of them, end in a verdict with an interval. Source distributions of successive releases
stand for history; they come from the package index."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts.configuration import Config
from artifacts.progress import SILENT
from artifacts.store import Store
from flows.config import build
from flows.finetune import pipeline
from tasks.models.base_model import locate
from tasks.running.job import Job
from tasks.running.stage import Stage
from tests.repositories import git

CLICK = ("click==8.0.4", "click==8.1.3", "click==8.1.7", "click==8.2.1")
TWO_OF_EACH = (
    *CLICK[-2:],
    *("flask==2.3.3", "flask==3.1.0"),
    *("httpx==0.27.0", "httpx==0.28.1"),
    *("requests==2.31.0", "requests==2.32.3"),
)
SECONDS = 300
"""For one distribution, with what its metadata is built by."""
SMALL = (
    "sampling.held_out_by=auto",
    "training.max_steps=24",
    "exporting.forms=[]",
    "retention.files=60",
    "prompts.max_chunks=140",  # of each file at least one
    "prompts.line_prompts=0",
    "prompts.fim_prompts=0",
    "prompts.block_prompts=0",
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(7200),
    pytest.mark.skipif("not config.getoption('-m')", reason="takes minutes and a package index; run it with -m slow"),
]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("releases")


def release(index: Path, name: str) -> Path:
    """The folder of a source distribution, such as `click-8.2.1`."""
    folder = index / name.replace("==", "-")
    if not folder.exists():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(index)]
        try:
            done = subprocess.run([*command, name], capture_output=True, text=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            pytest.skip(f"the package index gave no source distribution of {name} within {SECONDS} s")
        found = list(index.glob(f"{folder.name}.tar.gz"))
        if done.returncode or not found:
            pytest.skip(f"the package index gives no source distribution of {name}: {done.stderr.strip()[-300:]}")
        with tarfile.open(found[0]) as archive:
            archive.extractall(index, filter="data")
    return folder


def repository(index: Path, place: Path) -> Path:
    """Click with a commit for each release."""
    place.mkdir()
    git(place, "init", "-q")
    for name in CLICK:
        tree = release(index, name)
        git(place, "--work-tree", str(tree), "add", "--all", "--force")
        git(place, "commit", "-q", "-m", name)
    git(place, "reset", "-q", "--hard")
    return place


class Stages:
    """Every stage, in this process and without Prefect: `tasks.running.stage.StageRunner`."""

    def __init__(self, place: Path) -> None:
        self.store = Store(place)
        self.made: dict[str, Any] = {}

    def stage(self, stage: Stage[Any], config: Config, *, guard: Any = None, after: Any = None, **inputs: Any) -> Any:
        del after
        job = Job.of(replace(stage, parallel=False), config, {name: one for name, one in inputs.items() if one})
        self.made[stage.name] = job.build(self.store, SILENT, guard=guard).handle
        return self.made[stage.name]


@pytest.mark.parametrize("history", ["commits of one", "releases of one", "releases of four"])
def test_real_history_ends_in_a_verdict(history: str, index: Path, tmp_path: Path) -> None:
    """Of the built-in model."""
    if history == "commits of one":
        paths = [repository(index, tmp_path / "click")]
    else:
        paths = [release(index, name) for name in (CLICK[-2:] if history == "releases of one" else TWO_OF_EACH)]
    config = build("demo", [f"sampling.source={{kind: local, paths: {[str(path) for path in paths]}}}", *SMALL])
    run = Stages(tmp_path / "store")
    found = pipeline(run, config, locate(config.model))
    (loss,) = (one for one in found.evaluated.metrics if one.name == "loss")
    assert run.made["sampling"].held_out_by == ("commit-date" if history == "commits of one" else "release")
    assert loss.clusters >= (100 if history == "releases of four" else 30)
    assert loss.low is not None and loss.high is not None and loss.low < loss.difference < loss.high
    assert {"loss", "specific_loss", "retention_loss"} <= {one.name for one in found.evaluated.metrics}
    assert found.decided.ruling in ("promote", "hold")
