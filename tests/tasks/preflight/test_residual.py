"""When the residual stream is kept in fp32, and what that takes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.errors import InputError
from artifacts.schema import Plan
from tasks.backends.contract import JobShape
from tasks.machines.records import Gpu
from tasks.models.shape import ModelShape
from tasks.preflight.view import plan_rows
from tasks.training.fallback import next_plan
from tests.tasks.preflight.machines import CODE_LLAMA, H200, QWEN_CODER, T4, judged, machine, shape_of

PLAIN = JobShape(quantization="none", max_length=1024, effective_batch=8)


def planned(shape: ModelShape, *gpus: Gpu, job: JobShape = PLAIN, **settings: Any) -> Plan:
    return judged(shape, machine(*gpus), job, **settings).plan


def test_auto_keeps_it_for_models_that_overflow_where_fp16_is_computed_in(tmp_path: Path) -> None:
    qwen, llama = shape_of(tmp_path / "qwen", QWEN_CODER), shape_of(tmp_path / "llama", CODE_LLAMA)
    assert planned(qwen, T4).fp32_residual and planned(qwen, T4, job=JobShape()).fp32_residual
    assert not planned(qwen, H200).fp32_residual  # bf16 ends at 3e38
    assert not planned(qwen, T4, job=JobShape(), precision="fp32").fp32_residual
    assert not planned(qwen, T4, fp32_residual=False).fp32_residual
    assert not planned(llama, T4, job=JobShape()).fp32_residual
    assert planned(llama, T4, job=JobShape(), fp32_residual=True).fp32_residual
    assert planned(qwen, H200, fp32_residual=True).fp32_residual


def test_preflight_says_what_overflows(tmp_path: Path) -> None:
    qwen = shape_of(tmp_path / "qwen", QWEN_CODER)
    kept, off = (judged(qwen, machine(T4), PLAIN, fp32_residual=wanted).checks for wanted in ("auto", False))
    assert next(one for one in kept if one.name == "precision").finding == "fp16 on sm_75, the residual stream in fp32"
    warned = next(one for one in off if one.name == "precision")
    assert warned.verdict == "warning" and "qwen2" in warned.finding and "fp32_residual=auto" in warned.remedy


def test_a_cpu_needs_none(tiny: ModelShape) -> None:
    plan = judged(tiny, machine(), fp32_residual=True).plan
    assert plan.precision == "fp32" and not plan.fp32_residual


def test_it_is_part_of_the_plan_and_stays_when_memory_runs_out(seven: ModelShape) -> None:
    without, kept = (planned(seven, T4, job=JobShape(), fp32_residual=wanted) for wanted in (False, True))
    assert without.fingerprint != kept.fingerprint
    # plans that were made before there was such a thing keep their keys
    old = without.model_dump(mode="json", exclude={"fp32_residual", "gpu_memory_gib", "resident_layers"})
    assert without.fingerprint == digest.of_json(old) == planned(seven, T4, job=JobShape()).fingerprint
    assert dict(plan_rows(kept))["arithmetic"] == "fp16 with a residual stream in fp32"
    smaller = next_plan(kept)
    assert smaller and smaller.fp32_residual


def test_models_that_cannot_have_it_are_named(tmp_path: Path) -> None:
    shape = shape_of(tmp_path / "model", QWEN_CODER | {"model_type": "starcoder2"})
    with pytest.raises(InputError, match="starcoder2") as refused:
        planned(shape, T4, fp32_residual=True)
    assert refused.value.field == "preflight.fp32_residual"
