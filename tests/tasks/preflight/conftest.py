"""The two models that the tests judge."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.preflight.shape import ModelShape
from tests.tasks.preflight.machines import CODE_LLAMA, TINY, shape_of


@pytest.fixture
def seven(tmp_path: Path) -> ModelShape:
    """CodeLlama-7b."""
    return shape_of(tmp_path / "seven", CODE_LLAMA)


@pytest.fixture
def tiny(tmp_path: Path) -> ModelShape:
    """A model of the size of the built-in one."""
    return shape_of(tmp_path / "tiny", TINY)
