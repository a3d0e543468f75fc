"""The artifact holds what quantizing while loading gives, in files that plain transformers reads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts import digest
from artifacts.errors import CodetuneError, InputError
from artifacts.schema import Plan, QuantizedBase
from tasks.models.base_model import ModelConfig, locate
from tasks.models.loading import load_base, quantization_config
from tasks.quantization import QuantizationConfig, run_quantization
from tasks.quantization import stage as stage
from tasks.quantization.view import sections
from tests.conftest import BASE_MODEL

Kind = Literal["int8", "nf4"]
KINDS: tuple[Kind, ...] = ("int8", "nf4")
PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
WEIGHTS = "model.safetensors"
IDS = torch.arange(300, 340).unsqueeze(0)


def quantize(folder: Path, quantization: Kind, model: Path = BASE_MODEL) -> QuantizedBase:
    folder.mkdir(parents=True)
    config = QuantizationConfig(quantization=quantization, device="cpu")
    return run_quantization(config, model=locate(ModelConfig(name=str(model))), workdir=folder)


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[Kind, QuantizedBase]:
    return {kind: quantize(tmp_path_factory.mktemp("base") / kind, kind) for kind in KINDS}


def contents(folder: Path) -> str:
    return digest.of_files(folder, [path.name for path in folder.iterdir()])


@pytest.mark.parametrize("kind", KINDS)
def test_loads_as_what_quantizing_on_the_fly_gives(kind: Kind, bases: dict[Kind, QuantizedBase]) -> None:
    stored, made = load_base(bases[kind].path, kind, PLAN), load_base(BASE_MODEL, kind, PLAN)
    found, expected = stored.state_dict(), made.state_dict()  # scales and quantization states are in it
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name
    assert [type(module) for module in stored.modules()] == [type(module) for module in made.modules()]
    assert stored.config.quantization_config.to_dict() == made.config.quantization_config.to_dict()
    assert torch.equal(stored(IDS).logits, made(IDS).logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_base_is_ready_for_an_adapter(kind: Kind, bases: dict[Kind, QuantizedBase]) -> None:
    model = load_base(bases[kind].path, kind, PLAN)
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    # what TRL and PEFT ask
    assert model.is_quantized and model.quantization_method.value == "bitsandbytes" and model.hf_quantizer.is_trainable
    assert getattr(model, {"int8": "is_loaded_in_8bit", "nf4": "is_loaded_in_4bit"}[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_loads_it(kind: Kind, bases: dict[Kind, QuantizedBase]) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    plain: dict[str, Any] = {"dtype": torch.float16, "device_map": {"": "cpu"}}
    config = quantization_config(kind, torch.float16)
    made = AutoModelForCausalLM.from_pretrained(BASE_MODEL, quantization_config=config, **plain).train()
    stored = AutoModelForCausalLM.from_pretrained(bases[kind].path, **plain).train()
    with torch.no_grad():
        assert torch.equal(stored(IDS).logits, made(IDS).logits)
    tokenizer = AutoTokenizer.from_pretrained(bases[kind].path)
    assert tokenizer("def f(x):")["input_ids"] == AutoTokenizer.from_pretrained(BASE_MODEL)("def f(x):")["input_ids"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_model_gives_the_same_bytes(kind: Kind, bases: dict[Kind, QuantizedBase], tmp_path: Path) -> None:
    copy = tmp_path / "elsewhere"
    shutil.copytree(BASE_MODEL, copy)
    again = quantize(tmp_path / "again", kind, copy)
    assert contents(again.path) == contents(bases[kind].path)
    assert again == bases[kind].model_copy(update={"path": again.path})


def test_the_handle_tells_the_sizes(bases: dict[Kind, QuantizedBase]) -> None:
    for kind, base in bases.items():
        size = (base.path / WEIGHTS).stat().st_size
        assert base.linear.tensors == 7 * 8 and 0.98 * size < base.weight_bytes < size
        assert base.original_bytes > {"int8": 1.6, "nf4": 2.2}[kind] * base.weight_bytes
        assert kind in base.summary and sections(base)[0].blocks


def test_large_models_are_cut_into_files(
    bases: dict[Kind, QuantizedBase], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "MAX_SHARD", 3_000_000)
    base = quantize(tmp_path / "cut", "int8")
    files = sorted(path.name for path in base.path.glob("*.safetensors"))
    assert len(files) > 2 and files[0] == f"model-00001-of-{len(files):05d}.safetensors"
    assert (base.linear, base.other) == (bases["int8"].linear, bases["int8"].other)
    whole = load_file(bases["int8"].path / WEIGHTS)
    parts = {name: value for file in files for name, value in load_file(base.path / file).items()}
    assert parts.keys() == whole.keys() and all(torch.equal(parts[name], whole[name]) for name in whole)
    assert torch.equal(load_base(base.path, "int8", PLAN)(IDS).logits, load_base(BASE_MODEL, "int8", PLAN)(IDS).logits)


@pytest.mark.parametrize("asked", ["nf4", "none"])
def test_another_kind_than_stored_is_refused(asked: Literal["nf4", "none"], bases: dict[Kind, QuantizedBase]) -> None:
    with pytest.raises(InputError, match=f" int8, .* {asked} ") as refused:
        load_base(bases["int8"].path, asked, PLAN)
    assert refused.value.field == "model.name"


@pytest.mark.parametrize(("kind", "scale"), [("int8", "SCB"), ("nf4", "weight.absmax")])
def test_a_base_without_scales_is_refused(
    kind: Kind, scale: str, bases: dict[Kind, QuantizedBase], tmp_path: Path
) -> None:
    shutil.copytree(bases[kind].path, tmp_path / "base")
    weights = load_file(bases[kind].path / WEIGHTS)
    lost = "model.layers.3.mlp.up_proj."
    kept = {name: value for name, value in weights.items() if not name.startswith(lost) or name == lost + "weight"}
    assert len(kept) < len(weights) and lost + scale not in kept
    save_file(kept, tmp_path / "base" / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r" 1 .* scales, model\.layers\.3\.mlp\.up_proj "):
        load_base(tmp_path / "base", kind, PLAN)


def damaged(folder: Path, damage: str) -> None:
    file = folder / WEIGHTS
    weights = load_file(file)
    name = "model.layers.3.mlp.up_proj.weight"
    match damage:
        case "cut off":
            file.write_bytes(file.read_bytes()[:-1000])
        case "missing":
            save_file({key: value for key, value in weights.items() if key != name}, file)
        case "misshapen":
            save_file(weights | {name: weights[name][:7].clone()}, file)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("cut off", r"model\.safetensors\b.* no complete safetensors file"),
        ("missing", r" 1 .* model\.layers\.3\.mlp\.up_proj\.weight"),
        ("misshapen", r"up_proj\.weight .*\(7, 256\), .* \(704, 256\)"),
    ],
)
def test_an_unusable_model_is_refused(damage: str, said: str, tmp_path: Path) -> None:
    shutil.copytree(BASE_MODEL, tmp_path / "model")
    model = locate(ModelConfig(name=str(tmp_path / "model")))
    damaged(tmp_path / "model", damage)  # after it was looked at
    (tmp_path / "work").mkdir()
    config = QuantizationConfig(quantization="int8", device="cpu")
    with pytest.raises(InputError, match=said) as caught:
        run_quantization(config, model=model, workdir=tmp_path / "work")
    assert caught.value.field == "model.name"


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_weights_stored_otherwise(kind: Kind, tmp_path: Path) -> None:
    """GPT-2: published names leave out the inner model's, weights lie inputs × outputs."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = tmp_path / "gpt2"
    ids = {"bos_token_id": 1, "eos_token_id": 2}
    GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=512, **ids)).half().save_pretrained(model)
    weights = {name.removeprefix("transformer."): value for name, value in load_file(model / WEIGHTS).items()}
    save_file(weights, model / WEIGHTS, metadata={"format": "pt"})
    shutil.copy(BASE_MODEL / "tokenizer.json", model)
    base = quantize(tmp_path / "base", kind, model)
    assert base.linear.tensors == 4
    assert torch.equal(load_base(base.path, kind, PLAN)(IDS).logits, load_base(model, kind, PLAN)(IDS).logits)


def test_a_quantized_model_is_not_quantized_again(bases: dict[Kind, QuantizedBase], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="quantized already"):
        quantize(tmp_path / "again", "int8", bases["nf4"].path)


def complain(problem: str) -> None:
    raise InputError(problem, field="model.name")


def test_on_a_gpu_another_process_works() -> None:
    with stage.worker("cuda") as call:
        assert call(os.getpid) != os.getpid()
        with pytest.raises(InputError, match="no such"):
            call(complain, "no such model")
        assert call(os.getppid) == os.getpid()


def test_a_killed_process_is_said_so() -> None:
    with pytest.raises(CodetuneError, match="was killed"), stage.worker("cuda") as call:
        call(os.abort)
