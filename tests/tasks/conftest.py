"""A small world to evaluate in, built once, and what two adapters make of it."""

from __future__ import annotations

import pytest

from artifacts.schema import Executions, ExportedModel, Generations
from tasks.execution import ExecutionConfig, run_execution
from tests.tasks.execution.made import BROKEN, RIGHT, WRONG, generations
from tests.tasks.generation import world


@pytest.fixture(scope="session")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> world.World:
    return world.with_kept(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="session")
def noise(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return world.noise_adapter(tmp_path_factory.mktemp("noise"))


@pytest.fixture(scope="session")
def memorised(tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    return world.memorised_adapter(tmp_path_factory.mktemp("memorised"), world.source("alpha"))


@pytest.fixture(scope="session")
def good(small_world: world.World, memorised: ExportedModel, tmp_path_factory: pytest.TempPathFactory) -> Generations:
    """What an adapter makes of it that was trained on the very text."""
    return world.generate(small_world, memorised, tmp_path_factory.mktemp("good"))


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
