"""Two training processes, each with a GPU of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from artifacts.errors import StageError
from artifacts.progress import Tick
from artifacts.schema import Plan
from tasks import backends
from tasks.training import TrainingConfig
from tests.tasks.training import jobs

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two NVIDIA GPUs"),
]
ALONE = Plan(
    device="cuda",
    precision="fp16",
    micro_batch=2,
    accumulation=2,
    gradient_checkpointing=False,
    gpu_memory_gib=14.56,
    backend="transformers",
)
TOGETHER = ALONE.model_copy(update={"processes": 2, "accumulation": 1})
CONFIG = TrainingConfig(max_steps=20, save_steps=5, warmup_steps=2, learning_rate=5e-3)


@pytest.mark.parametrize("backend", backends.NAMES)
def test_two_gpus_killed_and_resumed_learn_what_one_learns(backend: str, tmp_path: Path) -> None:
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())

    def kill(tick: Tick) -> None:
        if tick.title == "training" and tick.completed == 12:
            jobs.workers()[-1].kill()

    alone = jobs.run(tmp_path / "alone", tokens, CONFIG, plan=ALONE.model_copy(update={"backend": backend}))
    plan = TOGETHER.model_copy(update={"backend": backend})
    with pytest.raises(StageError, match="SIGKILL"):
        jobs.run(tmp_path / "together", tokens, CONFIG, kill, plan)
    assert not jobs.workers()
    together = jobs.run(tmp_path / "together", tokens, CONFIG, plan=plan)
    assert (together.resumed_from or 0) >= 10
    one, two = jobs.metrics(alone.path), jobs.metrics(together.path)
    assert two["step"] == list(range(1, 21)) and two["tokens"] == one["tokens"]
    assert two["loss"] == pytest.approx(one["loss"], rel=2e-2)  # fp16
    assert two["loss"][-1] < two["loss"][0] - 0.5
