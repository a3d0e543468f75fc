"""The small world, built once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from artifacts.schema import ExportedModel
from tests.tasks.evaluation import world


@pytest.fixture(scope="package", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and wait for it where others use the processor too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> world.World:
    return world.build(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return world.noise_adapter(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="session")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return world.memorised_adapter(tmp_path_factory.mktemp("memorised"), world.source("alpha"))
