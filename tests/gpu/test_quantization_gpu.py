"""The quantized base on a real GPU: the bytes of quantizing while loading, and no memory of the GPU kept."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch

from artifacts.schema import Plan
from tasks.models.base_model import ModelConfig, locate
from tasks.models.loading import load_base
from tasks.quantization import QuantizationConfig, run_quantization
from tests.conftest import BASE_MODEL

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
PLAN = Plan(
    device="cuda", precision="fp16", micro_batch=1, accumulation=1, gradient_checkpointing=False, backend="transformers"
)


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_loads_as_what_quantizing_on_the_fly_gives(kind: Literal["int8", "nf4"], tmp_path: Path) -> None:
    config = QuantizationConfig(quantization=kind, device="cuda")
    base = run_quantization(config, model=locate(ModelConfig(name=str(BASE_MODEL))), workdir=tmp_path)
    stored, made = load_base(base.path, kind, PLAN), load_base(BASE_MODEL, kind, PLAN)
    found, expected = stored.state_dict(), made.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype and found[name].device == value.device, name
        assert torch.equal(found[name], value), name
    ids = torch.arange(300, 340, device="cuda").unsqueeze(0)
    assert torch.equal(stored(ids).logits, made(ids).logits)


def test_the_card_is_left_as_it_was(tmp_path: Path) -> None:
    free, _ = torch.cuda.mem_get_info()
    config = QuantizationConfig(quantization="int8", device="cuda")
    run_quantization(config, model=locate(ModelConfig(name=str(BASE_MODEL))), workdir=tmp_path)
    assert torch.cuda.mem_get_info()[0] >= free - 2**26
