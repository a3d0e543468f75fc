"""Looking at the machine: GPUs through NVML, host memory, cores, disks, library versions.

Nothing here loads torch or touches CUDA: a probe costs milliseconds and no GPU memory. What cannot be read is left
out, never guessed: a machine without a GPU, a container and a driver without NVML all give a probe.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
import shutil
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from tasks.machines.host import cpu_count, host_memory
from tasks.machines.records import GIB, Disk, Gpu, GpuProcess, MachineProbe

log = logging.getLogger(__name__)
T = TypeVar("T")

LIBRARIES = ("accelerate", "bitsandbytes", "peft", "torch", "transformers", "trl")
"""Those whose version changes what training does or needs."""


def probe(store_place: Path | None) -> MachineProbe:
    """Look at this machine. `store_place`: an existing folder of the store's file system; None to leave disks out."""
    gpus: dict[str, Any] = _gpus()
    total, available = host_memory()
    return MachineProbe(
        **gpus,
        cpus=cpu_count(),
        memory_gib=total / GIB,
        available_gib=available / GIB,
        disks=_disks(store_place) if store_place else (),
        libraries=_libraries(),
        torch_cuda=_torch_cuda(),
    )


# --- GPUs ----------------------------------------------------------------------------------------------------


def _gpus() -> dict[str, Any]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        return {"no_gpu_reason": f"no NVIDIA driver answers ({error})"}
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(number) for number in range(pynvml.nvmlDeviceGetCount())]
        uuids = [_text(pynvml.nvmlDeviceGetUUID(handle)) for handle in handles]
        chosen = visible(uuids, os.environ.get("CUDA_VISIBLE_DEVICES"))
        gpus = tuple(_gpu(handles[number]) for number in chosen)
        driver, cuda = pynvml.nvmlSystemGetDriverVersion(), pynvml.nvmlSystemGetCudaDriverVersion_v2()
    except pynvml.NVMLError as error:
        return {"no_gpu_reason": f"the NVIDIA driver does not describe its GPUs ({error})"}
    finally:
        pynvml.nvmlShutdown()
    hidden = "CUDA_VISIBLE_DEVICES hides every GPU" if handles else "the NVIDIA driver sees no GPU"
    version = (cuda // 1000, cuda % 1000 // 10)
    return {"gpus": gpus, "driver": _text(driver), "driver_cuda": version, "no_gpu_reason": "" if gpus else hidden}


def visible(uuids: list[str], setting: str | None) -> list[int]:
    """The GPUs that CUDA will show, in its order. NVML itself does not heed `CUDA_VISIBLE_DEVICES`.

    Entries are numbers or beginnings of UUIDs; as in CUDA, the first entry that names no GPU ends the list.
    """
    if setting is None:
        return list(range(len(uuids)))
    chosen: list[int] = []
    for entry in (part.strip() for part in setting.split(",")):
        if entry.isdigit() and int(entry) < len(uuids):
            chosen.append(int(entry))
        elif entry.startswith("GPU-") and (found := [n for n, uuid in enumerate(uuids) if uuid.startswith(entry)]):
            chosen.append(found[0])
        else:
            break
    return chosen


def _gpu(handle: Any) -> Gpu:
    import pynvml

    total, free = _gpu_memory(handle)
    utilization = _readable(lambda: pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    return Gpu(
        name=_text(pynvml.nvmlDeviceGetName(handle)),
        total_gib=total / GIB,
        free_gib=free / GIB,
        capability=tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle)),
        temperature_c=_readable(lambda: pynvml.nvmlDeviceGetTemperature(handle, pynvml.NVML_TEMPERATURE_GPU)),
        throttling=_throttling(_readable(lambda: pynvml.nvmlDeviceGetCurrentClocksThrottleReasons(handle)) or 0),
        utilization=utilization,
        processes=tuple(map(_process, _readable(lambda: pynvml.nvmlDeviceGetComputeRunningProcesses(handle)) or ())),
    )


def _gpu_memory(handle: Any) -> tuple[int, int]:
    """Bytes in all and bytes free. Version 2 of the call says what the driver reserves: a T4's 15 GiB are 14.56."""
    import pynvml

    newer = _readable(lambda: pynvml.nvmlDeviceGetMemoryInfo(handle, version=pynvml.nvmlMemory_v2))
    if newer is not None:
        return newer.total - newer.reserved, newer.free
    older = pynvml.nvmlDeviceGetMemoryInfo(handle)
    return older.total, older.free


def _throttling(bits: int) -> tuple[str, ...]:
    import pynvml

    reasons = {
        pynvml.nvmlClocksThrottleReasonHwThermalSlowdown: "too hot (hardware slowdown)",
        pynvml.nvmlClocksThrottleReasonSwThermalSlowdown: "too hot (driver slowdown)",
        pynvml.nvmlClocksThrottleReasonHwPowerBrakeSlowdown: "power brake of the server",
        pynvml.nvmlClocksThrottleReasonSwPowerCap: "at its power limit",
    }
    return tuple(words for bit, words in reasons.items() if bits & bit)


def _process(process: Any) -> GpuProcess:
    import psutil

    try:
        name = psutil.Process(process.pid).name()
    except psutil.Error:
        name = ""
    used = process.usedGpuMemory
    return GpuProcess(pid=process.pid, name=name, memory_gib=None if used is None else used / GIB)


def _readable(read: Callable[[], T]) -> T | None:
    """The reading, or None where GPU or driver does not offer it."""
    import pynvml

    try:
        return read()
    except pynvml.NVMLError as error:
        log.debug("NVML: %s", error)
        return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


# --- disks and libraries --------------------------------------------------------------------------------------


def _disks(store_place: Path) -> tuple[Disk, ...]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return _disk("store", store_place), _disk("hub cache", Path(HF_HUB_CACHE))


def _disk(purpose: Any, place: Path) -> Disk:
    place = next(folder for folder in (place.absolute(), *place.absolute().parents) if folder.exists())
    return Disk(purpose=purpose, free_gib=shutil.disk_usage(place).free / GIB, filesystem=place.stat().st_dev)


def _libraries() -> dict[str, str]:
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            log.debug("%s is not installed", name)
    return versions


def _torch_cuda() -> str:
    """Read from torch's version file: importing torch takes seconds."""
    spec = importlib.util.find_spec("torch")
    file = Path(spec.origin).parent / "version.py" if spec and spec.origin else None
    if file is None or not file.is_file():
        return ""
    found = re.search(r"^cuda\b.*=\s*['\"]([\d.]+)['\"]", file.read_text(), re.MULTILINE)
    return found[1] if found else ""
