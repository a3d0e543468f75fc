"""A small world to evaluate in, built once, and what two adapters make of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest
from filelock import FileLock

from artifacts.schema import Checkpoint, Executions, ExportedModel, Generations
from tasks.execution import ExecutionConfig, run_execution
from tasks.models.shape import ModelShape
from tests.conftest import BASE_MODEL
from tests.tasks.execution.made import BROKEN, RIGHT, WRONG, generations
from tests.tasks.generation import world
from tests.tasks.preflight.machines import CODE_LLAMA, TINY, shape_of

T = TypeVar("T", Checkpoint, ExportedModel, Generations)


def once(factory: pytest.TempPathFactory, name: str, kind: type[T], make: Callable[[Path], T]) -> T:
    """What `make` puts into a folder; of several pytest processes the first one makes it for all."""
    base = factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / f"once-{name}"
    handle = folder.with_suffix(".json")
    with FileLock(folder.with_suffix(".lock")):
        if not handle.exists():
            folder.mkdir()
            made = make(folder)
            handle.write_text(json.dumps([made.model_dump(mode="json"), str(made.path)]))
    found, path = json.loads(handle.read_text())
    return kind.model_validate(found).model_copy(update={"path": Path(path)})


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> world.World:
    return world.with_retention(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return world.noise_adapter(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="session")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    def make(folder: Path) -> ExportedModel:
        return world.memorised_adapter(folder, world.source("alpha"))

    return once(tmp_path_factory, "memorised", ExportedModel, make)


@pytest.fixture(scope="session")
def good(tmp_path_factory: pytest.TempPathFactory) -> Generations:
    """What the whole base and an adapter that was trained on the very text make of it: three of its layers write
    nothing that the adapter could do worse."""

    def make(folder: Path) -> Generations:
        place = tmp_path_factory.mktemp("good")
        adapter = world.memorised_adapter(place, world.source("alpha"), BASE_MODEL)
        return world.generate(world.with_retention(place / "world", BASE_MODEL), adapter, folder)

    return once(tmp_path_factory, "good", Generations, make)


@pytest.fixture(scope="session")
def solved(tmp_path_factory: pytest.TempPathFactory) -> Generations:
    """Twelve problems: both solve eight, the base two more, the tuned model one that the base does not."""
    base = [*[RIGHT] * 10, WRONG, "    return {}[x]\n"]
    tuned = [*[RIGHT] * 8, WRONG, BROKEN, RIGHT, WRONG]
    again = [*base[:3], *[None] * 9]
    return generations(tmp_path_factory.mktemp("solved"), {"base": base, "tuned": tuned, "again": again})


@pytest.fixture(scope="session")
def executed(solved: Generations, tmp_path_factory: pytest.TempPathFactory) -> Executions:
    return run_execution(ExecutionConfig(), generations=solved, workdir=tmp_path_factory.mktemp("executed"))


@pytest.fixture
def seven(tmp_path: Path) -> ModelShape:
    """CodeLlama-7b."""
    return shape_of(tmp_path / "seven", CODE_LLAMA)


@pytest.fixture
def tiny(tmp_path: Path) -> ModelShape:
    """A model of the size of the built-in one."""
    return shape_of(tmp_path / "tiny", TINY)
