"""From the machine and the job to the plan: device, precision, engine, micro-batch, checkpointing, unpacked layers.

The plan depends on what a machine *has*, never on what happens to be free: the same job on the same machine gets the
same plan, and with it the same bits. Whether enough is free is checked afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from artifacts.errors import InputError, PreflightRefused
from artifacts.schema import Engine, Plan
from tasks.preflight.config import JobShape, PreflightConfig
from tasks.preflight.fused_memory import FusedMemory
from tasks.preflight.machine import Gpu, MachineProbe
from tasks.preflight.memory import Choice, Memory, Precision, StockMemory
from tasks.preflight.shape import ModelShape
from tasks.preflight.speed import step_seconds

FUSED_CAPABILITY = (7, 5)
"""The oldest cards that the fused engine's kernels were compiled for: T4."""

UNPACKED_SHARE = 0.8
"""Of the card's memory: layers are kept in 16 bits while the predicted peak stays below. They save a little time, so
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
        """The card that the run will use; None for the CPU."""
        if self.config.device == "cpu" or not self.probe.gpus:
            return None
        # a build of torch without CUDA cannot use the card
        return self.probe.gpus[0] if self.probe.torch_cuda or self.config.device == "cuda" else None

    @property
    def processes(self) -> int:
        """How many train together."""
        wanted = self.job.processes
        if wanted != "auto":
            return wanted
        cards = len(self.probe.gpus) if self.gpu else 1
        return max(number for number in range(1, cards + 1) if self.job.effective_batch % number == 0)

    @property
    def memory(self) -> Memory:
        kind = FusedMemory if self.engine == "fused" else StockMemory
        return kind(self.shape, self.job, self.precision, on_gpu=self.gpu is not None)

    @property
    def engine(self) -> Engine:
        """Who computes. On a CPU the libraries do unless the configuration says otherwise."""
        if self.job.engine != "auto":
            return self.job.engine
        return "stock" if self.gpu is None or self.not_fused else "fused"

    @property
    def not_fused(self) -> str:
        """Why the fused engine cannot do the job; empty when it can."""
        if self.shape.not_fused:
            return self.shape.not_fused
        if self.shape.adapts_other_modules(self.job.lora_target_modules):
            return "it trains adapters on the linear layers of attention and MLP only"
        if self.gpu is not None and self.gpu.capability < FUSED_CAPABILITY:
            return f"its kernels need compute capability 7.5, the {self.gpu.name} has less"
        return ""

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
    def card_gib(self) -> float:
        """Memory of the card (the smallest of several), or of the machine, that one process may take."""
        if self.gpu is None:
            return self.probe.memory_gib / self.processes
        smallest = min(gpu.total_gib for gpu in self.probe.gpus[: self.processes])
        return min(smallest, self.config.gpu_memory_gib or smallest)

    @property
    def budget_gib(self) -> float:
        """Memory that what is needed must fit into."""
        return self.card_gib * (1 - self.config.headroom)

    def fits(self, choice: Choice) -> bool:
        return self.memory.needed_gib(choice) <= self.budget_gib

    def plan(self, choice: Choice) -> Plan:
        """The plan that lays out the work like this."""
        partly = 0 < choice.recomputed < self.shape.layers
        return Plan(
            device="cpu" if self.gpu is None else "cuda",
            precision=self.precision,
            micro_batch=choice.micro_batch,
            accumulation=self.job.effective_batch // choice.micro_batch // self.processes,
            gradient_checkpointing=choice.recomputed > 0,
            recomputed_layers=choice.recomputed if partly else None,
            unpacked_layers=choice.unpacked,
            engine=self.engine,
            gpu_memory_gib=self.config.gpu_memory_gib if self.gpu else None,
            processes=self.processes,
        )

    def step_seconds(self, choice: Choice) -> float | None:
        return step_seconds(self.shape, self.job, self.plan(choice), self.gpu or self.probe.cpus)


def choice_of(plan: Plan, layers: int) -> Choice:
    """How a plan lays out the work of a model with so many layers."""
    recomputed = layers if plan.recomputed_layers is None else plan.recomputed_layers
    return Choice(plan.micro_batch, recomputed if plan.gradient_checkpointing else 0, plan.unpacked_layers)


def make_plan(question: PlanningInput) -> Plan:
    """The fastest way that fits: of every micro-batch with as little recomputed as must be, then layers unpacked with
    what memory is left.

    Raises:
        InputError: the configured micro-batch does not divide the effective batch, or the engine does not know the
            model.
        PreflightRefused: nothing fits, or not what is configured.
    """
    _check_engine(question)
    sizes = _micro_batches(question)
    fitting = [choice for size in sizes if (choice := _least_recomputed(question, size))]
    if not fitting:
        smallest = max(_recomputations(question))
        raise _too_large(question, Choice(min(sizes), smallest))
    return question.plan(_with_unpacked(question, _fastest(question, fitting)))


def _check_engine(question: PlanningInput) -> None:
    if question.engine == "fused" and question.not_fused:
        raise InputError(
            f"the fused engine cannot do this job: {question.not_fused}",
            field="training.engine",
            remedy="set training.engine=auto, which leaves it to the libraries' own modules",
        )


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


def _recomputations(question: PlanningInput) -> Sequence[int]:
    """Numbers of recomputed layers that may be chosen, least first."""
    layers, wanted = question.shape.layers, question.job.gradient_checkpointing
    if wanted != "auto":
        return [layers if wanted else 0]
    return range(layers + 1) if question.engine == "fused" else [0, layers]


def _least_recomputed(question: PlanningInput, micro_batch: int) -> Choice | None:
    choices = (Choice(micro_batch, recomputed) for recomputed in _recomputations(question))
    return next((choice for choice in choices if question.fits(choice)), None)


def _fastest(question: PlanningInput, choices: Sequence[Choice]) -> Choice:
    """By the time model; the largest micro-batch where that does not know the card, and with the stock engine, whose
    time goes by passes."""
    if question.engine == "stock":
        return choices[0]
    return min(choices, key=lambda choice: question.step_seconds(choice) or 0)  # the first of equals


def _with_unpacked(question: PlanningInput, choice: Choice) -> Choice:
    if question.engine == "stock" or question.gpu is None or question.job.quantization == "none":
        return choice
    limit = UNPACKED_SHARE * question.card_gib
    more = (replace(choice, unpacked=number) for number in range(question.shape.layers, 0, -1))
    return next((one for one in more if question.memory.peak_gib(one) <= limit and question.fits(one)), choice)


def _too_large(question: PlanningInput, choice: Choice) -> PreflightRefused:
    job = question.job
    need = question.memory.needed_gib(choice)
    where = "the machine" if question.gpu is None else f"the {question.gpu.name}"
    how = f"{choice.micro_batch} × {job.max_length} tokens, "
    how += f"{'with' if choice.recomputed else 'without'} gradient checkpointing"
    return PreflightRefused(
        f"training in {job.quantization} with {how} needs about {need:.1f} GiB; "
        f"{where} gives {question.budget_gib:.1f} GiB after headroom",
        remedy=" or ".join(_savings(question, choice)) or "use a machine with more memory",
    )


def _savings(question: PlanningInput, choice: Choice) -> list[str]:
    """Changes to the configuration that would make it fit."""
    job = question.job
    candidates: list[tuple[str, dict[str, Any]]] = []
    if choice.micro_batch > 1 or not choice.recomputed:
        setting = "set training.micro_batch=auto and training.gradient_checkpointing=auto"
        candidates.append((setting, {"micro_batch": "auto", "gradient_checkpointing": "auto"}))
    if job.engine == "stock" and question.gpu is not None and not question.not_fused:
        candidates.append(("set training.engine=auto", {"engine": "auto"}))
    if job.quantization != "nf4":
        candidates.append(("set training.quantization=nf4", {"quantization": "nf4"}))
    if job.max_length > 64:
        shorter = max(64, job.max_length // 4)
        candidates.append((f"set tokenization.max_length={shorter}", {"max_length": shorter}))
    return [words for words, change in candidates if _would_fit(question, change)]


def _would_fit(question: PlanningInput, change: dict[str, Any]) -> bool:
    changed = replace(question, job=question.job.model_copy(update=change))
    return any(_least_recomputed(changed, size) for size in _micro_batches(changed))
