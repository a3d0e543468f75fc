"""From the machine and the job to the plan: device, precision, backend, micro-batch, checkpointing, unpacked layers.

The plan depends on what a machine *has*, never on what happens to be free: the same job on the same machine gets the
same plan, and with it the same bits. Whether enough is free is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from artifacts.errors import InputError, PreflightRefused
from artifacts.schema import Plan
from tasks import backends
from tasks.backends.contract import Backend, JobShape, Layout, Memory, Precision
from tasks.machines.records import Gpu, MachineProbe
from tasks.models import residual
from tasks.models.shape import ModelShape
from tasks.preflight.config import PreflightConfig

RESIDENT_SHARE = 0.8
"""Of the GPU's memory: layers are kept in 16 bits while the predicted peak stays below. They save a little time, so
they must not be what makes a run fail when other programs or fragments take some of the rest."""


@dataclass(frozen=True)
class PlanningInput:
    """Everything that a judgement rests on."""

    config: PreflightConfig
    job: JobShape
    shape: ModelShape
    probe: MachineProbe

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that the run will use; None for the CPU."""
        if self.config.device == "cpu" or not self.probe.gpus:
            return None
        # a build of torch without CUDA cannot use the GPU
        return self.probe.gpus[0] if self.probe.torch_cuda or self.config.device == "cuda" else None

    @property
    def processes(self) -> int:
        """How many train together."""
        wanted = self.job.processes
        if wanted != "auto":
            return wanted
        gpus = len(self.probe.gpus) if self.gpu else 1
        return max(number for number in range(1, gpus + 1) if self.job.effective_batch % number == 0)

    @property
    def memory(self) -> Memory:
        return self.backend.memory(
            self.shape, self.job, self.precision, on_gpu=self.gpu is not None, fp32_residual=self.fp32_residual
        )

    @property
    def backend(self) -> Backend:
        """What computes."""
        return backends.choose(self.shape, self.job, self.gpu)

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
    def fp32_residual(self) -> bool:
        """Whether the residual stream is kept in fp32 while something narrower is computed in.

        Raises:
            InputError: it is asked for, and the model cannot have it.
        """
        wanted = self.config.fp32_residual
        if self.precision == "fp32" or not wanted:
            return False
        reason = residual.unsupported(self.shape.config)
        if wanted == "auto":
            return reason is None and self.precision == "fp16" and residual.overflows(self.shape.config)
        if reason:
            raise InputError(
                f"the residual stream cannot be kept in fp32: {reason}",
                field="preflight.fp32_residual",
                remedy="set preflight.fp32_residual=auto, and preflight.precision=fp32 if fp16 overflows",
            )
        return True

    @property
    def device_gib(self) -> float:
        """Memory of the GPU (the smallest of several), or of the machine, that one process may take."""
        if self.gpu is None:
            return self.probe.memory_gib / self.processes
        smallest = min(gpu.total_gib for gpu in self.probe.gpus[: self.processes])
        return min(smallest, self.config.gpu_memory_gib or smallest)

    @property
    def budget_gib(self) -> float:
        """Memory that what is needed must fit into."""
        return self.device_gib * (1 - self.config.headroom)

    def fits(self, choice: Layout) -> bool:
        return self.memory.needed_gib(choice) <= self.budget_gib

    def plan(self, choice: Layout) -> Plan:
        """The plan that lays out the work like this."""
        partly = 0 < choice.checkpointed < self.shape.layers
        return Plan(
            device="cpu" if self.gpu is None else "cuda",
            precision=self.precision,
            fp32_residual=self.fp32_residual,
            micro_batch=choice.micro_batch,
            accumulation=self.job.effective_batch // choice.micro_batch // self.processes,
            gradient_checkpointing=choice.checkpointed > 0,
            checkpointed_layers=choice.checkpointed if partly else None,
            resident_layers=choice.resident,
            backend=self.backend.name,
            products=self.backend.products(self.shape, self.job, on_gpu=self.gpu is not None),
            gpu_memory_gib=self.config.gpu_memory_gib if self.gpu else None,
            processes=self.processes,
        )

    def step_seconds(self, choice: Layout) -> float | None:
        return self.backend.step_seconds(self.shape, self.job, self.plan(choice), self.gpu or self.probe.cpus)


def choice_of(plan: Plan, layers: int) -> Layout:
    """How a plan lays out the work of a model with so many layers."""
    checkpointed = layers if plan.checkpointed_layers is None else plan.checkpointed_layers
    return Layout(plan.micro_batch, checkpointed if plan.gradient_checkpointing else 0, plan.resident_layers)


