"""A model whose residual stream passes 65,504, in fp16, with the stream in fp32 and without: here the products are in
plain torch, on a GPU those of `tests/gpu/test_residual_gpu.py`."""

from __future__ import annotations

import math
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.schema import Quantization
from tasks.backends.contract import Decoding
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.decoding import Decoder
from tasks.backends.fused.model import FusedModel
from tasks.models.residual import is_fp32
from tests.conftest import SMALL_MODEL
from tests.tasks.backends.fused import models
from tests.tasks.models.large import computing_in, large_model

pytestmark = pytest.mark.skipif(models.DEVICE == "cuda", reason="compares with fp32, as a CPU computes")


def tuned(
    folder: Path, dtype: torch.dtype, targets: Any = "all-linear", quantization: Quantization = "none", **plan: Any
) -> Any:
    with computing_in(dtype):
        return models.tiny(quantization, targets, base=folder, **plan)


def agree(found: models.Found, expected: models.Found, tolerance: float) -> None:
    assert found.loss == pytest.approx(expected.loss, rel=3e-4)
    for name, gradient in expected.gradients.items():
        assert (found.gradients[name].float() - gradient).norm() < tolerance * gradient.norm(), name


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_loss_and_gradients_are_those_of_fp32(quantization: Quantization, targets: Any) -> None:
    exact = tuned(large_model(), torch.float32, targets, quantization)
    ids, labels = models.texts(exact)
    expected = models.engine_gradients(exact, ids, labels)
    kept = tuned(large_model(), torch.float16, targets, quantization, fp32_residual=True)
    agree(models.engine_gradients(kept, ids, labels), expected, 1e-2)
    fails = tuned(large_model(), torch.float16, targets, quantization)
    assert math.isnan(models.engine_gradients(fails, ids, labels).loss)


def test_recomputed_layers_change_no_bit() -> None:
    kept = tuned(large_model(), torch.float16, fp32_residual=True)
    ids, labels = models.texts(kept)
    whole, again = (models.engine_gradients(kept, ids, labels, checkpointed=number) for number in (0, 2))
    assert whole.loss == again.loss
    assert all(torch.equal(one, again.gradients[name]) for name, one in whole.gradients.items())


def test_it_is_more_exact_also_where_nothing_overflows() -> None:
    """Of the same weights: the stream is rounded less often."""
    exact = tuned(SMALL_MODEL, torch.float32)
    ids, labels = models.texts(exact)
    expected = torch.cat([one.flatten() for one in models.engine_gradients(exact, ids, labels).gradients.values()])
    errors = []
    for kept in (True, False):
        model = tuned(SMALL_MODEL, torch.float16, fp32_residual=kept)
        assert is_fp32(model.get_base_model()) is kept
        found = models.engine_gradients(model, ids, labels).gradients.values()
        errors.append(float((torch.cat([one.flatten() for one in found]) - expected).norm() / expected.norm()))
    assert errors[0] < errors[1] < 5e-3


def test_products_in_int8_add_to_it_too() -> None:
    found = []
    for folder, dtype, kept in ((SMALL_MODEL, torch.float32, False), (large_model(), torch.float16, True)):
        model = tuned(folder, dtype, ("q_proj", "v_proj"), "int8", fp32_residual=kept)
        ids, labels = models.texts(model)
        fused = FusedModel(model, length=20, products="int8")
        calibrate(fused)
        found.append(float(fused.loss_and_gradients(ids, labels, torch.tensor(1.0))) / int((labels != -100).sum()))
    assert found[0] == pytest.approx(found[1], abs=2e-2)


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("adapted", [False, True])
def test_losses_and_answers_hold(quantization: Quantization, adapted: bool) -> None:
    """Every token of an answer in fp16 is the most likely in fp32, or nearly."""
    exact = tuned(large_model(), torch.float32, "all-linear", quantization)
    kept = Decoder(tuned(large_model(), torch.float16, "all-linear", quantization, fp32_residual=True), 40)
    ids, labels = models.texts(exact)
    losses = [one.losses(ids, labels, adapted=adapted).mean().item() for one in (Decoder(exact, 40), kept)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    prompt = ids[0, :9].tolist()
    (answer,) = kept.generate([prompt], Decoding(1, 6, frozenset({2})), adapted=adapted)
    with torch.no_grad(), nullcontext() if adapted else exact.disable_adapter():
        logits = exact(input_ids=torch.tensor([prompt + answer])).logits[0, 8:-1]
    assert (logits.amax(1) - logits[range(len(answer)), answer]).max() < 0.1
