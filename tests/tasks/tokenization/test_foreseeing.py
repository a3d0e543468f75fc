"""How much will be learned from, beside what the stage then makes of it."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest

from tasks.models.base_model import ModelReference
from tasks.tokenization import TokenizationConfig, foreseeing, foreseen_sequences, run_tokenization
from tests.conftest import BASE_MODEL
from tests.tasks.tokenization.samples import reference, write_sample

PLUGGY = find_spec("pluggy")
assert PLUGGY and PLUGGY.origin
TEXTS = [text for file in sorted(Path(PLUGGY.origin).parent.glob("*.py")) if (text := file.read_text("utf-8"))]


def built_in(folder: Path) -> ModelReference:
    folder.mkdir()
    for file in BASE_MODEL.glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return reference(folder)


@pytest.mark.parametrize("most", [64, 4])
def test_sequences_and_tokens_are_about_those_of_the_stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    monkeypatch.setattr(foreseeing, "_TOKENIZED", most)
    sample, model = write_sample(tmp_path / "sample", TEXTS), built_in(tmp_path / "model")
    config = TokenizationConfig(max_length=256)
    sequences, tokens = foreseen_sequences(config, sample, model)
    made = run_tokenization(config, sample=sample, model=model, workdir=tmp_path).train
    assert sequences == pytest.approx(made.chunks, rel=0.1) and tokens == pytest.approx(made.tokens, rel=0.1)


def test_small_files_are_a_sequence_each(tmp_path: Path) -> None:
    """Fewer than one step takes would be told of code of which there is enough."""
    texts = [f"def number_{number}(value):\n    return value + {number}\n" for number in range(10)]
    sample, model = write_sample(tmp_path / "sample", texts), built_in(tmp_path / "model")
    assert foreseen_sequences(TokenizationConfig(max_length=1024), sample, model)[0] == 10


def test_text_that_cannot_be_tokenized_is_none(tmp_path: Path) -> None:
    sample, model = write_sample(tmp_path / "sample", [""]), built_in(tmp_path / "model")
    assert foreseen_sequences(TokenizationConfig(), sample, model)[1] == 0
