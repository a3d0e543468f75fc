"""What a backend is: it says what a job takes, trains micro-batches, and computes losses and answers.

A backend is a folder beside this module and a line in the registry (`tasks.backends`). Preflight asks it whether it can
do a job and what that takes; training asks it for steps; generation asks it for losses and answers. Nothing else knows
how a backend works. This module imports no torch, and neither does a backend until it is to compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from artifacts import digest
from artifacts.schema import Plan, Products, Quantization, Record
from tasks.machines.records import Gpu
from tasks.models.shape import ModelShape

if TYPE_CHECKING:
    import torch

Precision = Literal["fp16", "bf16", "fp32"]

CONTEXT_GIB = 0.45
"""CUDA context and loaded kernels of a training process, outside what torch's allocator counts. An H200 takes 0.74, a
T4, with fewer multiprocessors, less: 0.3 to 0.45."""

HOST_RUNTIME_GIB = 0.8
"""Resident memory of the training process on a CPU beside model, activations and logits: 0.6 for torch, transformers
and TRL once imported, the rest for the trainer and the allocator."""

QUANTIZED_BYTES = {
    "int8": 1.0,  # and one fp32 scale per output row, which is lost in the rounding
    "nf4": 0.5 + 4 / 64,  # 4 bits, and one fp32 scale for every 64 weights (no double quantization)
}
"""Bytes per parameter of a quantized linear layer."""

CPU_SECONDS = 7e-11
"""Core-seconds per parameter and token, forward and backward. This and the next two were fitted to five jobs of the
built-in model, of which 1,024 tokens took between 0.6 and 1.2 core-seconds."""

CPU_ATTENTION_SECONDS = 1.6e-10
"""The same per token, layer, token before it and width: for a small model as much as the rest, at 1,024 tokens."""

CPU_ADAPTER_SECONDS = 1.6e-10
"""The same per weight of the adapters and token."""

CPU_STEP_SECONDS = 0.03
"""What a step costs on a CPU whatever its size: the trainer, optimizer and log."""


class JobShape(Record):
    """What will be trained and how large it is, without the data."""

    quantization: Quantization = "int8"
    lora_rank: int = 8
    lora_target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Names as PEFT takes them: the end of a module's dotted name. `("all-linear",)` for every linear layer."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    max_length: int = 256
    """Tokens in a sequence."""
    format: Literal["causal", "fim", "instruct"] = "causal"
    effective_batch: int = 4
    """Sequences in one optimizer step."""
    micro_batch: int | Literal["auto"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    processes: int | Literal["auto"] = 1
    """Processes that train together."""
    backend: str = "auto"
    """The name of a backend, or `auto`."""
    products: Products | Literal["auto"] = "fp16"
    """What the products of frozen layers are to run on."""
    max_steps: int | None = 200
    """Optimizer steps; None where `epochs` counts."""
    epochs: float | Literal["auto"] | None = None
    """Passes over the training data, which is not known yet."""
    packed: bool = False
    """Whether a sequence holds several texts, none of which sees another."""
    keeps_best: bool = False
    """Whether checkpoints hold the best weights beside the last."""
    sample_files: int = 2000
    """Source files that sampling will write to the store."""
    exports: tuple[str, ...] = ("merged",)
    """The forms that will be written beside the adapter."""
    measured: tuple[str, ...] = ()
    """Those as which both models will be measured, one after the other: the base becomes such a file, too."""

    @property
    def fingerprint(self) -> str:
        return digest.of_json(self.model_dump(mode="json"))

    @property
    def step_tokens(self) -> int:
        """Tokens in one optimizer step, padding included."""
        return self.effective_batch * self.max_length


@dataclass(frozen=True)
class Layout:
    """How the work is laid out, as far as memory depends on it."""

    micro_batch: int
    """Sequences in one forward pass."""
    checkpointed: int = 0
    """Layers computed again in the backward pass."""
    resident: int = 0
    """Layers whose weights are kept in 16 bits."""


class Memory(Protocol):
    """A backend's need of memory for one model and job."""

    def peak_gib(self, layout: Layout) -> float:
        """Highest memory of the training process on the device, as torch counts it (on a CPU: resident)."""

    def needed_gib(self, layout: Layout) -> float:
        """What the GPU must have for it, whatever torch counts: never less."""


@dataclass(frozen=True)
class Decoding:
    """How answers are made."""

    batch_size: int
    max_new_tokens: int
    stop: frozenset[int]
    """Tokens that end an answer; they are part of it."""
    ended: Callable[[list[int]], bool] | None = None
    """Whether an answer is complete by what its tokens say together. Asked now and then: an answer may be longer."""
    first: Sequence[Sequence[int]] = ()
    """By prompt, the tokens of which an answer begins with one, which does not end it; empty for any."""
    pad: int = 0
    """Any id: padding is masked."""


