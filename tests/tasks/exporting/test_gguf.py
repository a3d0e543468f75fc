"""The GGUF forms on the built-in model, loaded by llama.cpp: the test on every machine that has the extra."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.errors import StageError
from artifacts.schema import ExportedModel
from tasks.exporting import ExportingConfig, run_exporting
from tasks.exporting.comparing import gguf_share
from tasks.exporting.contract import Ingredients
from tasks.exporting.forms import get, with_needs
from tasks.exporting.forms.adapter_gguf import AdapterGgufExport
from tasks.exporting.forms.gguf import check_ids
from tasks.gguf.loaded import GgufModel
from tasks.models.vocabulary import load_tokenizer
from tests.conftest import BASE_MODEL, SMALL_MODEL
from tests.tasks.exporting.pieces import CPU, Pieces, make, make_checkpoint
from tests.tasks.gguf.extra import WITH_EXTRA

pytestmark = WITH_EXTRA


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    made = make(tmp_path_factory.mktemp("pieces"), SMALL_MODEL)
    return replace(made, tokens=made.tokens.model_copy(update={"format": "fim"}))


@pytest.fixture(scope="module")
def exported(pieces: Pieces, tmp_path_factory: pytest.TempPathFactory) -> ExportedModel:
    folder = tmp_path_factory.mktemp("export")
    config = ExportingConfig(quantization="none", forms=["gguf"])
    return run_exporting(config, **pieces.inputs(), workdir=folder)


def test_three_files_and_no_more_are_written(exported: ExportedModel) -> None:
    found = {path.relative_to(exported.path).as_posix() for path in exported.path.rglob("*.gguf")}
    assert found == {f"gguf-{kind}/model-{kind}.gguf" for kind in ("f16", "q8_0", "q4_k_m")}
    assert {path.name for path in exported.path.iterdir()} == {"adapter", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m"}
    assert (exported.path / "gguf-q8_0" / "Modelfile").read_text().startswith("FROM ./model-q8_0.gguf\n")
    sizes = [exported.form(f"gguf-{kind}").bytes for kind in ("f16", "q8_0", "q4_k_m")]  # type: ignore[union-attr]
    assert sizes[0] > 1.7 * sizes[1] > 1.7 * 1.3 * sizes[2]


def test_each_was_compared_with_the_trained_model(exported: ExportedModel) -> None:
    found = {form.name: form.comparison for form in exported.forms}
    largest = found["gguf-f16"].bound / 0.01
    assert found["gguf-f16"].exact and 0 < found["gguf-f16"].largest_difference < 0.004 * largest
    assert not found["gguf-q4_k_m"].exact and found["gguf-q4_k_m"].largest_difference < found["gguf-q4_k_m"].bound
    assert "token ids of 27 files" in found["gguf-q8_0"].against
    assert (
        "logits within 0.0" not in exported.summary
        and f"{found['gguf-f16'].largest_difference:.1e}" in exported.summary
    )


def test_the_file_knows_marks_ends_and_positions(exported: ExportedModel) -> None:
    tokenizer = load_tokenizer(SMALL_MODEL)
    for kind in ("f16", "q4_k_m"):
        with GgufModel(exported.path / f"gguf-{kind}" / f"model-{kind}.gguf", vocabulary_only=True) as model:
            said, ids = model.description, model.special()
            assert (said["llama.context_length"], float(said["llama.rope.freq_base"])) == ("2048", 1e6)
            assert [ids[name] for name in ("fim_pre", "fim_suf", "fim_mid", "eot")] == [4092, 4093, 4094, 4095]
            assert model.ends(2) and model.ends(4095) and not model.ends(4092)
            assert model.tokenize(" ▁<PRE>") != [4092] and len(tokenizer.pieces) == model.size
            assert str(exported.path) not in str(said) and said["general.name"].endswith(", adapted")


def test_the_same_model_gives_the_same_bytes(exported: ExportedModel, pieces: Pieces, tmp_path: Path) -> None:
    config = ExportingConfig(quantization="none", forms=["merged", "gguf-q4_k_m"])
    again = run_exporting(config, **pieces.inputs(), workdir=tmp_path)
    name = "gguf-q4_k_m/model-q4_k_m.gguf"
    assert digest.of_file(again.path / name) == digest.of_file(exported.path / name)
    assert not (again.path / "gguf-f16").exists() and (again.path / "merged" / "tokenizer.model").exists()


def test_other_ids_than_trainings_stop_the_export(exported: ExportedModel, pieces: Pieces, tmp_path: Path) -> None:
    """As if the scores of all pieces were the same, which is what the converter writes without `tokenizer.model`."""
    description = json.loads((BASE_MODEL / "tokenizer.json").read_text())
    description["model"]["merges"].reverse()
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    shutil.copy(BASE_MODEL / "tokenizer_config.json", tmp_path)
    with GgufModel(exported.path / "gguf-f16" / "model-f16.gguf", vocabulary_only=True) as model:
        assert check_ids(model, load_tokenizer(SMALL_MODEL), pieces.sample, infills=True) == 27
        with pytest.raises(StageError, match=r"other token ids than training for 27 of 27 files"):
            check_ids(model, load_tokenizer(tmp_path), pieces.sample, infills=True)


def test_over_the_bound_is_an_error(pieces: Pieces, tmp_path: Path) -> None:
    config = ExportingConfig(quantization="none", forms=["gguf-f16"], gguf_tolerance=1e-6, positions=10)
    with pytest.raises(StageError, match=r"^exporting: model-f16\.gguf in llama\.cpp .* differ "):
        run_exporting(config, **pieces.inputs(), workdir=tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_on_a_gpu_what_fp16_may_change_there_comes_on_top() -> None:
    config = ExportingConfig(gguf_tolerance=0.01, merged_tolerance=0.004)
    assert gguf_share(config, CPU) == 0.01
    assert gguf_share(config, CPU.model_copy(update={"device": "cuda"})) == pytest.approx(0.03)


def test_a_form_needs_what_it_is_made_from_and_preflight_counts_it() -> None:
    assert [form.name for form in with_needs(("gguf-q4_k_m",))] == ["merged", "gguf-f16", "gguf-q4_k_m"]
    assert [form.name for form in with_needs(("gguf-f16", "merged"))] == ["merged", "gguf-f16"]
    assert ExportingConfig(forms=["merged", "gguf"]).forms == ("merged", "gguf-f16", "gguf-q8_0", "gguf-q4_k_m")


def test_the_lines_of_the_card_load_the_file(exported: ExportedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(exported.path / "gguf-f16")
    lines = get("gguf-f16").loading_lines("base", None, ".")
    assert lines in Path("README.md").read_text()
    names: dict[str, Any] = {}
    exec(lines.replace('.gguf"))', '.gguf"), verbose=False)'), names)
    assert names["model"].n_ctx() == 512


def test_the_adapter_on_the_base_computes_what_the_trained_model_does(pieces: Pieces, tmp_path: Path) -> None:
    config = ExportingConfig(quantization="none", forms=["adapter-gguf"])
    found = run_exporting(config, **pieces.inputs(), workdir=tmp_path).form("adapter-gguf")
    assert found is not None and 0 < found.comparison.largest_difference < 0.5 * found.comparison.bound
    assert [path.name for path in (tmp_path / "adapter-gguf").glob("*.gguf")] == ["adapter-f32.gguf"]
    assert not list(tmp_path.rglob("base*"))


def test_an_adapter_of_another_strength_is_noticed(pieces: Pieces, tmp_path: Path) -> None:
    written = AdapterGgufExport.write

    def weaker(self: AdapterGgufExport, made: Ingredients, config: Any, folder: Path, progress: Any) -> None:
        path = made.folders["adapter"] / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"lora_alpha": 8}))
        written(self, made, config, folder, progress)

    config = ExportingConfig(quantization="none", forms=["adapter-gguf"], adapter_bound=1000, positions=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdapterGgufExport, "write", weaker)
        with pytest.raises(StageError, match=r"^exporting: adapter-f32\.gguf in llama\.cpp .* differ "):
            run_exporting(config, **pieces.inputs(), workdir=tmp_path)


def test_an_adapter_that_the_file_has_no_place_for_is_refused(pieces: Pieces, tmp_path: Path) -> None:
    made = make_checkpoint(tmp_path / "other", SMALL_MODEL, use_rslora=True)
    (tmp_path / "out").mkdir()
    with pytest.raises(StageError, match="use_rslora cannot be written as GGUF") as refused:
        config = ExportingConfig(quantization="none", forms=["adapter-gguf"])
        run_exporting(config, **replace(pieces, checkpoint=made).inputs(), workdir=tmp_path / "out")
    assert refused.value.field == "exporting.forms"
