"""What is found out about a model from the files beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from tasks.tokenization.settings import context_length, knows_instructions
from tests.tasks.tokenization.samples import reference


@pytest.mark.parametrize("name", ["chat_template.jinja", "tokenizer_config.json"])
def test_either_file_may_have_the_template_of_instructions(name: str, tmp_path: Path) -> None:
    assert not knows_instructions(tmp_path)
    for each in ("chat_template.jinja", "tokenizer_config.json"):
        (tmp_path / each).write_text('{"chat_template": "[inst]"}')
    assert not knows_instructions(tmp_path)
    (tmp_path / name).write_text('{"chat_template": "[INST] {{ question }} [/INST]"}')
    assert knows_instructions(tmp_path)
    (tmp_path / name).write_bytes(b"\xff")
    with pytest.raises(InputError) as refusal:
        knows_instructions(tmp_path)
    assert refusal.value.field == "model.name"


@pytest.mark.parametrize(
    ("config", "length"),
    [
        ({"max_position_embeddings": 7, "n_positions": 8, "n_ctx": 9, "seq_length": 10}, 7),
        ({"max_position_embeddings": None, "n_positions": 8}, 8),
        ({"n_ctx": 9, "seq_length": 10}, 9),
        ({"seq_length": 10}, 10),
        ({"length": 11}, None),
    ],
)
def test_the_first_that_says_how_many_positions_there_are(
    config: dict[str, Any], length: int | None, tmp_path: Path
) -> None:
    model = reference(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2", **config}))
    assert context_length(model) == length
