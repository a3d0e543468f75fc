"""A residual stream beyond 65,504 on a real GPU: products that write fp32, and training in fp16 that holds."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import StageError
from artifacts.schema import Quantization
from tasks.backends.contract import Decoding, Precision
from tasks.backends.fused import int8, ops
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.decoding import Decoder
from tasks.backends.fused.model import FusedModel
from tasks.exporting import ExportingConfig, run_exporting
from tests.small_model import BASE_MODEL, write_large
from tests.tasks.backends.fused import models
from tests.tasks.exporting import pieces
from tests.tasks.models.large import large_model
from tests.tasks.training import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]


def tuned(quantization: Quantization, targets: Any = "all-linear", *, kept: bool = True) -> Any:
    return models.tiny(quantization, targets, base=large_model(), fp32_residual=kept)


def test_products_write_their_sums_in_fp32() -> None:
    x, w = (100 * torch.randn(40, 256)).half().cuda(), (100 * torch.randn(72, 256)).half().cuda()
    made = ops.linear(x, w, torch.float32)
    exact = x.double() @ w.double().T
    assert made.dtype == torch.float32 and exact.abs().max() > 65_504
    assert (made - exact).norm() < 1e-5 * exact.norm()


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_loss_and_gradients_are_those_of_fp32(quantization: Quantization, targets: Any) -> None:
    model = tuned(quantization, targets)
    ids, labels = models.texts(model)
    exact = models.autograd_gradients(models.in_fp32(tuned(quantization, targets, kept=False)), ids.cpu(), labels.cpu())
    for captured in (False, True):
        found = models.engine_gradients(model, ids, labels, checkpointed=1, captured=captured)
        assert found.captured is captured and found.loss == pytest.approx(exact.loss, rel=1e-3)
        for name, gradient in exact.gradients.items():
            assert (found.gradients[name].float().cpu() - gradient).norm() < 2e-2 * gradient.norm(), name
    assert math.isnan(models.engine_gradients(tuned(quantization, targets, kept=False), ids, labels).loss)


@pytest.mark.parametrize("way", ["triton", "cublaslt"])
def test_products_in_int8_add_to_it(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(int8, "forced", way)
    model = tuned("int8")
    ids, labels = models.texts(model)
    found = []
    for products in ("fp16", "int8"):
        fused = FusedModel(model, length=20, products=products)  # type: ignore[arg-type]
        if products == "int8":
            calibrate(fused)
        with torch.no_grad():
            found.append(float(fused.loss_and_gradients(ids, labels, torch.tensor(1.0, device="cuda"))))
        fused.join()
    assert found[1] == pytest.approx(found[0], rel=1e-2)


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_answers_are_the_most_likely_in_fp32(quantization: Quantization) -> None:
    model = tuned(quantization)
    exact = models.in_fp32(tuned(quantization, kept=False))
    ids, _ = models.texts(model)
    prompt = ids[0, :9].tolist()
    decoder = Decoder(model, 40)
    (answer,) = decoder.generate([prompt], Decoding(1, 6, frozenset({2})), adapted=True)
    with torch.no_grad():
        logits = exact(input_ids=torch.tensor([prompt + answer])).logits[0, 8:-1]
    assert decoder.captured and (logits.amax(1) - logits[range(len(answer)), answer]).max() < 0.2


@pytest.mark.parametrize(("precision", "kept"), [("fp16", True), ("bf16", False)])
def test_exports_are_checked_alike(precision: Precision, kept: bool, tmp_path: Path) -> None:
    """Exports are compared in fp16, whatever the model was trained in."""
    write_large(tmp_path / "base", BASE_MODEL, 256)  # more, and the model's epsilon is beyond what a config may say
    made = pieces.make(tmp_path, tmp_path / "base")
    plan = pieces.CPU.model_copy(update={"device": "cuda", "precision": precision, "fp32_residual": kept})
    (tmp_path / "export").mkdir()
    inputs = made.inputs() | {"plan": plan}
    exported = run_exporting(ExportingConfig(quantization="int8"), **inputs, workdir=tmp_path / "export")
    assert all(0 <= form.comparison.largest_difference <= form.comparison.bound for form in exported.forms)
    assert kept == ("fp16 may overflow" in (exported.path / "merged" / "README.md").read_text())


@pytest.mark.parametrize("quantization", ["int8", "none"])
@pytest.mark.parametrize("backend", ["fused", "transformers"])
def test_training_in_fp16_holds(backend: str, quantization: Quantization, tmp_path: Path) -> None:
    """With the gradient scaler, and for the modules of transformers under autocast; as the same function with a small
    stream, whose adapters have the same part in it."""
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    config = jobs.CONFIG.model_copy(update={"max_steps": 12, "quantization": quantization, "learning_rate": 1e-3})
    fp16 = jobs.PLAN.model_copy(update={"device": "cuda", "precision": "fp16", "backend": backend})
    kept = fp16.model_copy(update={"fp32_residual": True})
    found = jobs.train_here(tmp_path / "kept", tokens, config, kept, large_model()).metrics
    small = jobs.train_here(tmp_path / "small", tokens, config, fp16, jobs.SMALL_MODEL).metrics
    assert found["loss"] == pytest.approx(small["loss"], rel=2e-2)
    assert sum(norm is None for norm in found["grad_norm"]) <= 3 and found["loss"][-1] < found["loss"][0]
    with pytest.raises(StageError, match="the loss is nan"):
        jobs.train_here(tmp_path / "fp16", tokens, config, fp16, large_model())
