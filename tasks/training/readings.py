"""What the machine says while a model is trained: memory of this process, and the state of the GPU."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from artifacts.schema import Plan

log = logging.getLogger(__name__)
GIB = 2**30
READ_SECONDS = 0.5
"""How often a GPU is asked: asking takes half a millisecond, and a step may take but fifty."""


class Readings:
    """Memory and GPU readings, step by step."""

    def __init__(self, plan: Plan) -> None:
        self._gpu = _Gpu() if plan.device == "cuda" else None
        self._peak = 0.0
        self._last: dict[str, float] = {}
        self._read_at = 0.0

    def read(self) -> dict[str, float]:
        """`memory_gib` since the last reading, and on a GPU its temperature, power and utilization; within
        `READ_SECONDS` the same again."""
        if self._gpu is None:
            return {"memory_gib": _resident("VmRSS")}
        if not self._last or time.monotonic() - self._read_at > READ_SECONDS:
            memory = self._gpu.peak_memory()
            self._peak = max(self._peak, memory)
            self._last, self._read_at = {"memory_gib": memory, **self._gpu.state()}, time.monotonic()
        return self._last

    def peak(self) -> float:
        """Highest memory of the process so far, loading included, GiB."""
        if self._gpu is None:
            return _resident("VmHWM")
        self._peak = max(self._peak, self._gpu.peak_memory())
        return self._peak


def _resident(name: str) -> float:
    """A field of `/proc/self/status` in GiB. (`getrusage` would count what the parent held before exec.)"""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024 / GIB
    return 0.0


class _Gpu:
    """The first CUDA device, through torch and NVML."""

    def __init__(self) -> None:
        import pynvml
        import torch

        self._nvml, self._cuda = pynvml, torch.cuda
        self._handle: Any = None
        try:
            pynvml.nvmlInit()
            # By its UUID: CUDA and NVML count devices differently when CUDA_VISIBLE_DEVICES is set.
            uuid = str(torch.cuda.get_device_properties(0).uuid)
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid if uuid.startswith("GPU-") else f"GPU-{uuid}")
        except pynvml.NVMLError as error:
            log.info("no GPU readings: %s", error)

    def peak_memory(self) -> float:
        """Most memory allocated since the last call, GiB."""
        peak = self._cuda.max_memory_allocated(0) / GIB
        self._cuda.reset_peak_memory_stats(0)
        return float(peak)

    def state(self) -> dict[str, float]:
        """What can be read of temperature, power and utilization; a GPU need not offer all of them."""
        nvml = self._nvml
        readers: dict[str, Callable[[], float]] = {
            "gpu_temperature_c": lambda: nvml.nvmlDeviceGetTemperature(self._handle, nvml.NVML_TEMPERATURE_GPU),
            "gpu_power_w": lambda: nvml.nvmlDeviceGetPowerUsage(self._handle) / 1000,
            "gpu_utilization": lambda: nvml.nvmlDeviceGetUtilizationRates(self._handle).gpu / 100,
        }
        found = {}
        for name, read in readers.items() if self._handle is not None else ():
            try:
                found[name] = float(read())
            except nvml.NVMLError:
                continue
        return found
