"""The modules of transformers, PEFT and bitsandbytes, as their Trainer calls them: every model that they know."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from artifacts.schema import Plan, Products
from tasks.backends.contract import Inference, JobShape, Layout, Memory, Precision
from tasks.backends.transformers.memory import TransformersMemory
from tasks.backends.transformers.speed import step_seconds
from tasks.machines.records import Gpu
from tasks.models.shape import ModelShape


class TransformersBackend:
    """See `tasks.backends.contract.Backend`."""

    name = "transformers"
    keeps_dequantized = False

    def unsupported(self, shape: ModelShape, job: JobShape, gpu: Gpu | None) -> str | None:
        return None

    def products(self, shape: ModelShape, job: JobShape, *, on_gpu: bool) -> Products:
        return "fp16"  # those of LLM.int8() are bitsandbytes' own

    def memory(
        self, shape: ModelShape, job: JobShape, precision: Precision, *, on_gpu: bool, fp32_residual: bool = False
    ) -> Memory:
        return TransformersMemory(shape, job, precision, on_gpu, fp32_residual)

    def step_seconds(self, shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
        return step_seconds(shape, job, plan, machine)

    def checkpointing(self, layers: int) -> Sequence[int]:
        return [0, layers]

    def fastest(self, layouts: Sequence[Layout], seconds: Callable[[Layout], float | None]) -> Layout:
        return layouts[0]  # time goes by passes

    def stepping(self, plan: Plan, layers: int, *, packed: bool = False) -> None:
        return None

    def inference(self, model: Any, length: int) -> Inference:
        from tasks.backends.transformers.inference import TransformersInference

        return TransformersInference(model)
