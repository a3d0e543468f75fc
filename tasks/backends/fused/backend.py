"""codetune's own forward and backward pass on the same quantized weights, as one CUDA graph on a GPU."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from artifacts.schema import Plan, Products
from tasks.backends.contract import Inference, JobShape, Layout, Memory, Precision, Stepping
from tasks.backends.fused.memory import FusedMemory
from tasks.backends.fused.speed import step_seconds
from tasks.backends.fused.support import CAPABILITY, products_of, unsupported_config, unsupported_int8
from tasks.machines.records import Gpu
from tasks.models.shape import ModelShape

log = logging.getLogger(__name__)


class FusedBackend:
    """See `tasks.backends.contract.Backend`."""

    name = "fused"
    keeps_dequantized = True

    def unsupported(self, shape: ModelShape, job: JobShape, gpu: Gpu | None) -> str | None:
        if reason := unsupported_config(shape.config, job.max_length):
            return reason
        if shape.adapts_other_modules(job.lora_target_modules):
            return "it trains adapters on the linear layers of attention and MLP only"
        if job.products == "int8" and (reason := unsupported_int8(shape, job)):
            return reason
        if gpu is not None and gpu.capability < CAPABILITY:
            return f"its kernels need compute capability 7.5, the {gpu.name} has less"
        return None

    def products(self, shape: ModelShape, job: JobShape, *, on_gpu: bool) -> Products:
        return products_of(shape, job, on_gpu=on_gpu)

    def memory(
        self, shape: ModelShape, job: JobShape, precision: Precision, *, on_gpu: bool, fp32_residual: bool = False
    ) -> Memory:
        return FusedMemory(shape, job, precision, on_gpu, fp32_residual)

    def step_seconds(self, shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
        return step_seconds(shape, job, plan, machine)

    def checkpointing(self, layers: int) -> Sequence[int]:
        return range(layers + 1)

    def fastest(self, layouts: Sequence[Layout], seconds: Callable[[Layout], float | None]) -> Layout:
        return min(layouts, key=lambda layout: seconds(layout) or 0)  # the first of equals

    def stepping(self, plan: Plan, layers: int, *, packed: bool = False) -> Stepping:
        from tasks.backends.fused.training import FusedSteps

        return FusedSteps(plan, layers, packed=packed)

    def inference(self, model: Any, length: int) -> Inference | None:
        from tasks.backends.fused.decoding import Decoder, unsupported
        from tasks.backends.fused.sides import FusedInference

        if reason := unsupported(model, length):
            log.info("not computed by the backend %s: %s", self.name, reason)
            return None
        return FusedInference(Decoder(model, length))
