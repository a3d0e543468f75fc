"""How long a step takes, by the roofline of the GPU.

Anchor (H200, CodeLlama-7b, int8, 4×1 of 256 tokens, one CUDA graph, ms): 56, of which products 36, unpacking weights 7
to 10, attention 3.5 to 4.5, adapters 2, other kernels 4. With products in int8 37: products 22, attention 3.6, other
kernels 8, the rest transposing. GPUs other than the H200 are projected from their data sheets.
"""

from __future__ import annotations

from artifacts.schema import Plan, Quantization
from tasks.backends.contract import JobShape, cpu_seconds
from tasks.backends.fused.support import GROUPS
from tasks.machines.records import Gpu
from tasks.machines.specs import GpuSpec, spec_of
from tasks.models.shape import ModelShape

STREAMING = 0.8
"""Share of the data sheet's bandwidth that the fused engine's kernels reach: 3.9 TB/s on an H200."""

STORED_BYTES: dict[Quantization, float] = {"int8": 1.0, "nf4": 0.5 + 4 / 64}
"""Read per weight when it is unpacked; two are written."""

ATTENTION_SHARE = 0.12
"""Of `teraflops`, in the memory-efficient attention kernels: 3.5 ms of the anchor, less their reading and writing."""

LAYER_KERNELS = 40
"""Kernels of a layer, forward and backward, each with a start of `KERNEL_SECONDS` inside a CUDA graph."""

KERNEL_SECONDS = 2e-6

ADAPTER_SHARE = 0.5
"""Of the rate of memory, in the small products of adapters. Fitted: with all layers adapted, 8 × 1,024 tokens of
SmolLM2-135M took 37 ms, and 4 × 1,024 of a 1.5B 71 ms."""

ADAPTER_KERNELS = 6
"""Those of an adapted layer, forward and backward."""

STEP_SECONDS = 0.0005
"""What a step costs on a GPU beside its micro-batches: optimizer and clipping, since the trainer's loop goes on beside
the next one. Measured: 0.35 ms."""


def step_seconds(shape: ModelShape, job: JobShape, plan: Plan, machine: Gpu | int) -> float | None:
    """Wall time of one optimizer step on a GPU, or on a number of CPU cores. None for an unknown GPU."""
    if isinstance(machine, int):
        return cpu_seconds(shape, job, plan, machine)
    spec = spec_of(machine)
    return (
        None if spec is None else plan.accumulation * sum(graph_seconds(shape, job, plan, spec).values()) + STEP_SECONDS
    )


def graph_seconds(shape: ModelShape, job: JobShape, plan: Plan, spec: GpuSpec) -> dict[str, float]:
    """One micro-batch, as one CUDA graph: seconds by what they go to."""
    layers, tokens = shape.layers, plan.micro_batch * job.max_length
    checkpointed = (layers if plan.checkpointed_layers is None else plan.checkpointed_layers) / layers
    again = checkpointed if plan.gradient_checkpointing else 0
    passes = 2 + again
    int8 = plan.products == "int8"
    rate, flow = spec.teraflops * 1e12, spec.bandwidth * 1e9 * STREAMING
    # few tokens: a product takes as long as reading its weights
    computing = 2 * tokens / (rate * spec.sustained)
    head = 2 * shape.vocabulary * shape.hidden * max(computing, 2 / flow)
    linear = passes * shape.linear_parameters
    products = linear * (max(computing / spec.int8, 1 / flow) if int8 else max(computing, 2 / flow))
    stored = STORED_BYTES.get(job.quantization)
    packed = 1 - plan.resident_layers / layers
    if int8:  # codes are transposed, for the backward pass alone
        unpacking = shape.linear_parameters * packed * 2 / flow
    else:
        unpacking = linear * packed * (stored + 2) / flow if stored else 0
    queries, mlp = shape.kind("self_attn.q_proj").outputs, shape.kind("mlp.gate_proj").outputs
    # multiply-adds of half the square: 2 in the forward pass, 5 in the backward pass; numbers: 4 and 12 of q's size
    attention = (7 + 2 * again) * job.max_length * queries / (rate * ATTENTION_SHARE)
    attention += (16 + 4 * again) * queries * 2 / flow
    rest = (1 + again / 3) * (20 * shape.hidden + 10 * mlp) * 2 / flow
    # x and what is added to y, forward; y's gradient twice, x, and what is added to x's gradient, backward
    adapted = shape.targets(job.lora_target_modules)
    numbers = sum(k.count * ((3 + again) * k.inputs + (4 + 2 * again) * k.outputs) for k in adapted)
    adapters = tokens * numbers * 2 / (flow * ADAPTER_SHARE)
    adapters += (1 + again / 3) * sum(k.count for k in adapted) * ADAPTER_KERNELS * KERNEL_SECONDS
    sums = 0.0
    if plan.fp32_residual:  # written by a product, added to by an adapter, read, added up and read again; read backward
        rest += (28 + 24 * again) * shape.hidden / flow
    if int8:
        rest += (1 + again) * 9 * shape.hidden * 2 / flow  # quantizing what no other kernel writes
        # written in 32 bits and read again; the columns apart, written, read and written
        made = (1 + again) * sum(kind.outputs for kind in shape.linears)
        made += sum(shape.kind(members[0]).inputs for members in GROUPS.values())
        sums = made * (8 + 6) / flow if spec.int8_sums else 0
    return {
        "products of frozen layers": products,
        "output layer": head,
        "transposing codes" if int8 else "dequantizing": unpacking,
        "sums in 32 bits": layers * tokens * sums,
        "attention": layers * tokens * attention,
        "norms, rotation, SwiGLU, quantizing": layers * tokens * rest,
        "adapters": adapters,
        "starts of kernels": (1 + again / 3) * layers * LAYER_KERNELS * KERNEL_SECONDS,
    }
