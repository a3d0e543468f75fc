"""What tests share: a Prefect server of their own where they ask for one, and a clean environment."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import pytest

from artifacts.store import Store
from flows import environment
from tests import records

environment.apply(quiet=True)  # as the command line does, before Prefect is imported

BASE_MODEL = Path(__file__).parents[1] / "models" / "codellama-tiny"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files come first: else one of several pytest processes is left with one at the end."""
    items.sort(key=lambda item: item.path.parent.name not in {"chaos", "flows", "training"})


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A real Prefect server with an empty database, for the whole session: starting one takes seconds."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    home = tmp_path_factory.mktemp("prefect")
    records.copy_to(home / "prefect-test.db")
    # A flow run ends a second later with the heartbeat, and nothing here watches for dead flows.
    with (
        patch("prefect.testing.utilities.mkdtemp", lambda: str(home)),
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the person's own setup reaches a test."""
    for name in ("CODETUNE_STORE", "CODETUNE_GPU_MEMORY_GIB", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
