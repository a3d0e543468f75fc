"""One machine for the short form: its undisturbed run is what all others are compared with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.machine import Machine, machine


@pytest.fixture(scope="session")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    with machine(tmp_path_factory.mktemp("machine")) as made:
        made.warm_up()
        yield made
