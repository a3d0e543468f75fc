"""From the machine and the job to the plan: device, precision, micro-batch, checkpointing.

The plan depends on what a machine *has*, never on what happens to be free: the same job on the same machine gets the
same plan, and with it the same bits. Whether enough is free is checked afterwards.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from artifacts.configuration import Config
from artifacts.errors import InputError, PreflightRefused
from artifacts.schema import Plan
from tasks.preflight.job import JobShape
from tasks.preflight.machine import Gpu, MachineProbe
from tasks.preflight.memory import Precision, StockMemory as MemoryModel
from tasks.preflight.shape import ModelShape

CAP_VARIABLE = "CODETUNE_GPU_MEMORY_GIB"


def _cap_from_environment() -> Any:
    return os.environ.get(CAP_VARIABLE) or None


class PreflightConfig(Config):
    """What the run may use of the machine."""

    device: Literal["auto", "cuda", "cpu"] = "auto"
    """`auto`: the first visible GPU, or the CPU when there is none."""
    precision: Literal["auto", "fp16", "bf16", "fp32"] = "auto"
    """Arithmetic of forward and backward pass. `auto`: fp16 for int8 weights; else bf16 on GPUs that have it (compute
    capability 8.0) and fp16 on others. A CPU always computes in fp32."""
    gpu_memory_gib: float | None = Field(default_factory=_cap_from_environment, gt=0, validate_default=True)
    """What the run may take of the card, GiB, to leave room for others or to stand for a smaller card (a T4 gives
    14.56). Default: the environment variable CODETUNE_GPU_MEMORY_GIB, else the whole card."""
    headroom: float = Field(0.04, ge=0, lt=1)
    """Share of that memory that the predicted peak must leave free."""
    cpu_max_parameters: int = Field(500_000_000, gt=0)
    """Largest model, in parameters, that is trained without a GPU: with 500M a step of 1,024 tokens takes about 12 s
    on 2 cores."""


@dataclass(frozen=True)
class Question:
    """Everything that a judgement rests on."""

    config: PreflightConfig
    job: JobShape
    shape: ModelShape
    probe: MachineProbe

    @property
    def gpu(self) -> Gpu | None:
        """The card that the run will use; None for the CPU."""
        if self.config.device == "cpu" or not self.probe.gpus:
            return None
        # a build of torch without CUDA cannot use the card
        return self.probe.gpus[0] if self.probe.torch_cuda or self.config.device == "cuda" else None

    @property
    def memory(self) -> MemoryModel:
        return MemoryModel(self.shape, self.job, self.precision, on_gpu=self.gpu is not None)

    @property
    def precision(self) -> Precision:
        gpu, wanted = self.gpu, self.config.precision
        if gpu is None:
            return "fp32"
        if wanted != "auto":
            return wanted
        if self.job.quantization == "int8":
            return "fp16"  # LLM.int8() multiplies in fp16 whatever it is given, with a warning at every call
        return "bf16" if gpu.capability >= (8, 0) else "fp16"

    @property
    def budget_gib(self) -> float:
        """Memory that the predicted peak must fit into."""
        if self.gpu is None:
            return self.probe.memory_gib * (1 - self.config.headroom)
        card = min(self.gpu.total_gib, self.config.gpu_memory_gib or self.gpu.total_gib)
        return card * (1 - self.config.headroom)


def make_plan(question: Question) -> Plan:
    """The largest micro-batch that fits, with checkpointing only where it must be.

    Raises:
        InputError: the configured micro-batch does not divide the effective batch.
        PreflightRefused: nothing fits, or not what is configured.
    """
    choices = _choices(question.job)
    memory, budget = question.memory, question.budget_gib
    for micro_batch, checkpointing in choices:
        if memory.peak_gib(micro_batch, checkpointing) <= budget:
            return _plan(question, micro_batch, checkpointing)
    raise _too_large(question, *min(choices, key=lambda choice: memory.peak_gib(*choice)))


def _choices(job: JobShape) -> list[tuple[int, bool]]:
    """(micro-batch, checkpointing), the fastest first."""
    batch, wanted = job.effective_batch, job.micro_batch
    if wanted != "auto" and (wanted < 1 or batch % wanted):
        divisors = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise InputError(
            f"{wanted} does not divide the effective batch of {batch}",
            field="training.micro_batch",
            remedy=f"choose {divisors} or auto",
        )
    sizes = [n for n in range(batch, 0, -1) if batch % n == 0] if wanted == "auto" else [wanted]
    checkpointing = [False, True] if job.gradient_checkpointing == "auto" else [job.gradient_checkpointing]
    return [(size, checkpoint) for size in sizes for checkpoint in checkpointing]


def _plan(question: Question, micro_batch: int, checkpointing: bool) -> Plan:
    return Plan(
        device="cpu" if question.gpu is None else "cuda",
        precision=question.precision,
        micro_batch=micro_batch,
        accumulation=question.job.effective_batch // micro_batch,
        gradient_checkpointing=checkpointing,
        gpu_memory_gib=question.config.gpu_memory_gib if question.gpu else None,
    )


def _too_large(question: Question, micro_batch: int, checkpointing: bool) -> PreflightRefused:
    job = question.job
    peak = question.memory.peak_gib(micro_batch, checkpointing)
    where = "the machine" if question.gpu is None else f"the {question.gpu.name}"
    how = f"{micro_batch} × {job.max_length} tokens, {'with' if checkpointing else 'without'} gradient checkpointing"
    return PreflightRefused(
        f"training in {job.quantization} with {how} needs about {peak:.1f} GiB; "
        f"{where} gives {question.budget_gib:.1f} GiB after headroom",
        remedy=" or ".join(_savings(question, micro_batch, checkpointing)) or "use a machine with more memory",
    )


def _savings(question: Question, micro_batch: int, checkpointing: bool) -> list[str]:
    """Changes to the configuration that would make it fit."""
    job = question.job
    candidates: list[tuple[str, dict[str, Any]]] = []
    if (micro_batch, checkpointing) != (1, True):
        setting = "set training.micro_batch=auto and training.gradient_checkpointing=auto"
        candidates.append((setting, {"micro_batch": 1, "gradient_checkpointing": True}))
    if job.quantization != "nf4":
        candidates.append(("set training.quantization=nf4", {"quantization": "nf4"}))
    if job.max_length > 64:
        shorter = max(64, job.max_length // 4)
        candidates.append((f"set tokenization.max_length={shorter}", {"max_length": shorter}))
    remedies = []
    for words, change in candidates:
        changed = Question(question.config, job.model_copy(update=change), question.shape, question.probe)
        if any(changed.memory.peak_gib(*choice) <= question.budget_gib for choice in _choices(changed.job)):
            remedies.append(words)
    return remedies
