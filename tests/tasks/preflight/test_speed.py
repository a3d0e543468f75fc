"""Predicted times against what was measured on an H200 with CodeLlama-7b, 1,024 tokens a step."""

from __future__ import annotations

import pytest

from artifacts.schema import Plan
from tasks import backends
from tasks.backends.contract import JobShape
from tasks.backends.fused.speed import graph_seconds
from tasks.machines.records import Gpu
from tasks.machines.specs import SPECS, spec_of
from tasks.models.shape import ModelShape, llama_shape
from tests.tasks.preflight.machines import H200, T4, judged, machine


def _plan(micro_batch: int, checkpointing: bool) -> Plan:
    return Plan(
        device="cuda",
        precision="fp16",
        micro_batch=micro_batch,
        accumulation=4 // micro_batch,
        gradient_checkpointing=checkpointing,
        backend="transformers",
    )


def step_seconds(shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
    return backends.get(plan.backend).step_seconds(shape, job, plan, machine)


@pytest.mark.parametrize(
    ("quantization", "micro_batch", "checkpointing", "seconds"),
    [
        ("int8", 1, True, 1.9),
        ("int8", 4, True, 0.537),
        ("int8", 1, False, 1.299),
        ("nf4", 1, True, 1.269),
        ("nf4", 4, False, 0.257),
    ],
)
def test_measured_steps_are_met(
    seven: ModelShape, quantization: str, micro_batch: int, checkpointing: bool, seconds: float
) -> None:
    job = JobShape.model_validate({"quantization": quantization})
    assert step_seconds(seven, job, _plan(micro_batch, checkpointing), H200) == pytest.approx(seconds, rel=0.25)


ALL = {"lora_rank": 16, "lora_target_modules": ("all-linear",)}


@pytest.mark.parametrize(
    ("job", "core_seconds"),
    [
        ({}, 0.65),
        (ALL, 0.72),
        (ALL | {"max_length": 1024, "effective_batch": 1}, 0.97),
        (ALL | {"max_length": 1024, "effective_batch": 8}, 8.4),
        ({"max_length": 2048, "effective_batch": 2}, 4.8),
    ],
)
def test_a_small_model_on_cores(tiny: ModelShape, job: dict[str, object], core_seconds: float) -> None:
    """Measured: processor time of the fused backend on one thread."""
    shape = JobShape.model_validate(job)
    plan = Plan(
        device="cpu",
        precision="fp32",
        micro_batch=shape.effective_batch,
        accumulation=1,
        gradient_checkpointing=False,
        backend="fused",
    )
    one, two = (step_seconds(tiny, shape, plan, cores) or 0 for cores in (1, 2))
    assert one == pytest.approx(core_seconds, rel=0.1) and two == pytest.approx(core_seconds / 2, rel=0.15)


def test_a_t4_is_slower_than_an_h200(seven: ModelShape) -> None:
    slow, fast = (step_seconds(seven, JobShape(), _plan(4, True), gpu) for gpu in (T4, H200))
    assert slow is not None and fast is not None and slow > 3 * fast


def test_cards_are_known_by_name_then_by_generation() -> None:
    assert spec_of(T4) is SPECS["T4"]
    assert spec_of(H200.model_copy(update={"name": "NVIDIA A10G"})) is SPECS["A10"]
    assert spec_of(T4.model_copy(update={"name": "Quadro RTX 5000"})) is SPECS["T4"]
    assert spec_of(T4.model_copy(update={"name": "Future", "capability": (42, 0)})) is None


def _fused(gpu: Gpu, shape: ModelShape, **changes: object) -> float:
    plan = _plan(4, False).model_copy(update={"backend": "fused", **changes})
    return step_seconds(shape, JobShape(), plan, gpu) or 0


def test_fused_on_an_h200(seven: ModelShape) -> None:
    assert _fused(H200, seven) == pytest.approx(0.0565, rel=0.15)


NAMES = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads", "num_key_value_heads")
NAMES += ("vocab_size",)


@pytest.mark.parametrize(
    ("sizes", "sequences", "seconds"),
    [((576, 30, 1536, 9, 3, 49152), 8, 0.0371), ((1536, 28, 8960, 12, 2, 32016), 4, 0.0711)],
    ids=["SmolLM2-135M", "1.5b"],
)
def test_adapters_on_all_layers(sizes: tuple[int, ...], sequences: int, seconds: float) -> None:
    """As `own-code` trains: 1,024 tokens a sequence, r=16."""
    settings = {"quantization": "none", "lora_rank": 16, "lora_target_modules": ("all-linear",), "max_length": 1024}
    shape = llama_shape({"model_type": "llama", **dict(zip(NAMES, sizes, strict=True))})
    job = JobShape.model_validate(settings | {"effective_batch": sequences})
    plan = _plan(4, False).model_copy(update={"backend": "fused", "micro_batch": sequences, "accumulation": 1})
    assert step_seconds(shape, job, plan, H200) == pytest.approx(seconds, rel=0.15)


def test_what_costs_time(seven: ModelShape) -> None:
    plain = _fused(H200, seven)
    assert _fused(H200, seven, resident_layers=32) == pytest.approx(plain - 0.010, abs=0.001)
    some, every = (
        _fused(H200, seven, gradient_checkpointing=True, checkpointed_layers=number) - plain for number in (8, None)
    )
    assert every == pytest.approx(4 * some) and 0.4 < every / plain < 0.6
    assert _fused(H200, seven, micro_batch=1, accumulation=4) > 1.5 * plain


def test_a_t4_is_projected_at_about_a_second(seven: ModelShape) -> None:
    assert 0.8 < _fused(T4, seven) < 2


def test_products_in_int8_take_less_time(seven: ModelShape) -> None:
    assert _fused(H200, seven, products="int8", resident_layers=9) == pytest.approx(0.038, rel=0.1)
    plain, fast = (judged(seven, machine(T4), JobShape(products=mode)).prediction for mode in ("fp16", "int8"))
    assert plain.step_seconds == pytest.approx(1.28, rel=0.02)  # as docs/performance.md has it
    assert fast.step_seconds == pytest.approx(0.994, rel=0.02)


def test_a_t4_leaves_sums_in_memory(seven: ModelShape) -> None:
    plan = _plan(4, False).model_copy(update={"backend": "fused", "products": "int8"})
    old, new = (graph_seconds(seven, JobShape(), plan, SPECS[name]) for name in ("T4", "H200"))
    plain = graph_seconds(seven, JobShape(), plan.model_copy(update={"products": "fp16"}), SPECS["T4"])
    assert old["sums in 32 bits"] > 0.1 > new["sums in 32 bits"] == plain["sums in 32 bits"] == 0
    products = "products of frozen layers"
    assert plain[products] == pytest.approx(1.5 * old[products]) and "dequantizing" in plain
    assert old["transposing codes"] < plain["dequantizing"] / 2
