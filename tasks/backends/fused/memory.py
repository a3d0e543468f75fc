"""How much memory the fused engine will need at its highest point: a sum that follows its code, tensor by tensor.

Nothing in the engine is left to autograd, so what exists at any moment can be counted: `layers` keeps what `_kept`
lists, and the temporaries of each moment are those of `_moments`. Sizes are those of torch's caching
allocator, which rounds (`_block`) and never gives back parts of what it took from the driver (`_segment`).

Measured (H200, CodeLlama-7b, int8, 4 × 256 tokens, no checkpointing, one CUDA graph, GiB allocated): 9.75 with one
buffer for unpacked weights, 9.93 with two, 10.28 with four.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from tasks.backends.contract import (
    CONTEXT_GIB,
    QUANTIZED_BYTES,
    JobShape,
    Layout,
    Precision,
    element_bytes,
)
from tasks.backends.fused.support import ALIGNED, APART, DEPTH, GROUPS, HEAD_TOKENS, SUMS, products_of
from tasks.machines.records import GIB
from tasks.models.shape import LinearKind, ModelShape

MIB = 2**20

ADAPTER_BYTES = 12
"""Per trainable parameter: fp32 weight and gradient, 16-bit copy, and the 16-bit gradient of one micro-batch."""
MOMENT_BYTES = 8
"""Per trainable parameter: Adam's two moments. They come with the first optimizer step, when the graph is recorded and
torch counts its memory as free: they are no part of the highest figure, but of what is needed."""
WORKSPACES = 48 * MIB
"""What cuBLAS takes from torch's allocator while the graph is recorded; fitted to the measured peaks."""
HOST_GIB = 0.6
"""Resident memory of the training process on a CPU beside all tensors: torch, transformers and TRL once imported."""
UNUSED_SHARE = 0.08
"""Of what grows with the tokens: memory that the graph's pool holds in pieces that nothing fits into. Nothing of it is
given back while a graph is recorded (`CUDACachingAllocator.cpp`, `alloc_block`). Measured in int8, where memory is
short: 0.45 GiB beside 5.8 that grow with the tokens; dropout masks add nothing to it."""


