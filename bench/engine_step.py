"""Where the time of one engine step goes: a 7B's micro-batch alone, its kernels, and the rates of the GPU.

    python -m bench.engine_step --out step.json [--shape 7b] [--sequences 4] [--length 256] [--products int8]

No Trainer: what is measured is the forward and backward pass, kernel by kernel and as one CUDA graph, beside a floor
from the GPU's measured matrix and copy rates.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from artifacts.schema import Plan
from bench.common import GIB, milliseconds, rates, write_model
from bench.reference_job import SHAPES
from tasks.backends.contract import JobShape, Layout
from tasks.backends.fused import inference, int8, ops, projection
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.memory import FusedMemory
from tasks.backends.fused.model import FusedModel
from tasks.models.loading import load_base, silence_peft
from tasks.models.shape import ALL_LINEAR, llama_shape


def parts(model: FusedModel, tokens: int) -> dict[str, float]:
    """Milliseconds of each kind of work in one layer, alone."""
    layer = model.layers[-1]
    found: dict[str, float] = {}
    for name in ("qkv", "o", "gate_up", "down"):
        product = getattr(layer, name)
        matrix = torch.empty(product.width, product.columns, device="cuda", dtype=torch.float16)
        x = torch.randn(tokens, product.columns, device="cuda", dtype=matrix.dtype)
        dy = torch.randn(tokens, product.width, device="cuda", dtype=matrix.dtype)
        found[f"{name} unpack"] = milliseconds(lambda product=product, matrix=matrix: product.unpack(matrix))  # type: ignore[misc]
        found[f"{name} forward product"] = milliseconds(lambda x=x, matrix=matrix: x @ matrix.T)  # type: ignore[misc]
        found[f"{name} backward product"] = milliseconds(lambda dy=dy, matrix=matrix: dy @ matrix)  # type: ignore[misc]
    return found


def attentions(model: FusedModel, shape: tuple[int, int]) -> dict[str, float]:
    geometry = model.geometry
    q, k, v = (
        torch.randn(*shape, heads, geometry.head_width, device="cuda", dtype=torch.float16)
        for heads in (geometry.heads, geometry.kv_heads, geometry.kv_heads)
    )
    out, rest = ops.attention(q, k, v)
    found = {
        "efficient forward": milliseconds(lambda: ops.attention(q, k, v)),
        "efficient backward": milliseconds(lambda: ops.attention_backward(out, q, k, v, out, rest)),
    }
    args = [one.transpose(1, 2) for one in (q, k, v)]
    flash = torch.ops.aten._scaled_dot_product_flash_attention
    o, lse, cq, ck, mq, mk, seed, offset, _ = flash(*args, 0.0, True)
    found["flash forward"] = milliseconds(lambda: flash(*args, 0.0, True))
    back = torch.ops.aten._scaled_dot_product_flash_attention_backward
    found["flash backward"] = milliseconds(lambda: back(o, *args, o, lse, cq, ck, mq, mk, 0.0, True, seed, offset))
    return found


def kernels(work: Callable[[], object]) -> list[dict[str, Any]]:
    """GPU time of one call by kernel."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        work()
        torch.cuda.synchronize()
    rows = [
        {"kernel": event.key[:110], "ms": event.self_device_time_total / 1000, "calls": event.count}
        for event in profiled.key_averages()
    ]
    return sorted(rows, key=lambda row: -row["ms"])[:30]


def load(arguments: argparse.Namespace, folder: Path) -> Any:
    from peft import LoraConfig, get_peft_model

    silence_peft()
    write_model(folder, arguments.shape)
    plan = Plan(
        device="cuda",
        precision="fp16",
        micro_batch=arguments.sequences,
        accumulation=1,
        gradient_checkpointing=False,
        gpu_memory_gib=arguments.cap_gib,
        backend="transformers",
    )
    model = load_base(folder, arguments.quantization, plan)
    torch.cuda.empty_cache()
    targets = arguments.targets[0] if arguments.targets == [ALL_LINEAR] else arguments.targets
    lora = LoraConfig(task_type="CAUSAL_LM", r=arguments.rank, lora_alpha=16, target_modules=targets)
    tuned = get_peft_model(model, lora)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def depths(model: Any, shape: tuple[int, int], ids: torch.Tensor, factor: torch.Tensor) -> dict[str, float]:
    """Milliseconds of a step by the number of buffers that weights are unpacked into."""
    usual, found = projection.DEPTH, {}
    for projection.DEPTH in (1, 2, 3):
        batch = MicroBatch(FusedModel(model, length=shape[1]), shape)
        found[str(projection.DEPTH)] = milliseconds(lambda batch=batch: batch.run(ids, ids, factor), 30)  # type: ignore[misc]
        del batch
        gc.collect()
        torch.cuda.empty_cache()
    projection.DEPTH = usual
    return found


