"""How long a step will take: a roofline for cards that are known, a measured constant for CPUs, None otherwise.

Stock engine, anchors (H200, CodeLlama-7b, 1,024 tokens a step, ms): int8 1×4 with checkpointing 1659–2207, 4×1 with
537, 1×4 without 1299; nf4 1×4 with 1269, 4×1 without 257. There a pass is bound by launching kernels, so the time per
layer and pass dominates; on a T4 the arithmetic does.

Fused engine, anchor (H200, CodeLlama-7b, int8, 4×1 of 256 tokens, one CUDA graph, ms): 56, of which products 36,
unpacking weights 7 to 10, attention 3.5 to 4.5, other kernels 6. Cards other than the H200 are projected from their
data sheets.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.schema import Plan, Quantization
from tasks.preflight.config import JobShape
from tasks.preflight.machine import Gpu
from tasks.preflight.shape import ModelShape


@dataclass(frozen=True)
class GpuSpec:
    """Figures of the data sheet."""

    teraflops: float
    """Dense 16-bit matrix products, TFLOP/s."""
    bandwidth: float
    """GB/s."""
    sustained: float = 0.55
    """Share of `teraflops` that large products reach when nothing else holds them up; assumed where not measured."""


CARDS = {
    "H200": GpuSpec(989, 4800, 0.76),
    "H100": GpuSpec(989, 3350, 0.7),
    "A100": GpuSpec(312, 1555),
    "A10": GpuSpec(125, 600),
    "L40": GpuSpec(181, 864),
    "L4": GpuSpec(121, 300),
    "V100": GpuSpec(112, 900),
    "T4": GpuSpec(65, 320, 0.4),
}
"""By a word of the card's name. H200's share is measured (750 TFLOP/s); a T4 is held to its 70 W, which leaves it about
26 TFLOP/s."""

GENERIC = {(7, 0): CARDS["V100"], (7, 5): CARDS["T4"], (8, 0): CARDS["A100"], (8, 6): CARDS["A10"]}
GENERIC |= {(8, 9): CARDS["L4"], (9, 0): CARDS["H100"]}
"""By compute capability, for names not in the list: the slowest data-centre card of that generation."""

EFFICIENCY = 0.4
"""Share of the data sheet that eager matrix products of this size reach."""

LAYER_MS: dict[Quantization, float] = {"int8": 9.5, "nf4": 6.5, "none": 4.5}
"""Time to launch one layer's kernels forward and backward, ms; fitted to the anchors. int8 waits for the GPU up to
twice per linear layer. `none` is not measured, but what the others have left without their dequantization."""

RECOMPUTED = 1.3
"""Launches with checkpointing over those without."""

CPU_SECONDS = 2.4e-11 * 2
"""Core-seconds per parameter and token, forward and backward: 0.17 s for 6.8M parameters, 1,024 tokens, 2 cores."""

CPU_STEP_SECONDS = 0.03
"""What a step costs on a CPU whatever its size: the trainer, optimizer and log."""


STREAMING = 0.8
"""Share of the data sheet's bandwidth that the fused engine's kernels reach: 3.9 TB/s on an H200."""

STORED_BYTES: dict[Quantization, float] = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Read per weight when it is unpacked; two are written."""

ATTENTION_SHARE = 0.12
"""Of `teraflops`, in the memory-efficient attention kernels: 3.5 ms of the anchor, less their reading and writing."""

LAYER_KERNELS = 40
"""Kernels of a layer, forward and backward, each with a start of `KERNEL_SECONDS` inside a CUDA graph."""

KERNEL_SECONDS = 2e-6

STEP_SECONDS = 0.0005
"""What a step costs on a GPU beside its micro-batches: optimizer and clipping, since the trainer's loop goes on beside
the next one. Measured: 0.35 ms."""


def step_seconds(shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
    """Wall time of one optimizer step on a card, or on a number of CPU cores. None for an unknown card."""
    passes = 3 if plan.gradient_checkpointing else 2  # forward, gradients of the inputs, and the recomputation
    if isinstance(machine, int):
        work = CPU_SECONDS * shape.parameters * job.step_tokens / machine
        return work * passes / 2 + plan.accumulation * CPU_STEP_SECONDS
    card = card_of(machine)
    if card is None:
        return None
    if plan.engine == "fused":
        return plan.accumulation * fused_seconds(shape, job, plan, card) + STEP_SECONDS
    launches = LAYER_MS[job.quantization] / 1000 * shape.layers * (RECOMPUTED if plan.gradient_checkpointing else 1)
    arithmetic = 2 * passes * shape.parameters * job.step_tokens / plan.processes / (card.teraflops * 1e12 * EFFICIENCY)
    # every pass reads each weight; a quantized one is also written and read again in 16 bits
    traffic = passes * shape.parameters * (2 if job.quantization == "none" else 5) / (card.bandwidth * 1e9)
    return plan.accumulation * (launches + traffic) + arithmetic


def fused_seconds(shape: ModelShape, job: JobShape, plan: Plan, card: GpuSpec) -> float:
    """One micro-batch of the fused engine, as one CUDA graph."""
    layers, tokens = shape.layers, plan.micro_batch * job.max_length
    recomputed = (layers if plan.recomputed_layers is None else plan.recomputed_layers) / layers
    again = recomputed if plan.gradient_checkpointing else 0
    passes = 2 + again
    weights = passes * shape.linear_parameters + 2 * shape.vocabulary * shape.hidden
    rate, flow = card.teraflops * 1e12, card.bandwidth * 1e9 * STREAMING
    # few tokens: a product takes as long as reading its weights
    products = weights * max(2 * tokens / (rate * card.sustained), 2 / flow)
    stored = STORED_BYTES.get(job.quantization)
    packed = 1 - plan.unpacked_layers / layers
    unpacking = passes * shape.linear_parameters * packed * (stored + 2) / flow if stored else 0
    queries, mlp = shape.kind("self_attn.q_proj").outputs, shape.kind("mlp.gate_proj").outputs
    # multiply-adds of half the square: 2 in the forward pass, 5 in the backward pass; numbers: 4 and 12 of q's size
    attention = (7 + 2 * again) * job.max_length * queries / (rate * ATTENTION_SHARE)
    attention += (16 + 4 * again) * queries * 2 / flow
    rest = (1 + again / 3) * (20 * shape.hidden + 10 * mlp) * 2 / flow
    starts = (1 + again / 3) * layers * LAYER_KERNELS * KERNEL_SECONDS
    return products + unpacking + layers * tokens * (attention + rest) + starts


def card_of(gpu: Gpu) -> GpuSpec | None:
    """The figures for a card, by name, else by generation."""
    words = gpu.name.replace("-", " ").split()
    named = (card for word, card in CARDS.items() if any(part.startswith(word) for part in words))
    exact = (CARDS[part] for part in words if part in CARDS)
    return next(exact, None) or next(named, None) or GENERIC.get(gpu.capability)
