"""How long a step will take: a roofline for cards that are known, a measured constant for CPUs, None otherwise.

Anchors (H200, CodeLlama-7b, 1,024 tokens a step, ms): int8 1×4 with checkpointing 1659–2207, 4×1 with 537, 1×4 without
1299; nf4 1×4 with 1269, 4×1 without 257. There a pass is bound by launching kernels, so the time per layer and pass
dominates; on a T4 the arithmetic does.
"""

from __future__ import annotations

from dataclasses import dataclass

from artifacts.schema import Plan, Quantization
from tasks.preflight.job import JobShape
from tasks.preflight.machine import Gpu
from tasks.preflight.shape import ModelShape


@dataclass(frozen=True)
class Card:
    """Figures of the data sheet."""

    teraflops: float
    """Dense 16-bit matrix products, TFLOP/s."""
    bandwidth: float
    """GB/s."""


CARDS = {
    "H200": Card(989, 4800),
    "H100": Card(989, 3350),
    "A100": Card(312, 1555),
    "A10": Card(125, 600),
    "L40": Card(181, 864),
    "L4": Card(121, 300),
    "V100": Card(112, 900),
    "T4": Card(65, 320),
}
"""By a word of the card's name."""

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


def step_seconds(shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
    """Wall time of one optimizer step on a card, or on a number of CPU cores. None for an unknown card."""
    passes = 3 if plan.gradient_checkpointing else 2  # forward, gradients of the inputs, and the recomputation
    if isinstance(machine, int):
        work = CPU_SECONDS * shape.parameters * job.step_tokens / machine
        return work * passes / 2 + plan.accumulation * CPU_STEP_SECONDS
    card = card_of(machine)
    if card is None:
        return None
    launches = LAYER_MS[job.quantization] / 1000 * shape.layers * (RECOMPUTED if plan.gradient_checkpointing else 1)
    arithmetic = 2 * passes * shape.parameters * job.step_tokens / (card.teraflops * 1e12 * EFFICIENCY)
    # every pass reads each weight; a quantized one is also written and read again in 16 bits
    traffic = passes * shape.parameters * (2 if job.quantization == "none" else 5) / (card.bandwidth * 1e9)
    return plan.accumulation * (launches + traffic) + arithmetic


def card_of(gpu: Gpu) -> Card | None:
    """The figures for a card, by name, else by generation."""
    words = gpu.name.replace("-", " ").split()
    named = (card for word, card in CARDS.items() if any(part.startswith(word) for part in words))
    exact = (CARDS[part] for part in words if part in CARDS)
    return next(exact, None) or next(named, None) or GENERIC.get(gpu.capability)
