"""The engine on a real GPU: its kernels and its gradients against the same computation in fp32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.schema import Quantization
from tasks.backends.fused import ops
from tests.tasks.backends.fused import models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
TOLERANCE = 2e-3
"""Relative error of fp16 against fp32."""


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double().cpu() - expected.double().cpu()).norm() / expected.double().norm().cpu())


def both(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Random numbers with outlier channels, fp16 on the GPU, and the same in fp32 on the host."""
    values = torch.randn(*shape)
    values[..., torch.randperm(shape[-1])[:3]] *= 20
    values = values.half()
    return values.cuda(), values.float()


@pytest.mark.parametrize("columns", [256, 1000, 4096, 11008])
def test_dequantization_is_rounded_once(columns: int) -> None:
    codes = torch.randint(-127, 128, (97, columns), dtype=torch.int8)
    scales = torch.rand(97) / 127
    out = torch.full((97, columns), float("nan"), dtype=torch.float16, device="cuda")
    ops.dequantize_int8(codes.cuda(), scales.cuda(), out)
    torch.testing.assert_close(out.cpu(), (codes.float() * scales[:, None]).half(), rtol=0, atol=0)


@pytest.mark.parametrize("width", [64, 1000, 4096])
@pytest.mark.parametrize("added", [False, True])
def test_norm_forward_and_backward(width: int, added: bool) -> None:
    (x, x32), (r, r32), (w, w32), (dy, dy32) = both(37, width), both(37, width), both(width), both(37, width)
    out, rstd = ops.rms_norm(x, w, 1e-5, r if added else None)
    out32, rstd32 = ops.rms_norm(x32, w32, 1e-5, r32 if added else None)
    assert error(out, out32) < TOLERANCE and error(rstd, rstd32) < 1e-3 and error(x, x32) < TOLERANCE
    again, again32 = torch.empty_like(dy), torch.empty_like(dy32)
    ops.rms_norm_backward(dy, x, w, rstd, r, r, again)
    ops.rms_norm_backward(dy32, x32, w32, rstd32, r32, r32, again32)
    assert error(r, r32) < TOLERANCE and error(again, again32) < TOLERANCE


