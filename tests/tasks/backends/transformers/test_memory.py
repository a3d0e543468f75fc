"""The memory model meets what was measured: CodeLlama-7b on an H200, 256 tokens a sequence (GiB, torch's figures)."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.backends.contract import JobShape, Layout
from tasks.backends.transformers.memory import TransformersMemory
from tasks.models.shape import ModelShape
from tests.tasks.preflight.machines import four_layers


def _memory(shape: ModelShape, quantization: str) -> TransformersMemory:
    return TransformersMemory(shape, JobShape.model_validate({"quantization": quantization}), "fp16", on_gpu=True)


DOUBLE_QUANTIZED = 0.28
"""GiB of scales that nf4's anchors were taken without."""


@pytest.mark.parametrize(
    ("quantization", "micro_batch", "checkpointing", "measured", "within"),
    [
        ("int8", 1, True, 7.5, 0.05),
        ("int8", 4, True, 9.4, 0.05),
        ("int8", 4, True, 9.3, 0.05),
        ("int8", 1, False, 8.6, 0.05),
        ("nf4", 1, True, 3.9 + DOUBLE_QUANTIZED, 0.05),
        ("nf4", 4, False, 8.6 + DOUBLE_QUANTIZED, 0.05),
    ],
)
def test_measured_peaks_are_met(
    seven: ModelShape, quantization: str, micro_batch: int, checkpointing: bool, measured: float, within: float
) -> None:
    choice = Layout(micro_batch, seven.layers if checkpointing else 0)
    assert _memory(seven, quantization).peak_gib(choice) == pytest.approx(measured, rel=within)


def test_int8_without_checkpointing_does_not_fit_a_t4(seven: ModelShape) -> None:
    assert _memory(seven, "int8").needed_gib(Layout(4)) > 14.56


def test_texts_in_one_sequence_cost_a_mask_for_each_layer(seven: ModelShape) -> None:
    alone, packed = (
        TransformersMemory(seven, JobShape(max_length=1024, packed=flag), "fp16", on_gpu=True) for flag in (False, True)
    )
    more = packed.peak_gib(Layout(2)) - alone.peak_gib(Layout(2))
    assert more == pytest.approx(32 * 2 * 2 * 1024**2 / 2**30, rel=0.1)


def test_weights_are_the_sum_of_their_parts(seven: ModelShape) -> None:
    weights = {kind: _memory(seven, kind).weights for kind in ("int8", "nf4", "none")}
    assert weights["none"] == 2 * 6_738_546_688
    assert weights["nf4"] < 0.62 * weights["int8"] < 0.62 * weights["none"]


def test_memory_grows_with_the_batch_and_shrinks_with_checkpointing(seven: ModelShape) -> None:
    for quantization in ("int8", "nf4", "none"):
        peak: Any = _memory(seven, quantization).peak_gib
        assert peak(Layout(1, 32)) < peak(Layout(4, 32)) < peak(Layout(4))


def test_a_small_model_on_a_cpu(tiny: ModelShape) -> None:
    memory = TransformersMemory(tiny, JobShape(), "fp32", on_gpu=False)
    assert memory.peak_gib(Layout(4)) == memory.needed_gib(Layout(4)) == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize(
    ("vocabulary", "hidden", "measured"),
    [(32_000, 576, 1.99), (49_152, 576, 2.04), (49_152, 576, 2.10), (152_064, 896, 2.78)],
)
def test_resident_memory_on_a_cpu_reckons_with_the_vocabulary(vocabulary: int, hidden: int, measured: float) -> None:
    """4 layers, 4 × 256 tokens, not quantized: what the training process took at its peak, GiB."""
    shape = four_layers(vocabulary, hidden)
    memory = TransformersMemory(shape, JobShape(quantization="none"), "fp32", on_gpu=False)
    assert 0.98 < memory.peak_gib(Layout(4)) / measured < 1.1
