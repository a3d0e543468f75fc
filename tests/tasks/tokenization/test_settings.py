"""What is found out about a model from the files beside its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.tokenization.config import context_length
from tests.tasks.tokenization.samples import reference


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
