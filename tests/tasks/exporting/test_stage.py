"""The stage on the built-in model: what it writes, that it loads, and that a difference stops it."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts import digest
from artifacts.errors import InputError, StageError
from artifacts.presentation import Code, Table, Text
from artifacts.schema import ExportedModel
from tasks.exporting import ExportingConfig, run_exporting
from tasks.exporting.comparing import logits, read_chunks
from tasks.exporting.forms.adapter import compare_adapter
from tasks.exporting.forms.merged import compare_merged
from tasks.exporting.view import sections
from tests.conftest import BASE_MODEL, SMALL_MODEL
from tests.small_model import write_large
from tests.tasks.exporting.pieces import CPU, Pieces, make, tiny_llama
from tests.tasks.models.large import computing_in


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    return make(tmp_path_factory.mktemp("pieces"), SMALL_MODEL)


@pytest.fixture(scope="module")
def exported(pieces: Pieces, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = tmp_path_factory.mktemp("export")
    return run_exporting(ExportingConfig(quantization="int8"), **pieces.inputs(), workdir=folder)


def test_comparisons_are_recorded(exported: ExportedModel) -> None:
    adapter, merged = exported.forms
    assert adapter.comparison.largest_difference <= 1e-4 and "int8" in adapter.comparison.against
    found = merged.comparison
    assert 0 < found.largest_difference < found.bound < 1 and found.positions > 30
    assert merged.bytes > adapter.bytes > 1000


def test_exports_load_with_plain_libraries_and_agree(exported: ExportedModel, pieces: Pieces) -> None:
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoModelForCausalLM

    chunks = read_chunks(pieces.tokens.path / "held_out.parquet", 60)
    merged = AutoModelForCausalLM.from_pretrained(exported.path / "merged", dtype=torch.float32)
    adapted = AutoPeftModelForCausalLM.from_pretrained(exported.path / "adapter", dtype=torch.float32)
    expected = logits(adapted, chunks)
    torch.testing.assert_close(logits(merged, chunks), expected, rtol=0, atol=0.05)
    with adapted.disable_adapter():
        assert float((logits(adapted, chunks) - expected).abs().max()) > 0.1  # the adapter does something
    assert sum(map(len, chunks)) == len(expected) == 60


def test_adapter_settings_name_the_base_in_a_fixed_order(exported: ExportedModel) -> None:
    text = (exported.path / "adapter" / "adapter_config.json").read_text()
    settings = json.loads(text)
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    assert Path(settings["base_model_name_or_path"]) == SMALL_MODEL.resolve() == Path(exported.base_model)
    assert exported.base_revision is settings["revision"] is None
    assert list(settings) == sorted(settings)
    assert not list((exported.path / "adapter").glob("tokenizer*"))


def test_card_says_what_the_model_is_made_of(exported: ExportedModel) -> None:
    for form, line in (
        ("adapter", "PeftModel.from_pretrained(base,"),
        ("merged", "AutoModelForCausalLM.from_pretrained"),
    ):
        card = (exported.path / form / "README.md").read_text()
        assert line in card and card.startswith("---\n")
        for fact in (
            str(SMALL_MODEL),
            "r = 8, alpha = 16",
            "q_proj, v_proj",
            "2.0000 → 1.5000",
            "mit",
            "Python",
            "int8",
        ):
            assert fact in card


def test_sections_show_sizes_comparisons_and_lines_that_run(exported: ExportedModel) -> None:
    (section,) = sections(exported)
    place, table, text = section.blocks
    assert isinstance(place, Text) and str(exported.path) in place.markdown
    assert isinstance(table, Table) and [row[0] for row in table.rows] == ["LoRA adapter", "merged, fp16"]
    assert isinstance(text, Code) and text.language == "python"
    names: dict[str, object] = {}
    exec(text.text.replace('device_map="auto"', 'device_map="cpu"'), names)
    assert names["model"].dtype == torch.float16  # type: ignore[attr-defined]


def test_without_merged_model_untied_and_unquantized(tmp_path: Path) -> None:
    pieces = make(tmp_path, tiny_llama(tmp_path / "base", SMALL_MODEL))
    digests = set()
    for name, merged in (("one", False), ("two", True)):
        (tmp_path / name).mkdir()
        config = ExportingConfig(quantization="none", forms=["merged"] if merged else [], max_shard_gb=0.0003)
        handle = run_exporting(config, **pieces.inputs(), workdir=tmp_path / name)
        assert (handle.form("merged") is not None) == (tmp_path / name / "merged").exists() == merged
        digests.add(digest.of_files(tmp_path / name / "adapter", ("adapter_config.json", "README.md")))
    assert len(digests) == 1 and len(list((tmp_path / "two" / "merged").glob("*.safetensors"))) > 2


def test_where_fp16_overflows_the_adapter_is_checked_with_a_residual_stream_in_fp32(tmp_path: Path) -> None:
    write_large(tmp_path / "base", BASE_MODEL, 256)
    pieces = make(tmp_path, tmp_path / "base")
    config = ExportingConfig(quantization="int8", forms=[])
    inputs = [pieces.inputs() | {"plan": CPU.model_copy(update={"fp32_residual": kept})} for kept in (True, False)]
    folders = [tmp_path / name for name in ("kept", "not")]
    for folder in folders:
        folder.mkdir()
    with computing_in(torch.float16):
        (adapter,) = run_exporting(config, **inputs[0], workdir=folders[0]).forms
        with pytest.raises(StageError, match="differ by up to nan"):
            run_exporting(config, **inputs[1], workdir=folders[1])
    assert adapter.comparison.largest_difference <= adapter.comparison.bound


def test_over_the_bound_is_an_error(pieces: Pieces, tmp_path: Path) -> None:
    config = ExportingConfig(quantization="none", merged_tolerance=0.0)
    with pytest.raises(StageError, match=r" differ .*, 0 is allowed") as caught:
        run_exporting(config, **pieces.inputs(), workdir=tmp_path)
    assert caught.value.field == "exporting"


def test_an_altered_merged_weight_is_noticed(exported: ExportedModel, pieces: Pieces, tmp_path: Path) -> None:
    merged = tmp_path / "merged"
    merged.mkdir()
    for path in (exported.path / "merged").iterdir():
        (merged / path.name).write_bytes(path.read_bytes())
    tensors = load_file(merged / "model.safetensors")
    tensors["model.layers.1.self_attn.v_proj.weight"] *= 1.5
    save_file(tensors, merged / "model.safetensors", metadata={"format": "pt"})
    chunks = read_chunks(pieces.tokens.path / "held_out.parquet", 60)
    with pytest.raises(StageError, match=r"^exporting: merged .* differ ") as caught:
        compare_merged(SMALL_MODEL, exported.path / "adapter", merged, chunks, CPU, tolerance=0.004)
    assert "--refresh training" in str(caught.value.remedy)


def test_an_altered_adapter_is_noticed(exported: ExportedModel, pieces: Pieces, tmp_path: Path) -> None:
    for path in (exported.path / "adapter").glob("adapter*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    settings = json.loads((tmp_path / "adapter_config.json").read_text()) | {"lora_alpha": 17}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    chunks = read_chunks(pieces.tokens.path / "held_out.parquet", 60)
    trained = pieces.checkpoint.path / "adapter"
    with pytest.raises(StageError, match=r"^exporting: adapter .* int8 .* differ ") as caught:
        compare_adapter(SMALL_MODEL, trained, tmp_path, chunks, CPU, "int8", 1e-4)
    assert "--refresh training" in str(caught.value.remedy)


def test_a_difference_that_does_not_come_again_is_an_error_and_told_apart(
    exported: ExportedModel, pieces: Pieces, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    computed = []

    def disturbed(model: Any, chunks: Any) -> Any:
        computed.append(logits(model, chunks))
        return computed[-1] + (0.0016 if len(computed) == 1 else 0)

    monkeypatch.setattr("tasks.exporting.forms.adapter.logits", disturbed)
    chunks = read_chunks(pieces.tokens.path / "held_out.parquet", 60)
    trained, adapter = pieces.checkpoint.path / "adapter", exported.path / "adapter"
    with pytest.raises(StageError, match=r" 0\.0016, 0\.0001 "):
        compare_adapter(SMALL_MODEL, trained, adapter, chunks, CPU, "int8", 1e-4)
    assert len(computed) == 4 and [record.levelno for record in caplog.records].count(logging.WARNING) == 1


def test_an_adapter_lost_in_rounding_is_told(pieces: Pieces, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny = altered_checkpoint(pieces, tmp_path, lambda tensor: tensor * 1e-4)
    config = ExportingConfig(quantization="none", positions=20)
    handle = run_exporting(config, **tiny.inputs(), workdir=tmp_path)
    assert any(record.levelno == logging.WARNING and "fp16" in record.getMessage() for record in caplog.records)
    assert [form.comparison.positions for form in handle.forms] == [20, 20]


def altered_checkpoint(pieces: Pieces, folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> Pieces:
    """The same with an adapter of which every weight was changed."""
    copy = folder / "checkpoint"
    shutil.copytree(pieces.checkpoint.path, copy)
    path = copy / "adapter" / "adapter_model.safetensors"
    save_file({name: change(tensor) for name, tensor in load_file(path).items()}, path, metadata={"format": "pt"})
    return dataclasses.replace(pieces, checkpoint=pieces.checkpoint.model_copy(update={"path": copy}))


@pytest.mark.parametrize(("factor", "error"), [(float("nan"), InputError), (1e30, StageError)])
def test_what_computes_no_numbers_is_noticed(
    pieces: Pieces, tmp_path: Path, factor: float, error: type[Exception]
) -> None:
    damaged = altered_checkpoint(pieces, tmp_path, lambda tensor: tensor * factor)
    with pytest.raises(error):
        run_exporting(ExportingConfig(quantization="none", forms=[]), **damaged.inputs(), workdir=tmp_path)
