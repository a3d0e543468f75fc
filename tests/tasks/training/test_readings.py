"""What a GPU says while it trains, as the dashboard shows it. The GPU is not there; its driver's answers are."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pynvml
import pytest
import torch

from artifacts.progress import Tick
from tasks.models.libraries import import_bitsandbytes
from tasks.running.dashboard import describe
from tasks.training.readings import GIB, Readings
from tests.tasks.training import jobs


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU whose memory, temperature and power can be read; its utilization cannot."""

    def unsupported(_handle: object) -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _number: SimpleNamespace(uuid="1234"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _number: int(11.2 * GIB))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _number: None)
    answers = {
        "nvmlInit": lambda: None,
        "nvmlDeviceGetHandleByUUID": lambda uuid: uuid,
        "nvmlDeviceGetTemperature": lambda handle, _sensor: {"GPU-1234": 63}[handle],
        "nvmlDeviceGetPowerUsage": lambda _handle: 68_500,
        "nvmlDeviceGetUtilizationRates": unsupported,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)


def test_memory_and_temperature_of_a_gpu_stand_in_the_progress(gpu: None) -> None:
    import_bitsandbytes()
    from tasks.training.trainer import Reporter

    read = Readings(jobs.PLAN.model_copy(update={"device": "cuda"})).read()
    assert read == pytest.approx({"memory_gib": 11.2, "gpu_temperature_c": 63, "gpu_power_w": 68.5})
    sent: list[dict[str, Any]] = []
    sender = SimpleNamespace(send=lambda kind, **what: sent.append(what))
    logs = {"loss": 1.43, "learning_rate": 2e-4, "tokens_per_second": 5900.0, "seconds": 1.7, **read}
    Reporter(sender, None).on_log(None, SimpleNamespace(global_step=120, max_steps=200), None, logs)
    assert describe(Tick("training", sent[0]["step"], 200, "steps", sent[0]["details"])).split(" · ") == [
        "training: 120 / 200 steps",
        "loss 1.43",
        "tokens/s 5,900",
        "left 2 min 16 s",
        "GPU memory 11.20 GiB",
        "GPU 63 °C",
        "learning rate 0.0002",
    ]
