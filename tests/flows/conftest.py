"""What several tests of flows take."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.flows import postgres


@pytest.fixture
def database() -> Iterator[postgres.Postgres]:
    folder = postgres.binaries()
    if folder is None:
        pytest.skip("no PostgreSQL is installed")
    with postgres.postgresql(folder) as running:
        yield running
