"""Preflight and the base model: the plan for machines and models that are told, and what is found of a model."""

from __future__ import annotations

import json
from typing import Any
from unittest.mock import patch

import huggingface_hub.constants

from flows.config import PipelineConfig
from tasks.machines.records import Gpu
from tasks.models.base_model import locate
from tasks.preflight.judgement import judge
from tests.conftest import BASE_MODEL, SMALL_MODEL
from tests.hub import Hub
from tests.settings.table import Lab, Look, Row
from tests.tasks.preflight.machines import CODE_LLAMA, H200, QWEN_CODER, T4, TINY, machine, shape_of

OLDER = "e" * 40


def look_plan(model: dict[str, Any], *gpus: Gpu) -> Look:
    """The plan for a model on a machine with these cards."""

    def look(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
        shape = shape_of(lab.folder() / "model", model)
        return judge(config.preflight, config.job(), shape, machine(*gpus), download=False).plan.model_dump()

    return look


def look_time(lab: Lab, config: PipelineConfig) -> tuple[int, float | None]:
    """How many steps would be trained on a T4, and how long that takes."""
    shape = shape_of(lab.folder() / "model", CODE_LLAMA)
    prediction = judge(config.preflight, config.job(), shape, machine(T4), download=False).prediction
    return config.training.within(prediction.budget_steps).max_steps, prediction.seconds


def models(lab: Lab) -> Hub:
    """One model, whose older commit has other weights."""
    server = Hub(models={"some/model": SMALL_MODEL}, older={"some/model": {OLDER: BASE_MODEL}})
    return lab.enter_context(server)


def look_model(lab: Lab, config: PipelineConfig) -> int:
    """How many layers the model has."""
    with (
        patch.dict("os.environ", {"HF_ENDPOINT": lab.once(models).endpoint}),
        patch.object(huggingface_hub.constants, "HF_HUB_CACHE", str(lab.folder())),
    ):
        layers: int = json.loads((locate(config.model).metadata / "config.json").read_text())["num_hidden_layers"]
    return layers


REFUSED = "PreflightRefused"
on_t4, on_h200, qwen_on_t4, small_on_t4, small_on_cpu = (
    look_plan(CODE_LLAMA, T4),
    look_plan(CODE_LLAMA, H200),
    look_plan(QWEN_CODER, T4),
    look_plan(TINY, T4),
    look_plan(TINY),
)

ROWS = {
    "model.name": Row(str(SMALL_MODEL), str(BASE_MODEL), look_model, seen=(3, 8)),
    "model.revision": Row(None, OLDER, look_model, {"model.name": "some/model"}, seen=(3, 8)),
    "preflight.device": Row("auto", "cpu", small_on_t4),
    "preflight.precision": Row("auto", "bf16", on_h200, apart=frozenset({"precision"})),
    "preflight.fp32_residual": Row("auto", False, qwen_on_t4, apart=frozenset({"fp32_residual"})),
    "preflight.gpu_memory_gib": Row(None, 14.56, on_h200),
    "preflight.headroom": Row(0.04, 0.4, on_t4),
    "preflight.budget": Row("20s", 600.0, look_time),
    "preflight.cpu_max_parameters": Row(500_000_000, 1_000_000, small_on_cpu),
}
