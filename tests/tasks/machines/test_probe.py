"""The probe on this machine, and NVML answered by a stand-in at the level of its functions: no GPU can be had here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest

from tasks.machines.host import cpu_quota, memory_limit
from tasks.machines.probe import probe, visible
from tasks.machines.records import GIB


def test_this_machine_can_be_probed(tmp_path: Path) -> None:
    found = probe(tmp_path / "not" / "yet" / "there")
    assert found.cpus >= 1 and 0 < found.available_gib <= found.memory_gib
    assert {disk.purpose for disk in found.disks} == {"store", "hub cache"}
    assert found.gpus or found.no_gpu_reason
    assert "transformers" in found.libraries


def test_stable_facts_are_stable() -> None:
    assert probe(None).fingerprint == probe(None).fingerprint


def test_free_memory_and_heat_are_no_stable_facts(fake_t4: None) -> None:
    found = probe(None)
    hotter = found.gpus[0].model_copy(update={"free_gib": 0.5, "temperature_c": 99})
    assert found.model_copy(update={"gpus": (hotter,), "available_gib": 0.1}).fingerprint == found.fingerprint


@pytest.fixture
def fake_t4(monkeypatch: pytest.MonkeyPatch) -> None:
    """A T4 of a shared server, as its driver would describe it."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    memory = SimpleNamespace(total=15 * GIB, reserved=int(0.44 * GIB), free=4 * GIB)
    hot = pynvml.nvmlClocksThrottleReasonSwThermalSlowdown

    def unsupported(_handle: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetUUID": lambda _handle: "GPU-1234",
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 13000,
        "nvmlDeviceGetName": lambda _handle: "Tesla T4",
        "nvmlDeviceGetMemoryInfo": lambda _handle, version=None: memory,
        "nvmlDeviceGetCudaComputeCapability": lambda _handle: (7, 5),
        "nvmlDeviceGetTemperature": lambda _handle, _sensor: 90,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda _handle: hot,
        "nvmlDeviceGetUtilizationRates": unsupported,
        "nvmlDeviceGetComputeRunningProcesses": lambda _handle: [SimpleNamespace(pid=2**22 + 1, usedGpuMemory=GIB)],
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


def test_a_card_is_described(fake_t4: None) -> None:
    found = probe(None)
    (gpu,) = found.gpus
    assert gpu.total_gib == pytest.approx(14.56) and gpu.architecture == "sm_75"
    assert len(gpu.throttling) == 1 and "driver slowdown" in gpu.throttling[0] and gpu.utilization is None
    assert str(gpu.processes[0]) == "process (pid 4194305, 1.0 GiB)"
    assert found.in_words.split(", ")[:3] == ["Tesla T4", "14.6 GiB", "sm_75"]
    assert found.driver in found.in_words and found.driver_cuda == (13, 0)


def test_a_hidden_card_is_not_there(fake_t4: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    found = probe(None)
    assert not found.gpus and "CUDA_VISIBLE_DEVICES" in found.no_gpu_reason


@pytest.mark.parametrize(
    ("setting", "chosen"),
    [(None, [0, 1, 2]), ("", []), ("-1", []), ("2,0", [2, 0]), ("1,9,0", [1]), ("GPU-b", [1]), ("nonsense", [])],
)
def test_visible_cards_are_those_of_cuda(setting: str | None, chosen: list[int]) -> None:
    assert visible(["GPU-aa", "GPU-bb", "GPU-cc"], setting) == chosen


def test_a_container_with_limits(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{8 * GIB}\n")
    (tmp_path / "memory.current").write_text(f"{5 * GIB}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {2 * GIB}\n")
    assert cpu_quota(tmp_path) == 2
    assert memory_limit(tmp_path) == (8 * GIB, 3 * GIB)


def test_a_container_without_limits(tmp_path: Path) -> None:
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("5\n")
    assert cpu_quota(tmp_path) is None
    assert memory_limit(tmp_path) == (None, 0)
