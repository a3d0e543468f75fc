"""What programs other than transformers 5 need in a model's folder."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.exporting.adapter import public_name
from tasks.exporting.others import end_middles, with_older_rope, write_tokenizer_model
from tasks.models.base_model import ModelReference
from tasks.models.sentencepiece_model import NAME, gives_same_ids, make
from tasks.models.vocabulary import load_tokenizer
from tests.conftest import BASE_MODEL
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import write_sample

COMMIT = "22cb240e0292b0b5ab4c17ccd97aa3a2f799cbed"
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512}


@pytest.mark.parametrize(
    ("rope", "older"),
    [
        ({"rope_type": "default", "rope_theta": 1e6}, {"rope_theta": 1e6, "rope_scaling": None}),
        ({**YARN, "rope_theta": 5e5}, {"rope_theta": 5e5, "rope_scaling": {**YARN, "type": "yarn"}}),
    ],
)
def test_rope_settings_are_there_in_the_older_form_too(rope: dict[str, Any], older: dict[str, Any]) -> None:
    from transformers import AutoConfig

    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 1, "max_position_embeddings": 2048}
    config = AutoConfig.for_model("llama", **shape, rope_parameters=rope)
    written = with_older_rope(json.loads(config.to_json_string()))
    assert {name: written[name] for name in older} == older
    again = AutoConfig.for_model(**{**written, "model_type": "llama"})
    assert again.rope_parameters["rope_theta"] == rope["rope_theta"]
    assert again.rope_parameters["rope_type"] == rope["rope_type"]


def test_an_older_configuration_is_left_as_it_is() -> None:
    config = {"rope_theta": 1e6, "rope_scaling": None}
    assert with_older_rope(config) is config


def test_generate_ends_at_the_end_of_a_middle(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(BASE_MODEL)
    shutil.copy(BASE_MODEL / "generation_config.json", tmp_path)
    for _ in range(2):
        end_middles(tokenizer, tmp_path)
        assert json.loads((tmp_path / "generation_config.json").read_text())["eos_token_id"] == [2, 4095]


def test_where_a_middle_ends_like_a_text_nothing_is_written(tmp_path: Path) -> None:
    end_middles(load_tokenizer(toys.byte_level(tmp_path / "model")), tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


def test_a_tokenizer_model_that_gives_other_ids_is_replaced(tmp_path: Path) -> None:
    sample = write_sample(tmp_path / "sample", toys.CORPUS, toys.CORPUS)
    tokenizer = load_tokenizer(BASE_MODEL)
    (tmp_path / NAME).write_bytes(make(load_tokenizer(toys.sentencepiece(tmp_path / "other"))) or b"")
    write_tokenizer_model(tokenizer, sample, tmp_path)
    assert gives_same_ids((tmp_path / NAME).read_bytes(), tokenizer, toys.CORPUS)


def test_one_that_cannot_be_right_is_left_out_and_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Two merges of one piece: SentencePiece has one score for both."""
    (folder := tmp_path / "model").mkdir()
    description = json.loads((BASE_MODEL / "tokenizer.json").read_text())
    description["model"]["merges"].sort(key=lambda merge: "".join(merge))
    (folder / "tokenizer.json").write_text(json.dumps(description))
    shutil.copy(BASE_MODEL / "tokenizer_config.json", folder)
    tokenizer, contents = load_tokenizer(folder), make(load_tokenizer(BASE_MODEL))
    sample = write_sample(tmp_path / "sample", toys.CORPUS, toys.CORPUS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.models.sentencepiece_model.make", lambda tokenizer: contents)
        with caplog.at_level(logging.WARNING):
            write_tokenizer_model(tokenizer, sample, tmp_path)
    assert not (tmp_path / NAME).exists() and "no tokenizer.model" in caplog.text


def test_a_base_from_a_hubs_cache_is_called_by_its_repository() -> None:
    folder = Path(f"/home/me/.cache/huggingface/hub/models--codellama--CodeLlama-7b-hf/snapshots/{COMMIT}")
    found = ModelReference(name=str(folder), revision=None, fingerprint="0", metadata=folder)
    assert public_name(found) == ("codellama/CodeLlama-7b-hf", COMMIT)
    ours = ModelReference(name="models/codellama-tiny", revision=None, fingerprint="0", metadata=BASE_MODEL)
    assert public_name(ours) == ("models/codellama-tiny", None)
