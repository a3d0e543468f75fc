"""How long a step takes with the libraries' modules.

Anchors (H200, CodeLlama-7b, 1,024 tokens a step, ms): int8 1×4 with checkpointing 1659–2207, 4×1 with 537, 1×4 without
1299; nf4 1×4 with 1269, 4×1 without 257. There a pass is bound by launching kernels, so the time per layer and pass
dominates; on a T4 the arithmetic does.
"""

from __future__ import annotations

from artifacts.schema import Plan, Quantization
from tasks.backends.contract import JobShape, cpu_seconds
from tasks.machines.records import Gpu
from tasks.machines.specs import spec_of
from tasks.models.shape import ModelShape

EFFICIENCY = 0.4
"""Share of the data sheet that eager matrix products of this size reach."""

LAYER_MS: dict[Quantization, float] = {"int8": 9.5, "nf4": 6.5, "none": 4.5}
"""Time to launch one layer's kernels forward and backward, ms; fitted to the anchors. int8 waits for the GPU up to
twice per linear layer. `none` is not measured, but what the others have left without their dequantization."""

RECOMPUTED = 1.3
"""Launches with checkpointing over those without."""


def step_seconds(shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
    """Wall time of one optimizer step on a GPU, or on a number of CPU cores. None for an unknown GPU."""
    if isinstance(machine, int):
        return cpu_seconds(shape, job, plan, machine)
    spec = spec_of(machine)
    if spec is None:
        return None
    passes = 3 if plan.gradient_checkpointing else 2  # forward, gradients of the inputs, and the recomputation
    launches = LAYER_MS[job.quantization] / 1000 * shape.layers * (RECOMPUTED if plan.gradient_checkpointing else 1)
    arithmetic = 2 * passes * shape.parameters * job.step_tokens / plan.processes / (spec.teraflops * 1e12 * EFFICIENCY)
    # every pass reads each weight; a quantized one is also written and read again in 16 bits
    traffic = passes * shape.parameters * (2 if job.quantization == "none" else 5) / (spec.bandwidth * 1e9)
    return plan.accumulation * (launches + traffic) + arithmetic
