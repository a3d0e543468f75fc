"""llama.cpp's converter and quantizer: they are what they should be, and what they refuse is told in one message."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError, StageError
from tasks.backends.contract import JobShape
from tasks.exporting import ExportingConfig
from tasks.families import FAMILIES
from tasks.gguf import converter, library
from tasks.gguf.converter import CONVERTER, convert
from tasks.gguf.loaded import GgufModel
from tasks.gguf.vocabulary import splitter
from tasks.models.base_model import ModelConfig, ModelReference, locate
from tasks.models.vocabulary import encode_batch, load_tokenizer
from tasks.preflight.stage import check_model
from tests.tasks.families import models
from tests.tasks.gguf.extra import WITH_EXTRA
from tests.tasks.tokenization import toys

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SPLIT = {"type": "Split", "pattern": {"Regex": QWEN}, "behavior": "Isolated", "invert": False}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}


def test_the_converter_is_the_one_that_was_released() -> None:
    sums = dict(reversed(line.split("  ")) for line in (CONVERTER / "SHA256SUMS").read_text().splitlines())
    found = {path.relative_to(CONVERTER).as_posix(): path for path in CONVERTER.rglob("*.py")}
    assert sums.keys() == found.keys() | {"LICENSE"}
    for name, path in found.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name], name


def test_without_the_extra_it_is_told_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="llama_cpp, which is not installed") as refused:
        ExportingConfig(forms=["gguf"]).check()
    assert refused.value.field == "exporting.forms" and "codetune[gguf]" in str(refused.value.remedy)
    ExportingConfig(forms=["merged"]).check()


def test_an_architecture_that_it_does_not_know_is_named(tmp_path: Path) -> None:
    toys.sentencepiece(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "x", "architectures": ["NewForCausalLM"]}))
    with pytest.raises(StageError, match=r"does not know this model.*NewForCausalLM") as refused:
        convert(tmp_path, tmp_path / "model.gguf", tokenizer, name="new", infills=False)
    assert refused.value.field == "exporting.forms" and not (tmp_path / "model.gguf").exists()


def test_what_else_goes_wrong_is_told_with_its_last_line(tmp_path: Path) -> None:
    toys.sentencepiece(tmp_path)
    tokenizer = load_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "architectures": ["LlamaForCausalLM"]}))
    (tmp_path / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(StageError, match=r"converter failed: \w+"):
        convert(tmp_path, tmp_path / "model.gguf", tokenizer, name="damaged", infills=False)


@pytest.mark.parametrize(
    ("steps", "name"),
    [
        ({"type": "Sequence", "pretokenizers": [SPLIT, BYTES]}, "qwen2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, BYTES]}, "starcoder"),
        ({**BYTES, "use_regex": True}, "gpt-2"),
        ({"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}, BYTES]}, None),
    ],
)
def test_how_text_is_split_is_told_by_the_name_that_llama_cpp_has(
    steps: dict[str, Any], name: str | None, tmp_path: Path
) -> None:
    toys.byte_level(tmp_path)
    description = json.loads((tmp_path / "tokenizer.json").read_text()) | {"pre_tokenizer": steps}
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    assert splitter(load_tokenizer(tmp_path)) == name


UNKNOWN = {"type": "Sequence", "pretokenizers": [{"type": "Punctuation", "behavior": "Isolated"}, BYTES]}


def unknown(folder: Path) -> ModelReference:
    """A model of a known family whose tokenizer splits text as nobody else's."""
    models.write(folder, next(family for family in FAMILIES if family.name == "Qwen2"))
    description = json.loads((folder / "tokenizer.json").read_text()) | {"pre_tokenizer": UNKNOWN}
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return locate(ModelConfig(name=str(folder)))


def test_a_tokenizer_that_it_does_not_know_is_told_before_the_training(tmp_path: Path) -> None:
    model = unknown(tmp_path / "model")
    for forms in (("merged", "gguf-q4_k_m"), ("adapter-gguf",)):
        with pytest.raises(
            InputError, match=r"cannot become a GGUF file: llama\.cpp's converter does not know"
        ) as refused:
            check_model(model, JobShape(max_length=64, exports=forms))
        assert refused.value.field == "exporting.forms" and "leave out the GGUF forms" in str(refused.value.remedy)
    check_model(model, JobShape(max_length=64, exports=("merged",)))


def test_it_is_asked_only_where_there_is_doubt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(converter, "convert", lambda *_, **__: pytest.fail("it takes seconds"))
    for number, family in enumerate(FAMILIES):
        models.write(tmp_path / str(number), family)
        converter.check_known(locate(ModelConfig(name=str(tmp_path / str(number)))))


def test_that_it_could_not_be_tried_refuses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = unknown(tmp_path / "model")
    monkeypatch.setattr(converter, "CONVERTER", tmp_path / "nowhere")
    converter.check_known(model)
    assert "could not be tried: llama.cpp's converter failed" in caplog.text


@WITH_EXTRA
def test_a_vocabulary_without_weights_gives_the_ids_of_training(tmp_path: Path) -> None:
    models.write(tmp_path / "model", next(family for family in FAMILIES if family.name == "Qwen2"))
    (tmp_path / "model" / "model.safetensors").write_bytes(b"damaged, and not looked at")
    tokenizer = load_tokenizer(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "v.gguf", tokenizer, name="qwen", infills=False, weights=False)
    with GgufModel(tmp_path / "v.gguf", vocabulary_only=True) as model:
        assert [model.tokenize(text) for text in toys.CORPUS] == encode_batch(tokenizer, toys.CORPUS)


@WITH_EXTRA
def test_files_that_llama_cpp_cannot_read_are_told(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF and nothing else")
    with pytest.raises(StageError, match=r"cannot load model\.gguf"):
        GgufModel(tmp_path / "model.gguf")
    with pytest.raises(StageError, match=r"cannot write model\.gguf as q4_k_m"):
        library.quantize(tmp_path / "model.gguf", tmp_path / "other.gguf", "q4_k_m", 1)


@WITH_EXTRA
def test_every_type_is_one_that_llama_cpp_has() -> None:
    functions = library.llama()
    assert all(hasattr(functions, f"LLAMA_FTYPE_MOSTLY_{name.upper()}") for name in library.TYPES)
