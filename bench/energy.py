"""What a step of the engine costs in time and energy, back to back, and what its parts cost alone.

    python -m bench.energy --out energy.json       # needs a GPU that counts its joules, and 24 GiB of it; two minutes

A card at its power limit is as fast as its work is cheap. So the step is measured as the plan has it, and again with
the weights of all layers in 16 bits, which no small card holds: what nothing that is done about unpacking can beat.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import torch

from bench.common import GIB
from bench.engine_step import load
from tasks.backends.fused import ops
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.projection import Projection

WARM_SECONDS, SECONDS = 1.0, 4.0


def sustained(work: Callable[[], object]) -> dict[str, float]:
    """Milliseconds, joules and watts of one call among many without a pause, the GPU being warm."""
    card = pynvml.nvmlDeviceGetHandleByIndex(torch.cuda.current_device())
    _repeat(work, WARM_SECONDS)
    began, before = time.perf_counter(), pynvml.nvmlDeviceGetTotalEnergyConsumption(card)
    calls = _repeat(work, SECONDS)
    took, used = time.perf_counter() - began, pynvml.nvmlDeviceGetTotalEnergyConsumption(card) - before
    return {"ms": round(took / calls * 1000, 2), "J": round(used / calls / 1000, 2), "W": round(used / took / 1000)}


def _repeat(work: Callable[[], object], seconds: float) -> int:
    began, calls = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        for _ in range(10):
            work()
        torch.cuda.synchronize()
        calls += 10
    return calls


def recorded(work: Callable[[], object]) -> Callable[[], None]:
    """`work` as a CUDA graph, so that it waits for no CPU."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph.replay


def step(model: FusedModel, shape: tuple[int, int]) -> dict[str, float]:
    batch = MicroBatch(model, shape)
    ids, factor = torch.randint(3, 32000, shape, device="cuda"), torch.tensor(64.0, device="cuda")
    return sustained(lambda: batch.run(ids, ids, factor))


def unpacking(projections: list[Projection]) -> dict[str, float]:
    """Of what a step unpacks, forward and backward."""
    packed = [one for one in projections if one.unpacked]
    out = torch.empty(max(one.unpacked for one in packed), device="cuda", dtype=torch.float16)

    def work() -> None:
        for one in (*packed, *reversed(packed)):
            one.unpack(out[: one.unpacked].view(one.width, one.columns))

    return sustained(recorded(work))


def products(projections: list[Projection], tokens: int) -> dict[str, float]:
    """Of all layers, forward and backward, with weights in 16 bits and normal numbers for the rest."""
    widths = {one.width for one in projections} | {one.columns for one in projections}
    inputs, outputs = ({n: torch.randn(tokens, n, device="cuda").half() for n in widths} for _ in range(2))
    matrices = [torch.empty(one.width, one.columns, device="cuda", dtype=torch.float16) for one in projections]
    for matrix, one in zip(matrices, projections, strict=True):
        one.unpack(matrix)

    def work() -> None:
        for matrix in matrices:
            torch.mm(inputs[matrix.shape[1]], matrix.T, out=outputs[matrix.shape[0]])
        for matrix in reversed(matrices):
            torch.mm(inputs[matrix.shape[0]], matrix, out=outputs[matrix.shape[1]])

    return sustained(recorded(work))


def attention(model: FusedModel, shape: tuple[int, int]) -> dict[str, float]:
    geometry, layers = model.geometry, len(model.layers)
    q, k, v = (
        torch.randn(*shape, heads, geometry.head_width, device="cuda", dtype=torch.float16)
        for heads in (geometry.heads, geometry.kv_heads, geometry.kv_heads)
    )
    out, rest = ops.attention(q, k, v)

    def work() -> None:
        for _ in range(layers):
            ops.attention(q, k, v)
        for _ in range(layers):
            ops.attention_backward(out, q, k, v, out, rest)

    return sustained(recorded(work))


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    shape = (arguments.sequences, arguments.length)
    tuned = load(arguments, folder)
    torch.cuda.set_per_process_memory_fraction(1.0)  # all layers in 16 bits are beyond what is imitated
    fast = FusedModel(tuned, resident=arguments.resident, length=arguments.length, products="int8")
    calibrate(fast)
    in_int8 = step(fast, shape)
    del fast
    fused = FusedModel(tuned, resident=arguments.resident, length=arguments.length)
    record: dict[str, Any] = {
        "card": torch.cuda.get_device_name(),
        "limit_w": round(pynvml.nvmlDeviceGetPowerManagementLimit(pynvml.nvmlDeviceGetHandleByIndex(0)) / 1000),
        "shape": shape,
        "resident": arguments.resident,
        "step": step(fused, shape),
        "step_in_int8": in_int8,
    }
    if arguments.steps_only:
        return record
    projections = [one for layer in fused.layers for one in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    record |= {"unpacking": unpacking(projections), "attention": attention(fused, shape)}
    del fused, projections, tuned  # its first layers have given up their quantized weights
    gc.collect()
    torch.cuda.empty_cache()
    tuned = load(arguments, folder)
    torch.cuda.set_per_process_memory_fraction(1.0)
    fused = FusedModel(tuned, length=arguments.length)
    projections = [one for layer in fused.layers for one in (layer.qkv, layer.o, layer.gate_up, layer.down)]
    record["products"] = products(projections, shape[0] * shape[1])
    del fused, projections
    everything = FusedModel(tuned, resident=len(tuned.get_base_model().model.layers), length=arguments.length)
    return record | {"step_without_unpacking": step(everything, shape)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", default="7b")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--resident", type=int, default=9, help="layers whose weights are kept in 16 bits")
    parser.add_argument("--steps-only", action="store_true", help="leave the parts of a step out")
    parser.add_argument("--model", type=Path, help="where the random model lies, or is to be written")
    arguments = parser.parse_args()
    arguments.quantization, arguments.cap_gib = "int8", torch.cuda.mem_get_info()[1] / GIB
    pynvml.nvmlInit()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(arguments, arguments.model or Path(scratch))
    arguments.out.write_text(json.dumps(record, indent=1))
    for name, value in record.items():
        print(name, value)


if __name__ == "__main__":
    main()
