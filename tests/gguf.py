"""GGUF files for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.models.vocabulary import load_tokenizer
from tests.conftest import SMALL_MODEL


def small_gguf(folder: Path) -> Path:
    """The built-in model as a file of type f16, for filling in, in a folder."""
    pytest.importorskip("sentencepiece", reason="GGUF is not installed: pip install 'codetune[gguf]'")
    converter = pytest.importorskip("tasks.gguf.converter", reason="this version writes no GGUF")
    file = folder / "small-f16.gguf"
    converter.convert(SMALL_MODEL, file, load_tokenizer(SMALL_MODEL), name="small", infills=True)
    return file
