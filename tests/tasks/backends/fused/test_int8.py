"""Products in int8 without a GPU: the same arithmetic in plain torch, on the built-in model and real text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.backends.fused import int8, model
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.model import FusedModel
from tests.conftest import BASE_MODEL
from tests.tasks.backends.fused import models

pytestmark = pytest.mark.skipif(models.DEVICE == "cuda", reason="tests/gpu has the same on a GPU")
SOURCE = Path(__file__).parents[4] / "tasks" / "models" / "healing.py"


def texts(sequences: int = 2, tokens: int = 128) -> torch.Tensor:
    from transformers import AutoTokenizer

    ids = AutoTokenizer.from_pretrained(BASE_MODEL)(SOURCE.read_text())["input_ids"]
    return torch.tensor(ids[: sequences * tokens]).view(sequences, tokens)


def gradients(tuned: Any, ids: torch.Tensor, **settings: Any) -> tuple[float, torch.Tensor]:
    """Mean loss, and the gradients of all adapters as one."""
    fused = FusedModel(tuned, length=ids.shape[1], **settings)
    if settings.get("products") == "int8":
        calibrate(fused)
    fused.adapters.clear()
    loss = fused.loss_and_gradients(ids, ids, torch.tensor(1.0))
    return float(loss) / ids.numel(), fused.adapters.grads.clone()


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).norm() / second.norm())


def test_a_product_is_that_of_what_its_input_is_rounded_to() -> None:
    x, w, scales = torch.randn(30, 64), torch.randint(-127, 128, (24, 64), dtype=torch.int8), torch.rand(24) / 100
    x[:, 5] *= 100
    columns = int8.Apart.largest(x[:, :])
    read = int8.quantize(x, columns.factors, columns)
    assert 5 in columns.columns and columns.factors[5] == 0
    weights = w.float() * scales[:, None]
    right = weights.T[columns.columns.long()]
    out = torch.empty(30, 24)
    int8.product(read, w, scales, out, read.apart, right)
    rounded = read.codes.float() * read.scales[:, None]
    rounded[:, columns.columns.long()] = x[:, columns.columns.long()]
    torch.testing.assert_close(out, rounded @ weights.T)
    assert (rounded - x).abs().max() <= read.scales.max() / 2 + 1e-6


def test_few_columns_fill_no_list() -> None:
    x = torch.randn(3, 20)
    columns = int8.Apart.largest(x)
    assert columns.columns.tolist() == [*range(20), *[-1] * 12]
    assert torch.equal(columns.of(x)[:, :20], x) and not columns.of(x)[:, 20:].any()


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_an_overflow_stays_visible(value: float) -> None:
    """Else the gradient scaler would take the step."""
    dy = torch.randn(20, 40)
    dy[5, 7] = value
    out = torch.empty(20, 16)
    int8.product(int8.quantize(dy, torch.rand(40)), torch.randint(1, 99, (16, 40), dtype=torch.int8), None, out)
    assert not out[5].isfinite().any() and out[6:].isfinite().all()


@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_gradients_are_near_those_of_exact_products(targets: Any) -> None:
    tuned, ids = models.tiny("int8", targets), texts()
    exact_loss, exact = gradients(tuned, ids)
    loss, found = gradients(tuned, ids, products="int8")
    assert loss == pytest.approx(exact_loss, abs=0.02) and loss != exact_loss
    assert 0.001 < apart(found, exact) < 0.08


@pytest.mark.parametrize("changes", [{"checkpointed": 3}, {"checkpointed": 8}, {"resident": 5}])
def test_how_a_step_is_laid_out_changes_no_bit(changes: dict[str, int]) -> None:
    tuned, ids = models.tiny("int8", "all-linear"), texts()
    loss, found = gradients(tuned, ids, products="int8")
    again, same = gradients(tuned, ids, products="int8", **changes)
    assert loss == again and torch.equal(found, same)


def test_dropout_reaches_the_adapters() -> None:
    tuned, ids = models.tiny("int8", "all-linear"), texts()
    tuned.peft_config["default"].lora_dropout = 0.3
    tuned.train()
    found = []
    for settings in ({}, {"checkpointed": 8}):
        torch.manual_seed(5)
        found.append(gradients(tuned, ids, products="int8", **settings))
    torch.manual_seed(5)
    exact = gradients(tuned, ids)
    assert found[0][0] == found[1][0] and apart(found[0][1], found[1][1]) < 1e-5
    assert apart(found[0][1], exact[1]) < 0.08


def test_biases_and_shared_keys() -> None:
    """A model that is not quantized has its codes made here, as LLM.int8() makes them."""
    from bitsandbytes.nn import Int8Params, Linear8bitLt

    tuned = models.other("qwen2", ("q_proj", "v_proj"))
    for layer in tuned.get_base_model().model.layers:
        for parent in (layer.self_attn, layer.mlp):
            for name, child in list(parent.named_children()):
                linear = getattr(child, "base_layer", child)
                if not isinstance(linear, torch.nn.Linear):
                    continue
                made = Linear8bitLt(linear.in_features, linear.out_features, linear.bias is not None)
                made.weight = Int8Params(linear.weight.data.clone(), requires_grad=False)
                made.bias = linear.bias
                made = made.to("cpu")
                if child is linear:
                    setattr(parent, name, made)
                else:
                    child.base_layer = made
    ids, _ = models.texts(tuned)
    _, exact = gradients(tuned, ids)
    _, found = gradients(tuned, ids, products="int8")
    assert apart(found, exact) < 0.1


def test_the_columns_apart_are_the_same_whatever_was_learned() -> None:
    """A resumed run must go on with the numbers of the first one."""
    tuned = models.tiny("int8")
    chosen = []
    for _ in range(2):
        fused = FusedModel(tuned, products="int8", length=64)
        calibrate(fused)
        chosen.append([one._apart.columns for layer in fused.layers for one in _projections(layer)])
        with torch.no_grad():
            fused.adapters.masters.normal_()
    assert all(torch.equal(one, other) for one, other in zip(*chosen, strict=True))


def _projections(layer: model.DecoderLayer) -> list[Any]:
    return [layer.qkv, layer.o, layer.gate_up, layer.down]
