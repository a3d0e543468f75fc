"""A hub with shards of real code, and small trees of real code."""

from __future__ import annotations

import shutil
import sysconfig
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from artifacts.schema import DatasetSample
from tasks.running.mapping import HERE, Mapper
from tasks.sampling import SamplingConfig, run_sampling
from tests.hub import Hub, serve_github_code, write_github_code_shards

Sample = Callable[..., DatasetSample]


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three shards of 400 rows in row groups of 50."""
    folder = tmp_path_factory.mktemp("github-code")
    write_github_code_shards(folder, n_shards=3, rows=400, seed=1, row_group=50)
    return folder


@pytest.fixture
def hub(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub(datasets=serve_github_code(shards)) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
        yield hub


@pytest.fixture
def code(tmp_path: Path) -> Path:
    """A folder with three packages and two modules of the standard library."""
    root, library = tmp_path / "code", Path(sysconfig.get_paths()["stdlib"])
    for name in ("json", "email", "logging"):
        shutil.copytree(library / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("argparse.py", "textwrap.py"):
        shutil.copy(library / name, root / name)
    return root


@pytest.fixture
def sample(tmp_path: Path) -> Sample:
    """Runs sampling in a new folder: a mapper, and keyword arguments as in `SamplingConfig`."""
    numbers = count()

    def run(mapper: Mapper = HERE, **settings: Any) -> DatasetSample:
        workdir = tmp_path / f"sample-{next(numbers)}"
        workdir.mkdir()
        return run_sampling(SamplingConfig.model_validate(settings), workdir=workdir, mapper=mapper)

    return run
