"""What there is to know about a machine, as plain records: preflight judges these and never asks the machine itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from artifacts import digest
from artifacts.schema import Record

GIB = 1024**3


class GpuProcess(Record):
    """Another process that holds memory of a GPU."""

    pid: int
    name: str
    """The program's name; empty where the container does not show it."""
    memory_gib: float | None
    """None where the driver does not say (containers, MIG)."""

    def __str__(self) -> str:
        size = "an unknown amount" if self.memory_gib is None else f"{self.memory_gib:.1f} GiB"
        return f"{self.name or 'process'} (pid {self.pid}, {size})"


class Gpu(Record):
    """One GPU as NVML shows it."""

    name: str
    total_gib: float
    """What programs can have: what the driver keeps for itself (ECC, firmware) is taken off."""
    free_gib: float
    capability: tuple[int, int]
    """Compute capability: (7, 5) for a T4."""
    temperature_c: int | None = None
    throttling: tuple[str, ...] = ()
    """Why the clocks are held down for lack of cooling or power, in words; empty when they are not."""
    utilization: int | None = None
    """Share of the last second in which a kernel ran, per cent."""
    processes: tuple[GpuProcess, ...] = ()

    @property
    def architecture(self) -> str:
        return f"sm_{self.capability[0]}{self.capability[1]}"


class Disk(Record):
    """Free space where the run will write."""

    purpose: Literal["store", "hub cache"]
    free_gib: float
    filesystem: int
    """Device number: two purposes with the same number share the space."""


class MachineProbe(Record):
    """Everything preflight saw of a machine."""

    gpus: tuple[Gpu, ...] = ()
    no_gpu_reason: str = ""
    """Why `gpus` is empty, in words."""
    driver: str = ""
    """Version of the NVIDIA driver: `580.65.06`."""
    driver_cuda: tuple[int, int] | None = None
    """The newest CUDA version that the driver serves."""
    cpus: int
    """Cores that this process may use: affinity and container quota respected."""
    memory_gib: float
    """Host memory that this process may use at most."""
    available_gib: float
    """Host memory free now."""
    disks: tuple[Disk, ...] = ()
    libraries: dict[str, str] = Field(default_factory=dict)
    """Installed versions by distribution name."""
    torch_cuda: str = ""
    """The CUDA version that torch was built for; empty for a CPU build or no torch."""

    @property
    def stable(self) -> dict[str, object]:
        """The facts that are the same on the next run unless somebody changes the machine."""
        return {
            "gpus": [[gpu.name, round(gpu.total_gib, 2), list(gpu.capability)] for gpu in self.gpus],
            "driver": self.driver,
            "cpus": self.cpus,
            "memory_gib": round(self.memory_gib),
            "libraries": self.libraries,
            "torch_cuda": self.torch_cuda,
        }

    @property
    def fingerprint(self) -> str:
        return digest.of_json(self.stable)

    @property
    def in_words(self) -> str:
        """`NVIDIA T4, 14.6 GiB, sm_75, driver 580.65` or `CPU, 2 cores, 24 GiB`."""
        if not self.gpus:
            cores = "1 core" if self.cpus == 1 else f"{self.cpus} cores"
            return f"CPU, {cores}, {self.memory_gib:.0f} GiB"
        gpu = self.gpus[0]
        more = f" (and {len(self.gpus) - 1} more)" if len(self.gpus) > 1 else ""
        return f"{gpu.name}, {gpu.total_gib:.1f} GiB, {gpu.architecture}, driver {self.driver or 'unknown'}{more}"
