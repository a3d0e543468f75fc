"""Runs that several tests look at."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifacts.schema import Checkpoint, TokenizedDataset
from tests.tasks.conftest import once
from tests.tasks.training import jobs


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenizedDataset:
    return jobs.dataset(tmp_path_factory.mktemp("tokens"), jobs.rows())


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, tokens: TokenizedDataset) -> Checkpoint:
    """A run that nothing disturbed."""
    return once(tmp_path_factory, "finished", Checkpoint, lambda folder: jobs.run(folder, tokens))


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    return tmp_path / "work"