@pytest.mark.parametrize(("heads", "width"), [(4, 64), (3, 128), (32, 128)])
def test_rotation_and_back(heads: int, width: int) -> None:
    x, x32 = both(50, heads * width + 16)
    angles = torch.rand(25, width // 2) * 6
    pair = angles.cos(), angles.sin()
    on_gpu = pair[0].cuda(), pair[1].cuda()
    before = x.clone()
    for one, tables in ((x, on_gpu), (x32, pair)):
        ops.rotate(one[:, : heads * width].unflatten(1, (heads, width)), tables, 25)
    assert error(x, x32) < TOLERANCE
    turned = x[:, : heads * width].unflatten(1, (heads, width))
    target = torch.full((50, 3 * heads * width + 8), float("nan"), dtype=torch.float16, device="cuda")
    ops.rotate_back([turned, turned, turned], target, on_gpu, 25)
    q, k, v = target[:, : 3 * heads * width].chunk(3, dim=1)
    same = before[:, : heads * width]
    assert error(q, same) < TOLERANCE and error(k, same) < TOLERANCE
    assert torch.equal(v, turned.flatten(1)) and target[:, 3 * heads * width :].isnan().all()


def test_activation_forward_and_backward() -> None:
    (x, x32), (dy, dy32) = both(33, 2 * 1100 + 8), both(33, 1100)
    assert error(ops.swiglu(x, 1100), ops.swiglu(x32, 1100)) < TOLERANCE
    ops.swiglu_backward(dy, x)
    ops.swiglu_backward(dy32, x32)
    assert error(x, x32) < TOLERANCE


@pytest.mark.parametrize("vocabulary", [300, 32016, 100_000])
def test_loss_and_its_gradient(vocabulary: int) -> None:
    logits, logits32 = both(19, vocabulary)
    labels = torch.randint(0, vocabulary, (19,))
    labels[3] = ops.IGNORED
    factor = torch.tensor(64.0)
    losses = ops.cross_entropy(logits, labels.cuda(), factor.cuda())
    losses32 = ops.cross_entropy(logits32, labels, factor)
    assert error(losses, losses32) < 1e-5 and error(logits, logits32) < TOLERANCE
    assert losses[3] == 0 and not logits[3].any()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kv_heads", [8, 2])
def test_attention_forward_and_backward(kv_heads: int, packed: bool) -> None:
    """Also of several texts in a sequence, one of which begins far behind the first keys."""
    length = 203 if packed else 40
    shapes = ((2, length, 8, 64), (2, length, kv_heads, 64), (2, length, kv_heads, 64))
    positions = torch.arange(length).repeat(2, 1)
    for row, cut in ((0, 7), (1, length - 30)):
        positions[row, cut:] = torch.arange(length - cut)
    made = [both(*shape) for shape in shapes]
    dout, dout32 = both(*shapes[0])
    results = []
    for index, gradient in ((0, dout), (1, dout32)):
        inputs = [pair[index] / 8 for pair in made]
        apart = ops.texts_apart(positions.to(gradient.device), gradient.dtype) if packed else None
        out, rest = ops.attention(*inputs, apart)
        results.append([out, *ops.attention_backward(gradient, *inputs, out, rest)])
    for found, expected in zip(*results, strict=True):
        assert error(found, expected) < 2 * TOLERANCE


def test_packed_texts_are_recorded_in_one_graph() -> None:
    """Whatever their lengths: the same losses and gradients as kernel by kernel, and as each text alone."""
    from tasks.backends.fused.capture import MicroBatch
    from tasks.backends.fused.model import FusedModel

    model = models.outliers("int8", "all-linear", layers=2)
    fused = FusedModel(model, length=128)
    batch, factor = MicroBatch(fused, (2, 128), packed=True), torch.tensor(1.0, device="cuda")
    assert batch.captured
    for cuts in ((5, 64), (100, 127), (1, 2)):
        ids, labels = models.texts(model, sequences=2, tokens=128)
        positions = torch.arange(128, device=ids.device).repeat(2, 1)
        for row, cut in enumerate(cuts):
            positions[row, cut:] = torch.arange(128 - cut)
            labels[row, cut] = ops.IGNORED
        losses, gradients = [], []
        for run in (batch.run, fused.loss_and_gradients):
            fused.adapters.clear()
            losses.append(float(run(ids, labels, factor, positions)))
            gradients.append(fused.adapters.grads.clone())
        fused.adapters.clear()
        alone = 0.0
        for row, cut in enumerate(cuts):
            for part in (slice(0, cut), slice(cut, 128)):
                size = ids[row, part].numel()
                text, counted = torch.zeros_like(ids), torch.full_like(labels, ops.IGNORED)
                text[0, :size], counted[0, :size] = ids[row, part], labels[row, part]
                alone += float(fused.loss_and_gradients(text, counted, factor))
        assert losses == pytest.approx([alone] * 2, rel=2e-3)
        for found in gradients:
            assert error(found, fused.adapters.grads) < 4 * TOLERANCE


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize(
    ("targets", "checkpointed"), [(["q_proj", "v_proj"], 0), (["q_proj", "v_proj"], 2), ("all-linear", 1)]
)
def test_loss_and_adapter_gradients_against_fp32(quantization: Quantization, targets: Any, checkpointed: int) -> None:
    """Against autograd in fp32 on the very weights that the engine dequantizes to, with outlier channels."""
    model = models.outliers(quantization, targets, layers=1 + (checkpointed > 0))
    ids, labels = models.texts(model, sequences=2, tokens=128)
    found = models.engine_gradients(model, ids, labels, checkpointed=checkpointed, captured=True)
    expected = models.autograd_gradients(models.in_fp32(model), ids.cpu(), labels.cpu())
    assert found.captured
    assert found.loss == pytest.approx(expected.loss, rel=1e-3)
    names = list(expected.gradients)
    whole = [torch.cat([one.gradients[name].flatten().cpu() for name in names]) for one in (found, expected)]
    assert error(*whole) < TOLERANCE
    for name in names:
        assert error(found.gradients[name], expected.gradients[name]) < 2 * TOLERANCE, name


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("kept", [False, True])
def test_product_and_gradients_of_quantized_layers(quantization: Quantization, kept: bool) -> None:
    """q, k and v as one product with their adapters, on inputs with outlier channels, against fp32."""
    from tasks.backends.fused.model import FusedModel

    model = models.outliers(quantization, ("q_proj", "v_proj"), layers=1)
    plain = models.in_fp32(model).base_model.model.model.layers[0].self_attn
    projection = FusedModel(model, resident=int(kept), length=8).layers[0].qkv
    (x, x32), (dy, dy32) = both(96, 512), both(96, projection.rows)
    y = projection.forward(x)
    x32.requires_grad_()
    y32 = torch.cat([layer(x32) for layer in (plain.q_proj, plain.k_proj, plain.v_proj)], dim=1)
    assert error(y[:, : projection.rows], y32.detach()) < TOLERANCE
    wide = torch.empty_like(y)
    wide[:, : projection.rows] = dy
    dx = projection.backward(wide, y[:, projection.rows :], None)
    projection.factor_gradients(wide, x)
    y32.backward(dy32)
    assert dx is not None and x32.grad is not None
    assert error(dx, x32.grad) < TOLERANCE
    for one, layer in zip(projection.adapted, (plain.q_proj, plain.v_proj), strict=True):
        assert error(one.adapter.a_grad, layer.lora_A["default"].weight.grad) < TOLERANCE
        assert error(one.adapter.b_grad, layer.lora_B["default"].weight.grad) < TOLERANCE
