"""How much memory training with the libraries' modules takes at its peak: a sum of named parts, each with its source.

Measured anchors (one H200 capped at a T4's 14.56 GiB, CodeLlama-7b, 1,024 tokens a step, GiB): int8
1×4 with checkpointing 7.5, 4×1 with 9.3 to 9.4, 1×4 without 8.6, 4×1 without does not fit; nf4 1×4 with 3.9, 4×1
without 8.6. (nf4's were taken with double quantization, 0.28 GiB less of scales than here: without it the weights
alone take 3.9.)

Bytes per token and layer are counted from what the layers keep for their backward pass: transformers'
`modeling_llama`, PEFT's `lora.Linear` and bitsandbytes' `MatMul8bitLt`. That one keeps the 16-bit input of every
quantized layer though its backward pass never reads it when the weight is frozen, and keeps it as a plain attribute:
checkpointing, which works through saved tensors, does not let go of it. `MatMul4Bit` keeps none.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from tasks.backends.contract import (
    CONTEXT_GIB,
    HOST_RUNTIME_GIB,
    QUANTIZED_BYTES,
    JobShape,
    Layout,
    Precision,
    element_bytes,
)
from tasks.machines.records import GIB
from tasks.models.shape import ModelShape

OUTLIERS, MOST_OUTLIERS = 0.19, 0.4
"""Share of those inputs that LLM.int8() keeps a second time: columns with an outlier, copied for their 16-bit product.
Depends on what the model computes, which nobody knows before it is loaded: 0.4 and 0.0 in the two models measured
(`bench/results/memory.json`). The first lies within 5 % of the peaks of both; what must fit reckons with the second."""

KEPT = {"int8": 1.02, "nf4": 1.0, "none": 1.0}
"""What layers keep without checkpointing over what is counted here; fitted to `bench/results/memory.json`."""

RECOMPUTING = 1.5
"""A layer computed again, with the gradients that exist beside it, over what it keeps."""

HEAD_TOKENS, HEAD_COLUMNS, HOST_COLUMNS = 4096, 8192, 32768
"""Tokens and columns of logits that TRL has at a time (`kernels/chunked_logprob.py`). `bench/results/memory.json` shows
8,192 columns on a GPU; TRL 1.16 takes 32,768, which shows on a CPU."""
HOST_TILES = 8.25
"""How many tensors of a tile's size TRL makes in the backward pass on a CPU, where no kernel goes through it: logits,
scaled once and twice, log-probabilities, probabilities, gradient, its two parts, and a mask of a byte each."""

WORKSPACES = 64 * 2**20
"""What cuBLAS takes from torch's allocator on a GPU of compute capability 9.0: 32 MiB each for the two threads that
multiply, forward and backward. Others take 8."""

UNUSED_SHARE = 0.11
"""Of everything but the weights: holes that the allocator cannot use when it comes to the last byte. int8 4×1 without
checkpointing, which torch counts as 13.4 GiB, fitted into 13.89 once and failed there once."""

ADAPTER_BYTES = 16
"""Per trainable parameter: fp32 weight, gradient and Adam's two moments."""


@dataclass(frozen=True)
class TransformersMemory:
    """The parts of the peak for one model, job and precision; all in bytes unless the name says GiB."""

    shape: ModelShape
    job: JobShape
    precision: Precision
    on_gpu: bool
    fp32_residual: bool = False

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
        # what a frozen layer of `MatMul4Bit` or `torch.nn.functional.linear` need not keep: the second norm's output
        # and the product that enters the last layer of the MLP
        unkept = 0 if self.job.quantization == "int8" else size * (shape.hidden + self._widest)
        return per_layer - unkept

    @property
    def _widest(self) -> int:
        return max(kind.outputs for kind in self.shape.linears)

    @cached_property
    def held_token(self) -> float:
        """Per token and layer, what bitsandbytes holds on to whether layers are checkpointed or not."""
        if self.job.quantization != "int8" or not self.on_gpu:
            return 0
        return self.element * (3 * self.shape.hidden + self._widest)

    def loss(self, tokens: int) -> float:
        """At the loss: a tile of logits, and the last hidden state with its gradient, one of them in fp32."""
        columns, tiles = (HEAD_COLUMNS, 1) if self.on_gpu else (HOST_COLUMNS, HOST_TILES)
        tile = min(tokens, HEAD_TOKENS) * min(self.shape.vocabulary, columns) * self.element
        return tiles * tile + tokens * self.shape.hidden * (4 + 2 * self.element)

    def moving(self, micro_batch: int, checkpointing: bool, outliers: float = OUTLIERS) -> float:
        """What grows with the tokens of one forward pass."""
        layers, kept, held = self.shape.layers, self.layer_token, self.held_token
        if checkpointing:
            stream = self.shape.hidden * (4 if self.fp32_residual else self.element)
            per_token = layers * (stream + (1 + outliers) * held) + RECOMPUTING * kept
        else:
            per_token = layers * (kept + outliers * held) * (KEPT[self.job.quantization] if self.on_gpu else 1)
        if self.job.packed:  # what keeps texts apart, which attention makes anew in every layer and keeps
            per_token += (2 if checkpointing else layers) * self.job.max_length * self.element
        tokens = micro_batch * self.job.max_length
        return tokens * per_token + self.loss(tokens)

    def peak_gib(self, choice: Layout) -> float:
        """Highest memory of the training process on the device, as torch counts it (on a CPU: resident)."""
        return self._peak_gib(choice, OUTLIERS)

    def _peak_gib(self, choice: Layout, outliers: float) -> float:
        fixed = self.weights + self.adapter + self.dequantized + (WORKSPACES if self.on_gpu else 0)
        runtime = 0.0 if self.on_gpu else HOST_RUNTIME_GIB
        return (fixed + self.moving(choice.micro_batch, choice.checkpointed > 0, outliers)) / GIB + runtime

    def needed_gib(self, choice: Layout) -> float:
        """What the GPU must have for it: the allocator gives back what it holds unused before it fails."""
        peak = self._peak_gib(choice, MOST_OUTLIERS)
        return peak + CONTEXT_GIB + UNUSED_SHARE * (peak - self.weights / GIB) if self.on_gpu else peak
