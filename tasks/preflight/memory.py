"""How much memory training will need at its highest point: a sum of named parts, each with its source.

Measured anchors (one H200 capped at a T4's 14.56 GiB, CodeLlama-7b, 1,024 tokens a step, stock engine, GiB): int8
1×4 with checkpointing 7.5, 4×1 with 9.4, 1×4 without 8.6, 4×1 without does not fit; nf4 1×4 with 3.9, 4×1 without 8.6.
Without the CUDA context, which torch's figures leave out, the sum meets each within 15 %; the tests hold it to that.

Bytes per token and layer are counted from what the layers keep for their backward pass: transformers'
`modeling_llama`, PEFT's `lora.Linear` and bitsandbytes' `MatMul8bitLt`, which keeps the 16-bit input of every
quantized layer though its backward pass never reads it when the weight is frozen; `MatMul4Bit` keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

from tasks.preflight.job import JobShape
from tasks.preflight.machine import GIB
from tasks.preflight.shape import ModelShape

Precision = Literal["fp16", "bf16", "fp32"]

CONTEXT_GIB = 0.45
"""CUDA context and loaded kernels of a training process, outside what torch's allocator counts. An H200 takes 0.74, a
T4, with fewer multiprocessors, less: 0.3 to 0.45."""

HOST_RUNTIME_GIB = 0.7
"""Resident memory of the training process on a CPU beside model and activations: 0.5 for torch, transformers and TRL
once imported, the rest for the trainer and the allocator. Measured with the built-in model: 1.0 at the peak."""

QUANTIZED_BYTES = {
    "int8": 1.0,  # and one fp32 scale per output row, which is lost in the rounding
    "nf4": 0.5 + 4 / 64,  # 4 bits, and one fp32 scale for every 64 weights (no double quantization)
}
"""Bytes per parameter of a quantized linear layer."""

SLACK = {"int8": 1.2, "nf4": 1.0, "none": 1.0}
"""What the allocator holds for every byte of activations in use. Fitted to the anchors: bitsandbytes' int8 path frees
and takes buffers of changing size (outlier columns, int32 products), which leaves holes."""

ADAPTER_BYTES = 16
"""Per trainable parameter: fp32 weight, gradient and Adam's two moments."""


@dataclass(frozen=True)
class Choice:
    """How the work is laid out, as far as memory depends on it."""

    micro_batch: int
    """Sequences in one forward pass."""
    recomputed: int = 0
    """Layers computed again in the backward pass. The stock engine knows all or none."""
    unpacked: int = 0
    """Layers whose weights are kept in 16 bits (fused engine)."""


class Memory(Protocol):
    """What is known of an engine's need of memory."""

    def peak_gib(self, choice: Choice) -> float:
        """Highest memory of the training process on the device, as torch counts it (on a CPU: resident)."""

    def needed_gib(self, choice: Choice) -> float:
        """What the card must have for it, whatever torch counts: never less."""


def element_bytes(precision: Precision) -> int:
    """Of one number in the forward pass."""
    return 4 if precision == "fp32" else 2


@dataclass(frozen=True)
class StockMemory:
    """The parts of the peak for one model, job and precision; all in bytes unless the name says GiB."""

    shape: ModelShape
    job: JobShape
    precision: Precision
    on_gpu: bool

    @property
    def element(self) -> int:
        """Bytes of one number in the forward pass."""
        return element_bytes(self.precision)

    @cached_property
    def weights(self) -> float:
        """Base weights: linear layers quantized, everything else in the compute precision."""
        each = QUANTIZED_BYTES.get(self.job.quantization, self.element)
        return self.shape.linear_parameters * each + self.shape.other_parameters * self.element

    @cached_property
    def adapter(self) -> float:
        return ADAPTER_BYTES * self.shape.lora_parameters(self.job.lora_rank, self.job.lora_target_modules)

    @cached_property
    def dequantized(self) -> float:
        """The backward pass unpacks one weight at a time: the largest."""
        if self.job.quantization == "none":
            return 0
        return max(kind.inputs * kind.outputs for kind in self.shape.linears) * self.element

    @cached_property
    def layer_token(self) -> float:
        """Kept for the backward pass by one layer, per token, without checkpointing."""
        shape, size = self.shape, self.element
        norms = 2 * (4 + size) * shape.hidden  # fp32 input, and the output in compute precision
        targets = shape.targets(self.job.lora_target_modules)
        adapters = sum(size * kind.inputs * kind.count for kind in targets)
        widths = sum(kind.outputs * kind.count for kind in shape.linears)
        # q, k, v and their attention, gate, up, and what the next norm makes of the last one
        outputs = size * widths
        activation = size * 2 * self._widest  # act(gate), and its product with up
        per_layer = norms + (adapters + outputs) / shape.layers + activation
        return per_layer - (0 if self.job.quantization == "int8" else self._unkept_inputs)

    @property
    def _widest(self) -> int:
        return max(kind.outputs for kind in self.shape.linears)

    @property
    def _unkept_inputs(self) -> float:
        """Inputs that a frozen layer of `MatMul4Bit` or `torch.nn.functional.linear` need not keep: the second
        norm's output and the product that enters the last layer of the MLP."""
        return self.element * (self.shape.hidden + self._widest)

    @cached_property
    def logits_token(self) -> float:
        """Per token at the loss: logits and their gradient in compute precision; in fp32 the copies of accelerate and
        of the loss, the log-softmax, its gradient, and one temporary."""
        return self.shape.vocabulary * (2 * self.element + 5 * 4)

    def moving(self, micro_batch: int, checkpointing: bool) -> float:
        """What grows with the tokens of one forward pass."""
        layers, kept = self.shape.layers, self.layer_token
        # with checkpointing: the input of every layer, one layer recomputed, and gradients half its size beside it
        checkpointed = self.shape.hidden * self.element * layers + 1.5 * kept
        per_token = checkpointed if checkpointing else layers * kept
        slack = SLACK[self.job.quantization] if self.on_gpu else 1.0
        return micro_batch * self.job.max_length * (per_token + self.logits_token) * slack

    def peak_gib(self, choice: Choice) -> float:
        """Highest memory of the training process on the device, as torch counts it (on a CPU: resident)."""
        fixed = self.weights + self.adapter + self.dequantized
        runtime = 0 if self.on_gpu else HOST_RUNTIME_GIB
        return (fixed + self.moving(choice.micro_batch, choice.recomputed > 0)) / GIB + runtime

    def needed_gib(self, choice: Choice) -> float:
        """What the card must have for it."""
        return self.peak_gib(choice) + (CONTEXT_GIB if self.on_gpu else 0)
