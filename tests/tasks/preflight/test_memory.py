"""The memory model meets what was measured: CodeLlama-7b on an H200, 256 tokens a sequence (GiB, torch's figures)."""

from __future__ import annotations

import pytest

from tasks.preflight.job import JobShape
from tasks.preflight.memory import CONTEXT_GIB, MemoryModel
from tasks.preflight.shape import ModelShape


def _peak(shape: ModelShape, quantization: str, micro_batch: int, checkpointing: bool) -> float:
    job = JobShape.model_validate({"quantization": quantization})
    return MemoryModel(shape, job, "fp16", on_gpu=True).peak_gib(micro_batch, checkpointing)


@pytest.mark.parametrize(
    ("quantization", "micro_batch", "checkpointing", "measured"),
    [
        ("int8", 1, True, 7.5),
        ("int8", 4, True, 9.4),
        ("int8", 1, False, 8.6),
        ("nf4", 1, True, 3.9),
        ("nf4", 4, False, 8.6),
    ],
)
def test_measured_peaks_are_met(
    seven: ModelShape, quantization: str, micro_batch: int, checkpointing: bool, measured: float
) -> None:
    predicted = _peak(seven, quantization, micro_batch, checkpointing) - CONTEXT_GIB
    assert predicted == pytest.approx(measured, rel=0.15)


def test_stock_int8_without_checkpointing_does_not_fit_a_t4(seven: ModelShape) -> None:
    assert _peak(seven, "int8", 4, False) > 14.56


def test_weights_are_the_sum_of_their_parts(seven: ModelShape) -> None:
    weights = {q: MemoryModel(seven, JobShape(quantization=q), "fp16", True).weights for q in ("int8", "nf4", "none")}  # type: ignore[arg-type]
    assert weights["none"] == 2 * 6_738_546_688
    assert weights["nf4"] < 0.62 * weights["int8"] < 0.62 * weights["none"]


def test_memory_grows_with_the_batch_and_shrinks_with_checkpointing(seven: ModelShape) -> None:
    for quantization in ("int8", "nf4", "none"):
        assert _peak(seven, quantization, 1, True) < _peak(seven, quantization, 4, True)
        assert _peak(seven, quantization, 4, True) < _peak(seven, quantization, 4, False)


def test_a_small_model_on_a_cpu(tiny: ModelShape) -> None:
    assert MemoryModel(tiny, JobShape(), "fp32", on_gpu=False).peak_gib(4, False) == pytest.approx(1.0, rel=0.15)
