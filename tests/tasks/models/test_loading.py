"""Loading the built-in base model in every quantization, and an adapter onto it."""

from __future__ import annotations

import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import InputError
from artifacts.schema import Plan, Quantization
from tasks.models.loading import attach_adapter, load_base, silence_peft
from tests.conftest import BASE_MODEL

PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
IDS = torch.arange(300, 340).unsqueeze(0)


@pytest.mark.parametrize(
    ("quantization", "layer"), [("int8", "Linear8bitLt"), ("nf4", "Linear4bit"), ("none", "Linear")]
)
def test_quantizes_layers_but_not_embeddings_or_head(quantization: Quantization, layer: str) -> None:
    model = load_base(BASE_MODEL, quantization, PLAN)
    assert type(model.model.layers[0].mlp.up_proj).__name__ == layer
    assert type(model.lm_head).__name__ == "Linear"
    assert {model.lm_head.weight.dtype, model.model.norm.weight.dtype} == {torch.float32}
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_computes_alike_in_training_and_evaluation(
    quantization: Quantization, caplog: pytest.LogCaptureFixture
) -> None:
    model = load_base(BASE_MODEL, quantization, PLAN)
    with torch.no_grad(), caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluated = model.eval()(IDS).logits
        trained = model.train()(IDS).logits
    assert torch.equal(evaluated, trained)
    assert not caplog.records


def test_quantized_models_stay_close_to_the_original() -> None:
    losses = {}
    for quantization in ("none", "int8", "nf4"):
        with torch.no_grad():
            losses[quantization] = load_base(BASE_MODEL, quantization, PLAN)(IDS, labels=IDS).loss.item()
    assert losses["int8"] == pytest.approx(losses["none"], rel=0.01)
    assert losses["nf4"] == pytest.approx(losses["none"], rel=0.1)
    assert len(set(losses.values())) == 3


def test_adapter_is_attached_as_it_was_saved(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import load_file

    silence_peft()
    config = LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj"], init_lora_weights=False)
    made = get_peft_model(load_base(BASE_MODEL, "int8", PLAN), config).eval()
    made.save_pretrained(str(tmp_path), save_embedding_layers=False)
    tuned = attach_adapter(load_base(BASE_MODEL, "int8", PLAN), tmp_path)
    weights: dict[str, Any] = {name: value for name, value in tuned.named_parameters() if "lora_" in name}
    saved = load_file(tmp_path / "adapter_model.safetensors")
    assert len(weights) == len(saved)
    for name, weight in weights.items():
        assert weight.dtype == torch.float32 and not weight.requires_grad
        assert torch.equal(weight, saved[name.replace(".default", "")])
    assert torch.equal(tuned(IDS).logits, made(IDS).logits)


def test_folder_without_weights_is_refused(tmp_path: Path) -> None:
    shutil.copy(BASE_MODEL / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"model\.safetensors ") as caught:
        load_base(tmp_path, "none", PLAN)
    assert caught.value.field == "model.name"


def test_missing_weights_are_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    shutil.copytree(BASE_MODEL, tmp_path / "model")
    weights = load_file(BASE_MODEL / "model.safetensors")
    del weights["model.layers.3.mlp.up_proj.weight"]
    weights["model.norm.weight"] = weights["model.norm.weight"][:7].clone()
    save_file(weights, tmp_path / "model" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r" 2 .* model\.layers\.3\.mlp\.up_proj\.weight ") as caught:
        load_base(tmp_path / "model", "none", PLAN)
    assert caught.value.field == "model.name"