@dataclass(frozen=True)
class FusedMemory:
    """The parts of the peak for one model, job and precision; all in bytes unless the name says GiB."""

    shape: ModelShape
    job: JobShape
    precision: Precision
    on_gpu: bool
    fp32_residual: bool = False

    def peak_gib(self, choice: Layout) -> float:
        """Highest memory of the training process on the device, as torch counts it (on a CPU: resident)."""
        if self.on_gpu:
            return (self.fixed(choice) + self.moving(choice)) / GIB
        return (self.fixed(choice) + self.moments + self.moving(choice)) / GIB + HOST_GIB

    def needed_gib(self, choice: Layout) -> float:
        """What the GPU must have for it: the peak, what the allocator holds unused, and the CUDA context."""
        if not self.on_gpu:
            return self.peak_gib(choice)
        held = self.fixed(choice) + self.moments + (1 + UNUSED_SHARE) * self._sum(choice, _segment)
        return held / GIB + CONTEXT_GIB

    # --- what does not depend on the tokens -------------------------------------------------------------------

    def fixed(self, choice: Layout) -> float:
        """Weights, adapter, buffers for unpacked weights, angles, workspaces."""
        workspaces = WORKSPACES if self.on_gpu else 0
        return self.weights + choice.resident * self.unpacking + self.adapter + self.buffers(choice) + workspaces

    @cached_property
    def element(self) -> int:
        """Bytes of one number in the forward pass."""
        return element_bytes(self.precision)

    @cached_property
    def _stream(self) -> int:
        """Bytes of one number of the residual stream, and of what is added to it."""
        return 4 if self.fp32_residual else self.element

    @cached_property
    def weights(self) -> float:
        """Base weights as they are stored, everything else in the compute precision."""
        other = self.shape.other_parameters * self.element
        if self.job.quantization == "none":
            return other + self.shape.linear_parameters * self.element
        linear = self.shape.linear_parameters * QUANTIZED_BYTES[self.job.quantization]
        # bitsandbytes' largest magnitude of each row, and the engine's scale; both fp32
        rows = sum(kind.outputs * kind.count for kind in self.shape.linears)
        return other + linear + (2 * 4 * rows if self.job.quantization == "int8" else 0) + self._apart

    @cached_property
    def unpacking(self) -> float:
        """What a layer takes more when its weights are kept in 16 bits."""
        if self.job.quantization == "none":
            return 0
        stored = {"int8": 1.0, "nf4": 0.5}[self.job.quantization]  # nf4's scales stay where they are
        more = 1 if self._int8 else self.element - stored  # the codes once more, transposed, or in place of the codes
        return self.shape.linear_parameters / self.shape.layers * more

    @cached_property
    def _int8(self) -> bool:
        """Whether products run on int8 tensor cores."""
        return products_of(self.shape, self.job, on_gpu=self.on_gpu) == "int8"

    @cached_property
    def _apart(self) -> float:
        """Weights of the columns that stay in 16 bits then, and which those are."""
        if not self._int8:
            return 0
        outputs = sum(kind.outputs * kind.count for kind in self.shape.linears)
        inputs = self.shape.layers * sum(self.shape.kind(members[0]).inputs for members in GROUPS.values())
        return APART * outputs * self.element + 4 * inputs

    @cached_property
    def adapter(self) -> float:
        return ADAPTER_BYTES * self._trained

    @cached_property
    def moments(self) -> float:
        return MOMENT_BYTES * self._trained

    @cached_property
    def _trained(self) -> int:
        return self.shape.lora_parameters(self.job.lora_rank, self.job.lora_target_modules)

    def buffers(self, choice: Layout) -> float:
        """Where weights are unpacked to, or codes transposed."""
        if self.job.quantization == "none" or choice.resident >= self.shape.layers:
            return 0
        height = self._outputs if self._int8 else self._width
        largest = max(height(group) * self.shape.kind(members[0]).inputs for group, members in GROUPS.items())
        return largest * (1 if self._int8 else self.element) * (DEPTH if self.on_gpu else 1)

    # --- what grows with the tokens ---------------------------------------------------------------------------

    def moving(self, choice: Layout) -> float:
        """Activations: what is kept for the backward pass, and the most that exists beside it."""
        return self._sum(choice, _block if self.on_gpu else _resident)

    def _sum(self, choice: Layout, size: Callable[[float], float]) -> float:
        tokens, layers = choice.micro_batch * self.job.max_length, self.shape.layers
        checkpointed = min(choice.checkpointed, layers)
        stream = size(tokens * self._width("down") * self._stream)
        layer = sum(size(tokens * each) for each in self._kept)
        masks = self._masks(choice, size)
        # the highest moment of the layers that keep everything, and of those that are computed again
        whole = checkpointed * stream + (layers - checkpointed) * layer
        again = checkpointed * stream + layer if checkpointed else 0
        moments = [sum(map(size, moment)) for moment in self._moments(tokens)]
        # after a recomputed layer the stream is nobody's but the loss's; in the backward pass the layer's output stays
        unkept = size(tokens * self._width("o") * self._stream) if checkpointed == layers else 0
        whole += max(moments[0] + unkept, *moments[1:])
        again += stream + max(moments[1:]) if checkpointed else 0
        # what keeps texts apart: for all layers
        apart = size(tokens * self.job.max_length * self.element) if self.job.packed else 0
        return max(whole, again) + masks + apart + 6 * size(8 * tokens)

    def _masks(self, choice: Layout, size: Callable[[float], float] = float) -> float:
        """A byte per token and input of every adapter that drops out."""
        tokens = choice.micro_batch * self.job.max_length
        return self.shape.layers * sum(size(tokens * kind.inputs) for kind in self._dropping)

    @cached_property
    def _kept(self) -> tuple[float, ...]:
        """Bytes per token of each tensor that a layer keeps: `tasks.backends.fused.layers.Kept`."""
        size = self.element
        h, middle = self._width("down") * self._stream, self._width("o") * self._stream
        attended, qkv, gate_up = self._queries * size, self._width("qkv") * size, self._width("gate_up") * size
        padded = -(-self.job.max_length // 32) * 32 / self.job.max_length  # of the log-sum-exp, to whole blocks
        return h, qkv, attended, 4 * self.shape.heads * padded, middle, gate_up, 4, 4

    def _moments(self, tokens: int) -> Iterator[tuple[float, ...]]:
        """Temporaries that exist together beside what is kept, in bytes: the loss first, then moments of a layer."""
        e, t = self.element, tokens * self.element
        hidden, queries = self.shape.hidden, self._queries
        keys, mlp = (self.shape.kind(name).outputs for name in ("self_attn.k_proj", "mlp.gate_proj"))
        # those of the tokens before are still there; on a CPU softmax makes as much beside them
        twice = tokens > HEAD_TOKENS or not self.on_gpu
        logits = [min(tokens, HEAD_TOKENS) * self.shape.vocabulary * e] * (2 if twice else 1)
        made = tokens * self._stream * self._width("down")
        yield (made, t * hidden, *logits, t * hidden)
        if self._int8:
            yield from self._int8_moments(tokens)
            return
        dropped = [2 * t * kind.inputs for kind in self._dropping]
        expanded = [t * queries] * 2 if keys != queries else []
        yield (t * hidden, *expanded, max(dropped, default=0))  # forward: attention's inputs
        yield (t * mlp, made, max(dropped, default=0))  # forward: the end of the MLP
        wide = [t * self._width("down")] if self._adapted("down") else []
        activation = [t * mlp] if self._adapted("down") else []
        yield (t * hidden, *wide, t * mlp, *activation, max(dropped, default=0))  # backward: the MLP's activation
        wide = [t * self._width("o")] if self._adapted("o") else []
        base = (t * hidden, *wide, t * queries)  # gradients of the stream and of attention's output
        accumulated = 4 * tokens * queries if e < 4 else 0  # dq is added up in fp32
        delta = 4 * tokens * self.shape.heads
        yield (*base, *expanded, t * queries, t * queries, t * queries, accumulated, delta)
        summed = [t * keys] * 2 if keys != queries else []
        yield (*base, t * queries, t * queries, t * queries, *summed)
        yield (*base, t * queries, t * keys, t * keys, t * self._width("qkv"))
        yield (t * hidden, t * self._width("qkv"), t * hidden, max(dropped, default=0))  # backward: the layer's input

    def _int8_moments(self, tokens: int) -> Iterator[tuple[float, ...]]:
        """As `_moments`, of a layer whose products run on int8 tensor cores: their inputs exist in int8, their scales
        aside, and where cuBLASLt makes them some of their sums in 32 bits."""
        t = tokens * self.element
        hidden, queries = self.shape.hidden, self._queries
        keys, mlp = (self.shape.kind(name).outputs for name in ("self_attn.k_proj", "mlp.gate_proj"))
        made, apart = tokens * self._stream * self._width("down"), t * APART
        dropped = max((2 * t * kind.inputs for kind in self._dropping), default=0)
        expanded = [t * queries] * 2 if keys != queries else []

        def sums(outputs: int) -> float:
            return 4 * tokens * min(SUMS, outputs) if self.on_gpu else 4 * tokens * outputs * 2

        def plain(group: str, size: int) -> list[float]:
            return [t * size] if self._adapted(group) else []

        for group in ("qkv", "gate_up"):
            yield (tokens * hidden, apart, *plain(group, hidden), dropped, sums(self._outputs(group)))
        yield (*expanded, tokens * queries, apart, sums(hidden))
        yield (tokens * mlp, apart, *plain("down", mlp), made, dropped, sums(hidden))
        wide = [t * self._width("down")] if self._adapted("down") else []
        base = (t * hidden, *wide, t * mlp, *plain("down", mlp))
        yield (*base, tokens * hidden, dropped, sums(mlp))  # backward: the MLP's activation
        yield (*base, 2 * tokens * mlp)
        yield (t * hidden, 2 * tokens * mlp, t * hidden, sums(hidden))
        wide = [t * self._width("o")] if self._adapted("o") else []
        yield (t * hidden, *wide, tokens * hidden, t * queries, sums(queries))
        base = (t * hidden, *wide, t * queries)
        accumulated = 4 * tokens * queries if self.element < 4 else 0  # dq is added up in fp32
        yield (*base, *expanded, t * queries, t * queries, t * queries, accumulated, 4 * tokens * self.shape.heads)
        summed = [t * keys] * 2 if keys != queries else []
        yield (*base, t * queries, t * queries, t * queries, *summed)
        dqkv = t * self._width("qkv")
        yield (*base, t * queries, t * keys, t * keys, dqkv)
        yield (t * hidden, dqkv, tokens * self._outputs("qkv"), t * hidden, dropped, sums(hidden))

    # --- sizes of the layers ----------------------------------------------------------------------------------

    @cached_property
    def _targets(self) -> tuple[LinearKind, ...]:
        return tuple(self.shape.targets(self.job.lora_target_modules))

    @cached_property
    def _dropping(self) -> tuple[LinearKind, ...]:
        """Layers whose input an adapter drops out: each keeps a mask, a byte per number."""
        return self._targets if self.job.lora_dropout else ()

    def _adapted(self, group: str) -> bool:
        return any(kind.name in GROUPS[group] for kind in self._targets)

    def _width(self, group: str) -> int:
        """Columns of a product: its layers' outputs, and room for the ranks of their adapters."""
        ranks = 0 if self.job.lora_dropout else self.job.lora_rank
        inner = ranks * sum(kind.name in GROUPS[group] for kind in self._targets)
        return self._outputs(group) + -(-inner // ALIGNED) * ALIGNED

    def _outputs(self, group: str) -> int:
        return sum(self.shape.kind(name).outputs for name in GROUPS[group])

    @property
    def _queries(self) -> int:
        return self.shape.kind("self_attn.q_proj").outputs


def _block(size: float) -> float:
    """What torch counts as allocated for a tensor: whole 512 bytes, and a rest of up to 1 MiB that is not cut off."""
    if size <= 10 * MIB:
        return -(-size // 512) * 512
    whole = _segment(size)
    return whole if whole - size <= MIB else size


def _resident(size: float) -> float:
    """What a tensor takes of a CPU's memory: between the smaller ones `malloc` leaves holes, larger ones it gives back.
    Fitted to `bench.memory_cpu`. Without holes (`MALLOC_MMAP_THRESHOLD_`), a step takes 1.7 times as long."""
    return size * (1.5 if size < 64 * MIB else 1.12)


def _segment(size: float) -> float:
    """What it takes from the driver: 20 MiB for tensors of 1 to 10 MiB, of which as many as fit share it; for larger
    ones whole 2 MiB."""
    if size <= MIB:
        return -(-size // 512) * 512
    return 20 * MIB / (20 * MIB // size) if size < 10 * MIB else -(-size // (2 * MIB)) * 2 * MIB
