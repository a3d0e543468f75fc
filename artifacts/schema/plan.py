"""What preflight found, and the plan that training follows."""

from __future__ import annotations

from typing import ClassVar, Literal

from artifacts import digest
from artifacts.schema.base import Handle, Record

Products = Literal["fp16", "int8"]
"""What the frozen layers' matrix products run on: 16-bit numbers (fp32 on a CPU), or int8 tensor cores."""


class Plan(Record):
    """How the job will run on this machine: whatever here differs makes different bits, but for what `fingerprint`
    leaves out."""

    device: Literal["cuda", "cpu"]
    precision: Literal["fp16", "bf16", "fp32"]
    """Arithmetic of the forward and backward pass; trainable weights are fp32 always."""
    fp32_residual: bool = False
    """Whether the residual stream is kept in fp32 all the same (`tasks.models.residual`)."""
    micro_batch: int
    """Sequences in one forward pass."""
    accumulation: int
    """Forward passes in one optimizer step, of each process; micro_batch × accumulation × processes is the effective
    batch."""
    gradient_checkpointing: bool
    """Whether layers keep only their input and are computed again in the backward pass."""
    checkpointed_layers: int | None = None
    """How many, from the first, when not all of them."""
    resident_layers: int = 0
    """Layers, from the first, whose frozen weights are kept in 16 bits because there is memory for it; for products in
    int8, whose codes are kept transposed as well."""
    backend: str
    """What computes: a name of `tasks.backends`."""
    products: Products = "fp16"
    """What the products of frozen layers run on."""
    gpu_memory_gib: float | None = None
    """What the process may take of the GPU, GiB; None for all of it."""
    processes: int = 1
    """Processes that train together, each on a GPU of its own, on its share of every batch."""

    @property
    def effective_batch(self) -> int:
        """Sequences in one optimizer step."""
        return self.micro_batch * self.accumulation * self.processes

    @property
    def precision_in_words(self) -> str:
        """`fp16`, `fp16 with a residual stream in fp32`."""
        return self.precision + (" with a residual stream in fp32" if self.fp32_residual else "")

    @property
    def batch_in_words(self) -> str:
        """`4 × 1`, `2 × 1 in 2 processes`."""
        together = f" in {self.processes} processes" if self.processes > 1 else ""
        return f"{self.micro_batch} × {self.accumulation}{together}"

    @property
    def checkpointing_in_words(self) -> str:
        """`no gradient checkpointing`, `with gradient checkpointing`, `with gradient checkpointing of 12 layers`."""
        how = "with" if self.gradient_checkpointing else "no"
        some = "" if self.checkpointed_layers is None else f" of {self.checkpointed_layers} layers"
        return f"{how} gradient checkpointing{some}"

    @property
    def fingerprint(self) -> str:
        without_bits = {"gpu_memory_gib", "resident_layers"}  # the same numbers, only kept otherwise
        unused = set() if self.fp32_residual else {"fp32_residual"}
        return digest.of_json(self.model_dump(mode="json", exclude=without_bits | unused))


class Prediction(Record):
    """What the plan is expected to cost. None where nothing is known to predict from."""

    peak_gib: float
    """Peak memory of the training process on the device (GPU memory as torch counts it, or resident memory on a CPU),
    GiB."""
    needed_gib: float = 0
    """What the device must have for that, GiB: on a GPU also the CUDA context and what the allocator cannot use."""
    optional_gib: float = 0
    """The part of it that unpacked layers take: training does without when memory runs out."""
    tokens_per_second: float | None
    seconds: float | None
    """Wall time of all optimizer steps; None also where nobody knows how many there will be."""
    step_seconds: float | None = None
    """Wall time of one."""
    steps: int | None = None
    """At most; None where `epochs` counts."""
    epochs: float | Literal["auto"] | None = None
    """Passes over the training data, in place of steps."""
    budget_steps: int | None = None
    """As many optimizer steps as the time budget has room for; None without a budget."""
    disk_gib: float
    """What the run writes to the store and to the hub's cache."""


class Check(Record):
    """One thing that preflight looked at."""

    name: str
    verdict: Literal["ok", "warning", "refused"]
    finding: str
    remedy: str = ""


class PreflightReport(Handle):
    """`plan.json`: the plan; `probe.json`: what was seen of the machine (a measurement, no part of the fingerprint)."""

    measurements: ClassVar[tuple[str, ...]] = ("probe.json",)

    machine: str
    """The machine in words: `NVIDIA T4, 15 GiB, sm_75, driver 580.65` or `CPU, 2 cores, 24 GiB`."""
    plan: Plan
    prediction: Prediction
    checks: tuple[Check, ...]

    @property
    def known_by(self) -> frozenset[str]:
        return frozenset({self.fingerprint, self.plan.fingerprint})

    @property
    def summary(self) -> str:
        plan = self.plan
        return (
            f"{self.machine}: {plan.precision_in_words}, backend {plan.backend}, "
            f"batch {plan.batch_in_words}, {plan.checkpointing_in_words}, "
            f"{self.prediction.peak_gib:.1f} GiB expected"
        )
