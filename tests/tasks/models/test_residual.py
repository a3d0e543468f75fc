"""The residual stream of transformers' modules in fp32, in every family that can have it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.schema import Quantization
from tasks.families import FAMILIES, LAYER_NORMS
from tasks.models.loading import load_base
from tasks.models.residual import keep_in_fp32, unsupported
from tests.conftest import SMALL_MODEL
from tests.tasks.generation.world import PLAN
from tests.tasks.models.large import computing_in, large_model

IDS = torch.arange(300, 340).reshape(2, 20)
KINDS = sorted({family.model_type for family in FAMILIES})


def logits(folder: Path, dtype: torch.dtype, quantization: Quantization = "none", **plan: Any) -> torch.Tensor:
    with computing_in(dtype), torch.inference_mode():
        found: torch.Tensor = load_base(folder, quantization, PLAN.model_copy(update=plan))(input_ids=IDS).logits
        return found


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_logits_are_those_of_fp32(quantization: Quantization) -> None:
    exact = logits(large_model(), torch.float32, quantization)
    kept = logits(large_model(), torch.float16, quantization, fp32_residual=True)
    assert kept.dtype == torch.float16 and (kept - exact).norm() < 5e-3 * exact.norm()
    assert logits(large_model(), torch.float16, quantization).isnan().any()


def test_the_larger_model_is_the_same_function() -> None:
    assert torch.equal(logits(large_model(), torch.float32), logits(SMALL_MODEL, torch.float32))


@pytest.mark.parametrize("kind", KINDS)
def test_families(kind: str) -> None:
    """Nothing but the stream changes its type, and every block is as it was."""
    from transformers import AutoConfig, AutoModelForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "num_key_value_heads": 2}
    more: dict[str, Any] = {"num_hidden_layers": 2, "vocab_size": 400, "pad_token_id": 0, "head_dim": 8}
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **more)).eval().half()
    with torch.inference_mode():
        plain = model(input_ids=IDS).logits
        if kind in LAYER_NORMS:
            assert kind in str(unsupported(model.config.to_dict()))
            return
        keep_in_fp32(model, torch.float16)
        streams: list[torch.Tensor] = []
        model.model.layers[1].register_forward_hook(lambda _module, _inputs, made: streams.append(made))
        kept = model(input_ids=IDS).logits
    assert streams[0].dtype == torch.float32 and kept.dtype == torch.float16
    assert (kept.float() - plain.float()).norm() < 5e-3 * plain.float().norm()
