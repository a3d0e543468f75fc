"""Training on a real GPU: int8 weights, fp16 arithmetic, as on a T4."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from artifacts.errors import StageError
from artifacts.progress import Listener, Progress, Tick
from artifacts.schema import Plan
from tasks.models.base_model import ModelConfig, locate
from tasks.training import LoraSettings, TrainingConfig, ValidationSettings, run_training
from tests.conftest import BASE_MODEL
from tests.tasks.training import jobs
from tests.tasks.training.test_validation import aside_loss

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU"),
]
PLAN = Plan(
    device="cuda",
    precision="fp16",
    micro_batch=2,
    accumulation=2,
    gradient_checkpointing=True,
    gpu_memory_gib=14.56,
    backend="transformers",
)
CONFIG = TrainingConfig(max_steps=20, save_steps=5, warmup_steps=2, learning_rate=5e-3)


FUSED = PLAN.model_copy(update={"backend": "fused"})


@pytest.mark.parametrize("plan", [PLAN, PLAN.model_copy(update={"gradient_checkpointing": False}), FUSED])
def test_int8_fp16_trains_and_resumes(plan: Plan, tmp_path: Path) -> None:
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    workdir = tmp_path / "work"
    workdir.mkdir()

    def kill(tick: Tick) -> None:
        if tick.title == "training" and tick.completed == 12:
            for worker in jobs.workers():
                worker.kill()

    with pytest.raises(StageError, match="SIGKILL"):
        run_training(CONFIG, model=model, tokens=tokens, plan=plan, workdir=workdir, progress=Progress(kill))
    result = run_training(CONFIG, model=model, tokens=tokens, plan=plan, workdir=workdir, progress=Progress())
    columns = jobs.metrics(workdir)
    assert (result.resumed_from or 0) >= 10 and columns["step"] == list(range(1, 21))
    assert all(map(math.isfinite, columns["loss"])) and result.last_loss < result.first_loss - 0.5
    assert {weight.dtype for weight in jobs.adapter(workdir).values()} == {torch.float32}
    assert 0 < result.peak_memory_gib < 14.56
    assert all(0 < celsius < 110 for celsius in columns["gpu_temperature_c"])


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_resumed_is_as_near_to_an_undisturbed_run_as_that_is_to_itself(
    dropout: float, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    config = CONFIG.model_copy(update={"lora": LoraSettings(dropout=dropout)})
    plan = FUSED.model_copy(update={"gradient_checkpointing": False})

    def run(name: str, *listeners: Listener) -> torch.Tensor:
        (tmp_path / name).mkdir(exist_ok=True)
        run_training(
            config, model=model, tokens=tokens, plan=plan, workdir=tmp_path / name, progress=Progress(*listeners)
        )
        weights = jobs.adapter(tmp_path / name)
        return torch.cat([weights[key].flatten() for key in sorted(weights)])

    def kill(tick: Tick) -> None:
        if tick.title == "training" and tick.completed == 12:
            for worker in jobs.workers():
                worker.kill()

    first, second = run("first"), run("second")
    with pytest.raises(StageError, match="SIGKILL"):
        run("killed", kill)
    resumed = run("killed")
    spread, difference = ((one - first).norm() / first.norm() for one in (second, resumed))
    record_property("apart", {"dropout": dropout, "run_to_run": float(spread), "resumed": float(difference)})
    assert difference <= max(2 * float(spread), 1e-6)


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("plan", [PLAN, FUSED])
def test_the_loss_on_validation_text_is_that_of_the_weights_handed_over(
    plan: Plan, dropout: float, tmp_path: Path
) -> None:
    """Measured beside the recorded steps, on weights that are unpacked by turns with theirs; also after a kill."""
    from peft import PeftModel

    from tasks.models.loading import load_base

    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    validation = ValidationSettings(share=0.25, steps=4)
    config = CONFIG.model_copy(update={"validation": validation, "lora": LoraSettings(dropout=dropout)})

    def kill(tick: Tick) -> None:
        if tick.title == "training" and tick.completed == 14:
            for worker in jobs.workers():
                worker.kill()

    results, losses = [], []
    for name, listeners in (("whole", ()), ("killed", (kill,))):
        workdir = tmp_path / name
        workdir.mkdir()
        given = {"model": model, "tokens": tokens, "plan": plan, "workdir": workdir}
        if listeners:
            with pytest.raises(StageError, match="SIGKILL"):
                run_training(config, **given, progress=Progress(*listeners))
        results.append(run_training(config, **given, progress=Progress()))
        losses.append([loss for loss in jobs.metrics(workdir)["validation_loss"] if loss is not None])
    whole, killed = (result.validation for result in results)
    assert whole and killed and len(losses[0]) == len(losses[1]) == 5
    assert losses[1] == pytest.approx(losses[0], rel=2e-2)  # fp16
    base = load_base(BASE_MODEL, "int8", plan)
    before = aside_loss(base, tokens, config)
    tuned = PeftModel.from_pretrained(base, results[0].path / "adapter")
    assert whole.loss_before == pytest.approx(before, rel=5e-3)
    assert whole.kept_loss == pytest.approx(aside_loss(tuned, tokens, config), rel=5e-3)
    assert whole.kept_loss < before - 0.2 and whole.scaled[-1].loss == pytest.approx(whole.kept_loss, rel=5e-3)
    assert plan.gpu_memory_gib and results[0].peak_memory_gib < plan.gpu_memory_gib


def test_a_step_that_does_not_fit_is_done_in_smaller_pieces(tmp_path: Path) -> None:
    """0.6 GiB is too little for four sequences of 2,048 tokens, whose activations take that without checkpointing (9 kB
    per token and layer), with 0.25 GiB for the tiles of the loss; for one, both are smaller, and it fits."""
    chunks = [row for row in jobs.rows(36, longest=2048) if len(row["input_ids"]) == 2048]
    tokens = jobs.dataset(tmp_path / "tokens", chunks, 2048)
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    config = TrainingConfig(quantization="none", max_steps=6, warmup_steps=2, lora=LoraSettings(dropout=0.0))
    at_once = PLAN.model_copy(update={"micro_batch": 4, "accumulation": 1, "gradient_checkpointing": False})
    results, metrics = [], []
    for name, cap in (("large", 14.56), ("small", 0.6)):
        workdir = tmp_path / name
        workdir.mkdir()
        plan = at_once.model_copy(update={"gpu_memory_gib": cap})
        results.append(
            run_training(config, model=model, tokens=tokens, plan=plan, workdir=workdir, progress=Progress())
        )
        metrics.append(jobs.metrics(workdir))
    large, small = results
    assert large.fallbacks == () and large.peak_memory_gib > 0.6
    assert re.findall(r"\d+(?: × \d+)?", small.fallbacks[0]) == ["1", "4 × 1", "2 × 2"]
    assert small.peak_memory_gib <= 0.6 and small.resumed_from is None
    assert metrics[1]["step"] == list(range(1, 7)) and metrics[1]["tokens"] == metrics[0]["tokens"]
    assert metrics[1]["loss"] == pytest.approx(metrics[0]["loss"], rel=2e-2)  # fp16


def test_out_of_memory_says_what_to_do(tmp_path: Path) -> None:
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    small = PLAN.model_copy(update={"gpu_memory_gib": 0.02})
    with pytest.raises(StageError, match="memory"):
        run_training(CONFIG, model=model, tokens=tokens, plan=small, workdir=tmp_path, progress=Progress())
