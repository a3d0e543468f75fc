"""Decoding on a real GPU: its kernels against fp32, the recorded step against the same step kernel by kernel, and its
answers against those of unquantized modules."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch

from artifacts.schema import Quantization
from tasks.backends.contract import Decoding
from tasks.backends.fused import ops
from tasks.backends.fused.decoding import Decoder
from tasks.backends.fused.slots import DecodingStep
from tests.tasks.backends.fused import models

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
TOLERANCE = 2e-3
"""Relative error of fp16 against fp32."""


def error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double().cpu() - expected.double().cpu()).norm() / expected.double().norm().cpu())


def prompts(count: int) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(3, 1000) for _ in range(rng.randrange(1, 90))] for _ in range(count)]


@pytest.mark.parametrize("rows", [1, 7, 16, 33, 64])
@pytest.mark.parametrize(("outputs", "columns"), [(4096, 4096), (4096, 11008), (12288, 4096), (130, 300)])
def test_product_of_few_rows(rows: int, outputs: int, columns: int) -> None:
    x = torch.randn(rows, columns)
    x[:, torch.randperm(columns)[:3]] *= 20
    codes = torch.randint(-127, 128, (outputs, columns), dtype=torch.int8)
    scales = torch.rand(outputs) / 1000
    x = x.half()
    found = ops.int8_linear(x.cuda(), codes.cuda(), scales.cuda())
    assert found.dtype == torch.float16 and error(found, ops.int8_linear(x.float(), codes, scales)) < TOLERANCE
    assert torch.equal(found, ops.int8_linear(x.cuda(), codes.cuda(), scales.cuda())), "sums in another order"


@pytest.mark.parametrize(("heads", "kv_heads", "width"), [(32, 32, 128), (8, 2, 64), (4, 4, 64)])
def test_attention_to_the_cache(heads: int, kv_heads: int, width: int) -> None:
    q, cache = torch.randn(5, heads, width).half(), torch.randn(5, 304, 2, kv_heads, width).half()
    positions = torch.tensor([0, 31, 32, 200, 303])
    wide = torch.zeros(5, heads * width + 64, dtype=torch.float16, device="cuda")
    wide[:, : heads * width] = q.flatten(1)
    beyond = cache.clone()
    beyond[0, 1:] = float("nan")
    found = ops.cached_attention(wide[:, : heads * width].view(5, heads, width), beyond.cuda(), positions.cuda())
    assert error(found, ops.cached_attention(q.float(), cache.float(), positions)) < TOLERANCE


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
@pytest.mark.parametrize("rows", [8, 80])
def test_recorded_steps_are_those_kernel_by_kernel(
    quantization: Quantization, targets: Any, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also with more rows than `int8_linear` takes, where weights are unpacked on a stream of their own."""
    model = models.outliers(quantization, targets, layers=2)
    asked, settings = prompts(90), Decoding(batch_size=rows, max_new_tokens=20, stop=frozenset(range(0, 1000, 50)))
    recorded = Decoder(model, 110)
    found = {adapted: recorded.generate(asked, settings, adapted=adapted) for adapted in (True, False)}
    assert recorded.captured and found[True] != found[False]
    monkeypatch.setattr(DecodingStep, "_record", lambda _: None)
    eager = Decoder(model, 110)
    assert {adapted: eager.generate(asked, settings, adapted=adapted) for adapted in (True, False)} == found
    assert not eager.captured


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("adapted", [True, False])
def test_answers_are_the_likeliest_of_the_same_weights(quantization: Quantization, adapted: bool) -> None:
    """Against modules in fp32 on the very weights that the engine unpacks: each token is the likeliest, or so near it
    that fp16 cannot tell."""
    model = models.outliers(quantization, "all-linear", layers=2)
    reference = models.in_fp32(model)
    asked = prompts(12)
    found = Decoder(model, 110).generate(asked, Decoding(4, 10, frozenset()), adapted=adapted)
    if not adapted:
        reference = reference.unload()
    with torch.no_grad():
        for prompt, answer in zip(asked, found, strict=True):
            logits = reference(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
            missed = logits.max(1).values - logits.gather(1, torch.tensor(answer)[:, None])[:, 0]
            assert missed.max() < 1e-2 * logits.abs().max()


@pytest.mark.parametrize("adapted", [True, False])
def test_losses_against_fp32(adapted: bool) -> None:
    model = models.outliers("int8", ("q_proj", "v_proj"), layers=2)
    ids, labels = models.texts(model, sequences=2, tokens=128)
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=ops.IGNORED)
    reference = models.in_fp32(model)
    losses = Decoder(model, 128).losses(ids, following, adapted=adapted)
    if not adapted:
        reference = reference.unload()
    with torch.no_grad():
        expected = reference(input_ids=ids.cpu(), labels=labels.cpu()).loss * (following != ops.IGNORED).sum().cpu()
    assert losses.double().sum().item() == pytest.approx(expected.item(), rel=1e-3)
