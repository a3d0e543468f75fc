"""Figures of GPUs' data sheets, by name and by compute capability, and what of them was reached."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.machines.records import Gpu


@dataclass(frozen=True)
class GpuSpec:
    """Figures of the data sheet."""

    teraflops: float
    """Dense 16-bit matrix products, TFLOP/s."""
    bandwidth: float
    """GB/s."""
    sustained: float = 0.55
    """Share of `teraflops` that large products reach when nothing else holds them up; assumed where not measured."""
    int8: float = 1.5
    """How many times that fast they are on int8 tensor cores. Data sheets say 2, power allows less; assumed where not
    measured."""
    int8_sums: bool = False
    """Whether such products leave their sums in memory, in 32 bits, for another kernel to scale: before sm_80."""


SPECS = {
    "H200": GpuSpec(989, 4800, 0.76, 1.6),
    "H100": GpuSpec(989, 3350, 0.7),
    "A100": GpuSpec(312, 1555),
    "A10": GpuSpec(125, 600),
    "L40": GpuSpec(181, 864),
    "L4": GpuSpec(121, 300),
    "V100": GpuSpec(112, 900),
    "T4": GpuSpec(65, 320, 0.4, int8_sums=True),
}
"""By a word of the GPU's name. H200's share is measured (750 TFLOP/s); a T4 is held to its 70 W, which leaves it about
26 TFLOP/s."""

GENERIC = {(7, 0): SPECS["V100"], (7, 5): SPECS["T4"], (8, 0): SPECS["A100"], (8, 6): SPECS["A10"]}
GENERIC |= {(8, 9): SPECS["L4"], (9, 0): SPECS["H100"]}
"""By compute capability, for names not in the list: the slowest data-centre GPU of that generation."""


def spec_of(gpu: Gpu) -> GpuSpec | None:
    """The figures for a GPU, by name, else by generation."""
    words = gpu.name.replace("-", " ").split()
    named = (gpu for word, gpu in SPECS.items() if any(part.startswith(word) for part in words))
    exact = (SPECS[part] for part in words if part in SPECS)
    return next(exact, None) or next(named, None) or GENERIC.get(gpu.capability)