def residuals(model: Any, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The step as a graph with the residual stream in fp16 and in fp32, in turn; peaks beside what is predicted."""
    base = model.get_base_model()
    job = JobShape(
        quantization=arguments.quantization,
        lora_rank=arguments.rank,
        lora_target_modules=tuple(arguments.targets),
        max_length=arguments.length,
        effective_batch=arguments.sequences,
    )
    shape, sequences = llama_shape(base.config.to_dict()), (arguments.sequences, arguments.length)
    layout = Layout(arguments.sequences, arguments.checkpointed, arguments.resident)
    ids, factor = torch.randint(3, 32000, sequences, device="cuda"), torch.tensor(1.0, device="cuda")
    rows = []
    for turn in range(2 * arguments.turns):
        base.fp32_residual = kept = turn % 2 == 1
        gc.collect()
        torch._C._cuda_clearCublasWorkspaces()  # one for every stream that there ever was
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        fused = FusedModel(
            model, checkpointed=arguments.checkpointed, resident=arguments.resident, length=arguments.length
        )
        batch = MicroBatch(fused, sequences)
        loss = float(batch.run(ids, ids, factor)) / ids.numel()
        norm = float(fused.adapters.grads.norm())
        row: dict[str, Any] = {"fp32_residual": kept, "loss": loss, "norm": norm, "captured": batch.captured}
        row["graph_ms"] = milliseconds(lambda batch=batch: batch.run(ids, ids, factor), 20)  # type: ignore[misc]
        row["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
        row["predicted_gib"] = FusedMemory(shape, job, "fp16", True, kept).peak_gib(layout)
        print(row, flush=True)
        rows.append(row)
        del fused, batch
    return rows


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = load(arguments, folder)
    if arguments.turns:
        card = {"card": torch.cuda.get_device_name(), "shape": (arguments.sequences, arguments.length)}
        return card | {"residual": residuals(model, arguments)}
    loaded = torch.cuda.memory_allocated() / GIB
    shape = (arguments.sequences, arguments.length)
    fused = FusedModel(
        model,
        checkpointed=arguments.checkpointed,
        resident=arguments.resident,
        length=arguments.length,
        products=arguments.products,
    )
    if arguments.products == "int8":
        calibrate(fused)
    ids = torch.randint(3, 32000, shape, device="cuda")
    factor = torch.tensor(64.0, device="cuda")
    record: dict[str, Any] = {"card": torch.cuda.get_device_name(), "shape": shape, "loaded_gib": loaded}
    torch.cuda.reset_peak_memory_stats()
    record["eager_ms"] = milliseconds(lambda: fused.loss_and_gradients(ids, ids, factor), 10)
    record["eager_peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    batch = MicroBatch(fused, shape)
    record["captured"] = batch.captured
    record["graph_ms"] = milliseconds(lambda: batch.run(ids, ids, factor), 50)
    record["peak_gib"] = torch.cuda.max_memory_allocated() / GIB
    record["reserved_gib"] = torch.cuda.max_memory_reserved() / GIB
    record["used_gib"] = (torch.cuda.mem_get_info()[1] - torch.cuda.mem_get_info()[0]) / GIB
    record["kernels"] = kernels(lambda: batch.run(ids, ids, factor))
    record["losses_ms"] = {str(shape): milliseconds(lambda: inference.losses(fused, ids, ids, adapted=True), 10)}
    fused.join()
    if arguments.products == "int8" and arguments.cublaslt:
        del batch
        gc.collect()
        torch.cuda.empty_cache()
        int8.forced = "cublaslt"
        batch = MicroBatch(fused, shape)
        record["cublaslt"] = {
            "graph_ms": milliseconds(lambda: batch.run(ids, ids, factor), 50),
            "kernels": kernels(lambda: batch.run(ids, ids, factor)),
        }
        int8.forced = None
    if arguments.products == "fp16":
        record["parts"] = parts(fused, shape[0] * shape[1])
    if arguments.depths:
        del batch, fused
        gc.collect()
        torch.cuda.empty_cache()
        record["depths"] = depths(model, shape, ids, factor)
        fused = FusedModel(model, length=arguments.length)
    if arguments.quantization == "int8":
        record["attention"] = attentions(fused, shape)
    torch.cuda.set_per_process_memory_fraction(1.0)  # the rates are the GPU's
    return record | rates()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--sequences", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--checkpointed", type=int, default=0)
    parser.add_argument("--resident", type=int, default=0, help="layers whose weights are kept in 16 bits")
    parser.add_argument("--quantization", choices=["int8", "nf4", "none"], default="int8")
    parser.add_argument("--products", choices=["fp16", "int8"], default="fp16")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", nargs="+", default=["q_proj", "v_proj"])
    parser.add_argument("--turns", type=int, default=0, help="only: with the residual stream in fp16 and in fp32")
    parser.add_argument("--cublaslt", action="store_true", help="with products in int8, a T4's way as well")
    parser.add_argument("--cap-gib", type=float, default=14.56)
    parser.add_argument("--depths", action="store_true", help="compare numbers of buffers")
    parser.add_argument("--model", type=Path, help="where the random model lies, or is to be written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(arguments, arguments.model or Path(scratch))
    arguments.out.write_text(json.dumps(record, indent=1))
    for name, value in record.items():
        print(name, json.dumps(value) if isinstance(value, (dict, list)) else value)


if __name__ == "__main__":
    main()