class Computing(Protocol):
    """Base or tuned, ready to compute."""

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Summed negative log-likelihood of each sequence's counted tokens, in nats: float64 by row, from fp32.

        Args:
            ids: sequences × tokens, padded on the right, where no token before it can see it.
            counts: for each token, whether predicting it from those before counts; not so for the first.
        """

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        """The most likely next token, again and again, for every prompt.

        Args:
            prompts: token ids, at least one per prompt.
            done: called with the number of further prompts answered.

        Returns:
            New tokens by prompt, up to and including the first stop token.
        """


class Inference(Protocol):
    """A loaded model and its adapter, ready to compute with or without it."""

    def side(self, *, adapted: bool) -> AbstractContextManager[Computing]:
        """The model with its adapter, or its base alone, until the block ends. Both compute alike."""


class Stepping(Protocol):
    """Computes micro-batches in the place of the trainer's own forward and backward pass."""

    def step(self, model: Any, inputs: dict[str, Any], items: Any, scaler: Any, *, last: bool) -> torch.Tensor:
        """The micro-batch's part of the step's mean loss; its gradients, scaled, are added to the adapter's.

        Of several processes each has its own micro-batches; after the last of a step all have the sum of all gradients.

        Args:
            inputs: `input_ids`, `labels` and, where texts are packed, `position_ids`, which begin with each anew:
                sequences × tokens.
            items: tokens that count in the whole optimizer step.
            scaler: accelerate's gradient scaler; None where fp16 is not computed in.
            last: the micro-batch is the last of its optimizer step.
        """

    def loss(self, model: Any, ids: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The summed loss of the labels that count, in nats. Nothing is learned, nothing is dropped out, and no random
        number is drawn.

        Args:
            ids: sequences × tokens, as long as a micro-batch's; how many sequences does not matter.
        """


class Backend(Protocol):
    """What computes."""

    name: str
    """As plans, settings and reports call it."""
    keeps_dequantized: bool
    """Whether it can keep layers' weights in 16 bits where there is memory for it."""

    def unsupported(self, shape: ModelShape, job: JobShape, gpu: Gpu | None) -> str | None:
        """Why it cannot do a job; None when it can. `gpu` is None for a CPU."""

    def products(self, shape: ModelShape, job: JobShape, *, on_gpu: bool) -> Products:
        """What the products of frozen layers run on, of what the job allows."""

    def memory(
        self, shape: ModelShape, job: JobShape, precision: Precision, *, on_gpu: bool, fp32_residual: bool = False
    ) -> Memory:
        """What a job takes. `fp32_residual`: its residual stream is kept in fp32 whatever the precision."""

    def step_seconds(self, shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
        """Wall time of one optimizer step on a GPU, or on a number of CPU cores. None for an unknown GPU."""

    def checkpointing(self, layers: int) -> Sequence[int]:
        """The numbers of layers that may be computed again in the backward pass, least first."""

    def fastest(self, layouts: Sequence[Layout], seconds: Callable[[Layout], float | None]) -> Layout:
        """Of those that fit, largest micro-batch first, the one to take. `seconds`: what a step takes."""

    def stepping(self, plan: Plan, layers: int, *, packed: bool = False) -> Stepping | None:
        """What computes micro-batches; None where the trainer computes them itself. Imports torch.

        `packed`: a sequence holds several texts, none of which sees another.
        """

    def inference(self, model: Any, length: int) -> Inference | None:
        """A model as PEFT wraps it, ready to compute; None, told in the log, where it cannot. Imports torch.

        Args:
            length: the longest text in tokens, answers included.
        """


def element_bytes(precision: Precision) -> int:
    """Of one number in the forward pass."""
    return 4 if precision == "fp32" else 2


def cpu_seconds(shape: ModelShape, job: JobShape, plan: Plan, cores: int) -> float:
    """Wall time of one optimizer step on CPU cores."""
    passes = 3 if plan.gradient_checkpointing else 2  # forward, gradients of the inputs, and the recomputation
    token = CPU_SECONDS * shape.parameters
    token += CPU_ATTENTION_SECONDS * shape.layers * job.max_length * shape.hidden
    token += CPU_ADAPTER_SECONDS * shape.lora_parameters(job.lora_rank, job.lora_target_modules)
    return token * job.step_tokens / cores * passes / 2 + plan.accumulation * CPU_STEP_SECONDS