def make_plan(question: PlanningInput) -> Plan:
    """The fastest way that fits: of every micro-batch with as little recomputed as must be, then layers unpacked with
    what memory is left.

    Raises:
        InputError: the configured micro-batch does not divide the effective batch, or the configured backend cannot do
            the job.
        PreflightRefused: nothing fits, or not what is configured.
    """
    sizes = _micro_batches(question)
    fitting = [choice for size in sizes if (choice := _least_checkpointed(question, size))]
    if not fitting:
        smallest = max(_checkpointing(question))
        raise _too_large(question, Layout(min(sizes), smallest))
    choice = question.backend.fastest(fitting, question.step_seconds)
    if question.backend.keeps_dequantized and question.gpu is not None and question.job.quantization != "none":
        limit = RESIDENT_SHARE * question.device_gib
        more = (replace(choice, resident=number) for number in range(question.shape.layers, 0, -1))
        choice = next((one for one in more if question.memory.peak_gib(one) <= limit and question.fits(one)), choice)
    return question.plan(choice)


def _micro_batches(question: PlanningInput) -> list[int]:
    """Those that divide one process's share of the effective batch, largest first."""
    whole, processes, wanted = question.job.effective_batch, question.processes, question.job.micro_batch
    if whole % processes:
        raise InputError(
            f"{processes} processes do not divide the effective batch of {whole}",
            field="training.processes",
            remedy=f"choose {', '.join(str(n) for n in range(1, whole + 1) if whole % n == 0)}",
        )
    batch = whole // processes
    if wanted != "auto" and (wanted < 1 or batch % wanted):
        divisors = ", ".join(str(n) for n in range(1, batch + 1) if batch % n == 0)
        raise InputError(
            f"{wanted} does not divide the effective batch of {batch}" + (" a process" if processes > 1 else ""),
            field="training.micro_batch",
            remedy=f"choose {divisors} or auto",
        )
    return [n for n in range(batch, 0, -1) if batch % n == 0] if wanted == "auto" else [wanted]


def _checkpointing(question: PlanningInput) -> Sequence[int]:
    """Numbers of recomputed layers that may be chosen, least first."""
    layers, wanted = question.shape.layers, question.job.gradient_checkpointing
    if wanted != "auto":
        return [layers if wanted else 0]
    return question.backend.checkpointing(layers)


def _least_checkpointed(question: PlanningInput, micro_batch: int) -> Layout | None:
    choices = (Layout(micro_batch, checkpointed) for checkpointed in _checkpointing(question))
    return next((choice for choice in choices if question.fits(choice)), None)


def _too_large(question: PlanningInput, choice: Layout) -> PreflightRefused:
    job = question.job
    need = question.memory.needed_gib(choice)
    where = "the machine" if question.gpu is None else f"the {question.gpu.name}"
    how = f"{choice.micro_batch} × {job.max_length} tokens, "
    how += f"{'with' if choice.checkpointed else 'without'} gradient checkpointing"
    return PreflightRefused(
        f"training in {job.quantization} with {how} needs about {need:.1f} GiB; "
        f"{where} gives {question.budget_gib:.1f} GiB after headroom",
        remedy=" or ".join(_savings(question, choice)) or "use a machine with more memory",
    )


def _savings(question: PlanningInput, choice: Layout) -> list[str]:
    """Changes to the configuration that would make it fit."""
    job = question.job
    candidates: list[tuple[str, dict[str, Any]]] = []
    if choice.micro_batch > 1 or not choice.checkpointed:
        setting = "set training.micro_batch=auto and training.gradient_checkpointing=auto"
        candidates.append((setting, {"micro_batch": "auto", "gradient_checkpointing": "auto"}))
    if job.backend != "auto":
        candidates.append(("set training.backend=auto", {"backend": "auto"}))
    if job.quantization != "nf4":
        candidates.append(("set training.quantization=nf4", {"quantization": "nf4"}))
    if job.max_length > 64:
        shorter = max(64, job.max_length // 4)
        candidates.append((f"set tokenization.max_length={shorter}", {"max_length": shorter}))
    remedies = []
    for words, change in candidates:
        changed = replace(question, job=job.model_copy(update=change))
        if any(_least_checkpointed(changed, size) for size in _micro_batches(changed)):
            remedies.append(words)
    return remedies
