"""GGUF files for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.models.vocabulary import load_tokenizer
from tests.conftest import ROOT

BUILT_IN = ROOT / "models" / "codellama-tiny"


def built_in_gguf(folder: Path) -> Path:
    """The built-in model as a file of type f16, for filling in, in a folder."""
    from tasks.gguf.converter import convert

    pytest.importorskip("sentencepiece", reason="GGUF is not installed: pip install 'codetune[gguf]'")
    file = folder / "built-in-f16.gguf"
    convert(BUILT_IN, file, load_tokenizer(BUILT_IN), name="built-in", infills=True)
    return file
