"""Exports of a model from the hub name it by repository and commit."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from artifacts.schema import Replay, SplitSize
from tasks.exporting.adapter import Adapter
from tasks.exporting.card import write_card
from tasks.exporting.comparing import load_plain
from tasks.exporting.contract import Ingredients
from tasks.exporting.forms import get
from tasks.exporting.forms.adapter import write_adapter
from tasks.models.base_model import ModelReference
from tasks.models.residual import is_fp32
from tests.conftest import BASE_MODEL
from tests.tasks.exporting.pieces import CPU, make, tiny_llama

NAME, COMMIT = "codellama/CodeLlama-7b-Instruct-hf", "22cb240e0292b0b5ab4c17ccd97aa3a2f799cbed"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Ingredients:
    folder = tmp_path_factory.mktemp("card")
    base = tiny_llama(folder / "base", BASE_MODEL)
    (base / "README.md").write_text("---\nlanguage: code\nlicense: llama2\ntags:\n- x\n---\n# Base\nlicense: other\n")
    pieces = make(folder, base)
    return Ingredients(
        model=ModelReference(name=NAME, revision=COMMIT, fingerprint="0", metadata=base),
        base=base,
        trained_on=base,
        quantization="nf4",
        adapter=Adapter.read(pieces.checkpoint.path / "adapter"),
        sample=pieces.sample,
        tokens=pieces.tokens,
        checkpoint=pieces.checkpoint,
        plan=CPU,
    )


def test_card_names_repository_commit_and_licence(made: Ingredients, tmp_path: Path) -> None:
    write_card(made, get("adapter"), tmp_path)
    card = (tmp_path / "README.md").read_text()
    front, body = card.removeprefix("---\n").split("\n---\n", 1)
    assert {f"base_model: {NAME}", "license: llama2", "library_name: peft"} <= set(front.splitlines())
    assert "license: other" not in card
    assert f'from_pretrained("{NAME}", revision="{COMMIT}"' in body and "| nf4 |" in body


def test_card_counts_general_code_apart(made: Ingredients, tmp_path: Path) -> None:
    general = Replay(share=0.05, source="others", size=SplitSize(files=16, repositories=4, bytes=100))
    both = SplitSize(files=616, repositories=7, bytes=9000)
    sample = made.sample.model_copy(update={"train": both, "replay": general})
    write_card(made.model_copy(update={"sample": sample}), get("adapter"), tmp_path)
    (row,) = (line for line in (tmp_path / "README.md").read_text().splitlines() if "Training files" in line)
    assert re.findall(r"\d+", row) == ["600", "3", "16"]


def test_card_warns_of_fp16_where_the_residual_stream_was_kept_in_fp32(made: Ingredients, tmp_path: Path) -> None:
    plan = CPU.model_copy(update={"precision": "fp16", "fp32_residual": True})
    kept = made.model_copy(update={"plan": plan})
    cards = []
    for ingredients in (made, kept):
        write_card(ingredients, get("adapter"), tmp_path)
        cards.append((tmp_path / "README.md").read_text())
    assert "fp16 may overflow" not in cards[0]
    assert "fp16 may overflow" in cards[1] and "fp16 with a residual stream in fp32" in cards[1]
    assert is_fp32(load_plain(made.base, kept.plan)) and not is_fp32(load_plain(made.base, made.plan))


def test_adapter_names_repository_and_commit(made: Ingredients, tmp_path: Path) -> None:
    adapter = Adapter.read(made.checkpoint.path / "adapter")
    write_adapter(adapter, made.model, tmp_path / "adapter")
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["base_model_name_or_path"], settings["revision"]) == (NAME, COMMIT)
    assert settings["target_modules"] == ["q_proj", "v_proj"]


def test_card_has_the_command_that_serves_it(made: Ingredients, tmp_path: Path) -> None:
    for form, line in (
        ("adapter", f"vllm serve {NAME} --revision {COMMIT} --enable-lora --max-lora-rank 8 \\\n"),
        ("merged", "vllm serve . --served-model-name codetune\n"),
        ("gguf-q8_0", "ollama create codetune -f Modelfile"),
    ):
        write_card(made, get(form), tmp_path)
        assert line in (tmp_path / "README.md").read_text()


def test_card_has_the_same_bytes_again(made: Ingredients, tmp_path: Path) -> None:
    slower = made.checkpoint.model_copy(update={"step_seconds": 9.0, "tokens_per_second": 1.0, "resumed_from": 1})
    for name, checkpoint in (("one", made.checkpoint), ("two", slower)):
        (tmp_path / name).mkdir()
        write_card(made.model_copy(update={"checkpoint": checkpoint}), get("merged"), tmp_path / name)
    assert (tmp_path / "one" / "README.md").read_bytes() == (tmp_path / "two" / "README.md").read_bytes()


def test_card_names_no_micro_batch_that_did_not_fit(made: Ingredients, tmp_path: Path) -> None:
    smaller = made.checkpoint.model_copy(update={"fallbacks": ("out of memory",)})
    cards = []
    for checkpoint in (made.checkpoint, smaller):
        write_card(made.model_copy(update={"checkpoint": checkpoint}), get("adapter"), tmp_path)
        cards.append((tmp_path / "README.md").read_text())
    assert " at once × " in cards[0] and " at once × " not in cards[1]
    assert f"| Batch | {made.plan.micro_batch * made.plan.accumulation} sequences |" in cards[1]


def test_card_tells_the_layers_that_were_trained_not_those_that_were_named(made: Ingredients, tmp_path: Path) -> None:
    named = replace(made.adapter, settings={**made.adapter.settings, "target_modules": ["all-linear", "o_proj"]})
    write_card(made.model_copy(update={"adapter": named}), get("adapter"), tmp_path)
    count = len(made.adapter.modules)
    assert f" q_proj, v_proj ({count} layers)" in (tmp_path / "README.md").read_text()
