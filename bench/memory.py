"""Predicted against measured memory and time of the backend `fused`, configuration by configuration, on one GPU.

    python -m bench.memory --out bench/results/memory.json [--cap-gib 14.56] [--transformers] [--models 1b:nf4 …]

Builds two shapes (CodeLlama-7b's; `1b`, TinyLlama's, with eight heads for one key) with random weights in int8, nf4 and
unquantized, on the device itself. Every configuration runs two micro-batches and an optimizer step, within a memory
cap that stands for a T4. A 7B without quantization cannot fit one: its rows are measured without the cap.
`--transformers` adds that backend. `--tiny` runs the same code on anything, measuring nothing without a GPU.

Peaks are torch's (`max_memory_allocated`, what training reports); `reserved_gib` is what the allocator holds for them.
"""

from __future__ import annotations

import argparse
import gc
import json
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from artifacts.schema import Plan, Products, Quantization
from bench import reference_job
from tasks import backends
from tasks.backends.contract import CONTEXT_GIB, JobShape, Layout
from tasks.backends.fused.calibration import calibrate
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.speed import STEP_SECONDS
from tasks.machines.records import Gpu
from tasks.models.loading import quantization_config, silence_peft
from tasks.models.residual import keep_in_fp32
from tasks.models.shape import ModelShape, llama_shape

GIB = 2**30
COMMON = {"model_type": "llama", "vocab_size": 32016, "max_position_embeddings": 16384, "dtype": "float16"}
SHAPES: dict[str, dict[str, Any]] = {
    "7b": reference_job.SHAPES["7b"],
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 22,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "intermediate_size": 5632,
        "vocab_size": 32000,
    },
    "tiny": {
        "hidden_size": 128,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 352,
        "vocab_size": 1000,
    },
}
SHAPES = {name: COMMON | sizes for name, sizes in SHAPES.items()}
MODELS = ("7b:int8", "1b:none", "7b:nf4", "1b:nf4", "1b:int8", "7b:none")
REPLAYS = 3


@dataclass(frozen=True)
class Case:
    """One configuration."""

    shape: str
    quantization: Quantization
    length: int
    micro_batch: int
    checkpointed: int = 0
    resident: int = 0
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dropout: float = 0.0
    backend: str = "fused"
    capped: bool = True
    products: Products = "fp16"
    fp32_residual: bool = False

    @property
    def job(self) -> JobShape:
        return JobShape(
            quantization=self.quantization,
            max_length=self.length,
            effective_batch=self.micro_batch,
            lora_target_modules=self.targets,
            lora_dropout=self.dropout,
            products=self.products,
        )

    @property
    def choice(self) -> Layout:
        return Layout(self.micro_batch, self.checkpointed, self.resident)

    @property
    def name(self) -> str:
        more = f" recomputed {self.checkpointed}" if self.checkpointed else ""
        more += f" unpacked {self.resident}" if self.resident else ""
        more += f" {'+'.join(self.targets)}" if self.targets != Case.targets else ""
        more += f" dropout {self.dropout}" if self.dropout else ""
        more += " products in int8" if self.products == "int8" else ""
        more += " residual in fp32" if self.fp32_residual else ""
        return f"{self.shape} {self.quantization} {self.backend} {self.micro_batch} × {self.length}{more}"


def cases(shape: str, quantization: Quantization, layers: int) -> Iterator[Case]:
    """What is measured of one model, unpacked layers last: they give up the quantized weights."""
    half, whole = layers // 2, layers
    base = Case(shape, quantization, 256, 4, capped=(shape, quantization) != ("7b", "none"))
    for length, micro_batches in {256: (1, 2, 4, 8), 512: (1, 4), 1024: (1, 2, 4), 2048: (1, 2)}.items():
        for micro_batch in micro_batches:
            yield replace(base, length=length, micro_batch=micro_batch)
    for length, micro_batch, checkpointed in (
        (256, 4, whole),
        (256, 4, half),
        (256, 8, half),
        (512, 4, half),
        (512, 8, whole),
        (1024, 4, whole),
        (2048, 1, whole),
        (2048, 2, half),
        (2048, 4, whole),
    ):
        yield replace(base, length=length, micro_batch=micro_batch, checkpointed=checkpointed)
    yield replace(base, dropout=0.05)
    if quantization != "nf4":
        everything = replace(base, targets=("all-linear",))
        yield from (everything, replace(everything, dropout=0.05), replace(everything, checkpointed=whole))
    if quantization != "none":
        yield replace(base, resident=4)
        yield replace(base, resident=half // 2 + 1, checkpointed=half)


def transformers_cases(shape: str, quantization: Quantization, layers: int) -> Iterator[Case]:
    """The same of the libraries' modules."""
    for micro_batch in (1, 4):
        for checkpointed in (0, layers):
            yield Case(shape, quantization, 256, micro_batch, checkpointed, backend="transformers")
    yield Case(shape, quantization, 1024, 1, layers, backend="transformers")


# --- models ---------------------------------------------------------------------------------------------------


def build(sizes: dict[str, Any], quantization: Quantization, device: str) -> Any:
    """A random model with frozen weights, quantized layer by layer on the device."""
    from transformers import LlamaConfig, LlamaForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    torch.manual_seed(0)
    dtype = torch.float16 if device == "cuda" else torch.float32
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**{name: value for name, value in sizes.items() if name != "model_type"}))
    if quantization != "none":
        quantizer = AutoHfQuantizer.from_config(quantization_config(quantization, dtype), pre_quantized=False)
        quantizer.preprocess_model(model, device_map={"": device})
    for module in model.modules():
        _fill(module, dtype, device)
    for layer in model.model.layers:  # a few channels are large, as in trained models
        layer.input_layernorm.weight.data[:6] *= 20
    rotary = model.model.rotary_emb
    model.model.rotary_emb = type(rotary)(rotary.config).to(device)
    return model.requires_grad_(False).eval()


def _fill(module: nn.Module, dtype: torch.dtype, device: str) -> None:
    """Random weights for a module's own parameters, quantized where it is one of bitsandbytes."""
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    for name, parameter in list(module.named_parameters(recurse=False)):
        norm = parameter.dim() == 1
        values = torch.empty(parameter.shape, dtype=dtype, device=device).normal_(std=0.02)
        weight: Any = nn.Parameter(values + 1 if norm else values, requires_grad=False)
        if isinstance(module, Linear8bitLt) and name == "weight":
            weight = Int8Params(values, requires_grad=False, has_fp16_weights=False)._quantize(device)
        elif isinstance(module, Linear4bit) and name == "weight":
            weight = Params4bit(values, compress_statistics=False, quant_type="nf4", module=module)._quantize(device)
        setattr(module, name, weight)


def adapted(model: Any, targets: tuple[str, ...]) -> Any:
    """PEFT's LoRA adapter around it, fp32 as training keeps it."""
    from peft import LoraConfig, get_peft_model

    silence_peft()
    names: Any = "all-linear" if targets == ("all-linear",) else list(targets)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=names))
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned.train()


# --- measuring ------------------------------------------------------------------------------------------------


def run_fused(model: Any, case: Case) -> dict[str, Any]:
    """Two micro-batches, an optimizer step, and a few micro-batches by the clock."""
    model.peft_config["default"].lora_dropout = case.dropout
    fused = FusedModel(
        model,
        checkpointed=case.checkpointed,
        resident=case.resident,
        length=case.length,
        products=case.products,
    )
    if case.products == "int8":
        calibrate(fused)
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    batch = MicroBatch(fused, (case.micro_batch, case.length))
    fused.adapters.clear()
    device = fused.embedding.device
    ids = torch.randint(3, 900, (case.micro_batch, case.length), device=device)
    factor = torch.tensor(1.0 / ids.numel(), device=device)
    for _ in range(2):
        batch.run(ids, ids, factor)
    optimizer.step()
    fused.adapters.clear()
    return {"captured": batch.captured, "ms": clocked(lambda: batch.run(ids, ids, factor))}


def run_transformers(model: Any, case: Case) -> dict[str, Any]:
    """The libraries' forward and backward pass as TRL calls them and accelerate wraps them for fp16."""
    from accelerate.utils.operations import convert_outputs_to_fp32  # type: ignore[import-untyped]
    from trl.trainer.utils import add_fused_lm_head

    inner = model.get_base_model()
    add_fused_lm_head(inner, outputs=("log_probs", "entropy", "is_top1"))
    if case.checkpointed:
        inner.gradient_checkpointing_enable({"use_reentrant": False})
        inner.enable_input_require_grads()
    else:
        inner.gradient_checkpointing_disable()
    device = inner.device
    forward = convert_outputs_to_fp32(torch.autocast(device.type, torch.float16)(model.forward))
    trained = [one for one in model.parameters() if one.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=True)
    ids = torch.randint(3, 900, (case.micro_batch, case.length), device=device)

    def step() -> None:
        (-forward(input_ids=ids, labels=ids, fused_lm_head=True).log_probs.sum() / ids.numel()).backward()

    for _ in range(2):
        step()
        optimizer.step()
    return {"captured": False, "ms": clocked(step)}


def clocked(work: Any) -> float:
    """Median milliseconds."""
    times = []
    for _ in range(REPLAYS):
        _synchronize()
        started = time.perf_counter()
        work()
        _synchronize()
        times.append(1000 * (time.perf_counter() - started))
    return median(times)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def free() -> None:
    """Let go of everything that nobody holds, and count from here."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
        # Every graph brings streams of its own, and cuBLAS keeps a workspace for each stream that it ever saw.
        torch._C._cuda_clearCublasWorkspaces()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


@dataclass
class Room:
    """What of the GPU may be used."""

    cap_gib: float
    context_gib: float

    def apply(self, capped: bool) -> None:
        if torch.cuda.is_available():
            total = torch.cuda.get_device_properties(0).total_memory / GIB
            share = (self.cap_gib - self.context_gib) / total if capped else 1.0
            torch.cuda.set_per_process_memory_fraction(min(1.0, share))


def attempt(model: Any, case: Case, room: Room) -> dict[str, Any]:
    """A row, whatever happens."""
    free()
    room.apply(case.capped)
    row: dict[str, Any] = {"captured": None, "ms": None, "error": None, "out_of_memory": False}
    try:
        row |= run_fused(model, case) if case.backend == "fused" else run_transformers(model, case)
    except torch.OutOfMemoryError:
        row["out_of_memory"] = True
    except Exception as error:  # one configuration must not cost the others
        traceback.print_exc()
        row["error"] = f"{type(error).__name__}: {error}".splitlines()[0]
    if torch.cuda.is_available():
        row |= {
            "peak_gib": torch.cuda.max_memory_allocated() / GIB,
            "reserved_peak_gib": torch.cuda.max_memory_reserved() / GIB,
            "reserved_gib": torch.cuda.memory_reserved() / GIB,
        }
    for parameter in model.parameters():
        parameter.grad = None
    return row


def row_of(model: Any, shape: ModelShape, case: Case, room: Room) -> dict[str, Any]:
    on_gpu = torch.cuda.is_available()
    backend = backends.get(case.backend)
    kept = case.fp32_residual and on_gpu
    memory = backend.memory(shape, case.job, "fp16" if on_gpu else "fp32", on_gpu=on_gpu, fp32_residual=kept)
    predicted, needed = memory.peak_gib(case.choice), memory.needed_gib(case.choice)
    card = torch.cuda.get_device_name() if on_gpu else "CPU"
    row = {
        "card": card,
        "context_gib": room.context_gib,
        "name": case.name,
        **asdict(case),
        "layers": shape.layers,
        "predicted_gib": predicted,
        "needed_gib": needed,
    }
    # this card's context in place of the one that the prediction reckons with
    row["fits"] = needed - CONTEXT_GIB + room.context_gib <= room.cap_gib if case.capped else None
    row["predicted_ms"] = predicted_ms(shape, case)
    row |= attempt(model, case, room)
    complete = row.get("peak_gib") and not row["out_of_memory"] and not row["error"]
    row["error_share"] = predicted / row["peak_gib"] - 1 if complete else None
    return row


def predicted_ms(shape: ModelShape, case: Case) -> float | None:
    """Time of a micro-batch, milliseconds."""
    if not torch.cuda.is_available():
        return None
    plan = Plan(
        device="cuda",
        precision="fp16",
        micro_batch=case.micro_batch,
        accumulation=1,
        gradient_checkpointing=case.checkpointed > 0,
        checkpointed_layers=case.checkpointed or None,
        resident_layers=case.resident,
        backend=case.backend,
        products=case.products,
        fp32_residual=case.fp32_residual,
    )
    gpu = Gpu(name=torch.cuda.get_device_name(), total_gib=1, free_gib=1, capability=torch.cuda.get_device_capability())
    seconds = backends.get(case.backend).step_seconds(shape, case.job, plan, gpu)
    return None if seconds is None else 1000 * (seconds - (STEP_SECONDS if case.backend == "fused" else 0))


# --- the whole ------------------------------------------------------------------------------------------------


def models(arguments: argparse.Namespace) -> list[tuple[str, Quantization]]:
    if arguments.tiny:
        return (
            [("tiny", "int8")] if arguments.products == "int8" else [("tiny", name) for name in ("int8", "nf4", "none")]
        )
    shape, quantization = arguments.model.split(":")
    return [(shape, quantization)]


def measure(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Row by row."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    room = Room(arguments.cap_gib, context() if arguments.context_gib is None else arguments.context_gib)
    for name, quantization in models(arguments):
        shape = llama_shape(SHAPES[name])
        wanted = list(cases(name, quantization, shape.layers))
        if arguments.transformers and device == "cuda" and (name, quantization) != ("7b", "none"):
            wanted = [*transformers_cases(name, quantization, shape.layers), *wanted]
        if (name, quantization) == ("7b", "none"):
            wanted = wanted[::4]
        if arguments.products == "int8":
            wanted = [replace(case, products="int8") for case in wanted if case.backend == "fused"]
        wanted = [replace(case, fp32_residual=arguments.fp32_residual) for case in wanted]
        if arguments.named:
            wanted = [case for case in wanted if any(part in case.name for part in arguments.named)]
        if arguments.tiny:
            wanted = [replace(case, length=case.length // 32) for case in wanted if case.length < 2048]
        try:
            yield from measure_model(shape, wanted, room, arguments.deadline)
        except Exception:  # the other models can still be measured
            traceback.print_exc()
        free()


def measure_model(shape: ModelShape, wanted: list[Case], room: Room, deadline: float) -> Iterator[dict[str, Any]]:
    tuned: Any = None
    targets, spent = wanted[0].targets, True
    for case in wanted:
        if time.perf_counter() > deadline:
            print(f"no time left for {case.name}", flush=True)
            continue
        if spent:
            tuned = None
            tuned = fresh(case, room)
        elif case.targets != targets:
            tuned = adapted(tuned.unload(), case.targets)
        targets, spent = case.targets, case.resident > 0
        yield row_of(tuned, shape, case, room)


def fresh(case: Case, room: Room) -> Any:
    """The model with all its quantized weights, and an adapter."""
    free()
    room.apply(False)
    started = time.perf_counter()
    model = build(SHAPES[case.shape], case.quantization, "cuda" if torch.cuda.is_available() else "cpu")
    if case.fp32_residual:
        keep_in_fp32(model, model.dtype)
    _synchronize()
    print(f"{case.shape} {case.quantization}: built in {time.perf_counter() - started:.1f} s", flush=True)
    return adapted(model, case.targets)


def context() -> float:
    """GiB of the GPU that are taken before torch's allocator has any."""
    if not torch.cuda.is_available():
        return 0.0
    (torch.ones(64, 64, device="cuda") @ torch.ones(64, 64, device="cuda")).sum().item()
    available, total = torch.cuda.mem_get_info()
    return (total - available - torch.cuda.memory_reserved()) / GIB


def show(row: dict[str, Any]) -> None:
    peak, reserved, ms, off = (row.get(name) for name in ("peak_gib", "reserved_gib", "ms", "error_share"))
    what = "OUT OF MEMORY" if row["out_of_memory"] else row["error"] or ("" if row["captured"] else "no graph")
    print(
        f"{row['name']:58} predicted {row['predicted_gib']:6.2f}"
        + (f" peak {peak:6.2f} reserved {reserved:6.2f}" if peak else "")
        + f" needed {row['needed_gib']:6.2f} fits {row['fits']!s:5}"
        + (f" {off:+7.2%}" if off is not None else "")
        + (f" {ms:8.1f} ms" if ms else "")
        + (f" ({row['predicted_ms']:.1f} predicted)" if ms and row["predicted_ms"] else "")
        + f" {what}",
        flush=True,
    )


def summary(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for backend in backends.NAMES:
        known = [row for row in rows if row["backend"] == backend and row["error_share"] is not None]
        if known:
            worst = max(known, key=lambda row: abs(row["error_share"]))
            lines.append(f"{backend}: {len(known)} rows, worst error {worst['error_share']:+.2%} ({worst['name']})")
    wrong = [row["name"] for row in rows if row["fits"] and row["out_of_memory"]]
    return [*lines, f"said to fit and did not: {', '.join(wrong) or 'none'}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cap-gib", type=float, default=14.56, help="GPU memory that stands for the GPU (a T4's)")
    parser.add_argument("--transformers", action="store_true", help="measure the libraries' modules too")
    parser.add_argument("--context-gib", type=float, help="taken before any tensor; measured, if nothing else runs")
    parser.add_argument("--tiny", action="store_true", help="a tiny model: a test of this program")
    parser.add_argument("--limit-s", type=float, default=140, help="no configuration begins after this time")
    parser.add_argument("--products", choices=["fp16", "int8"], default="fp16", help="int8: for models in int8 only")
    parser.add_argument("--fp32-residual", action="store_true", help="with the residual stream in fp32")
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS, help="which, in this order")
    parser.add_argument("--named", nargs="+", metavar="PART", help="only those with one of these in their name")
    parser.add_argument("--model", choices=MODELS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.deadline = time.perf_counter() + arguments.limit_s
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    if arguments.tiny or arguments.model:
        run(arguments)
    else:
        run_each(arguments)


def run_each(arguments: argparse.Namespace) -> None:
    """Every model in a process of its own: one that memory failed in the middle of a recording is no good any more."""
    whole: dict[str, Any] = {}
    part = arguments.out.with_suffix(".part")
    for model in arguments.models:
        part.unlink(missing_ok=True)
        left = arguments.deadline - time.perf_counter()
        command = [sys.executable, "-m", "bench.memory", "--model", model, "--out", str(part), "--limit-s", str(left)]
        command += ["--products", arguments.products, *(["--fp32-residual"] if arguments.fp32_residual else [])]
        command += [] if arguments.context_gib is None else ["--context-gib", str(arguments.context_gib)]
        command += ["--cap-gib", str(arguments.cap_gib), *(["--transformers"] if arguments.transformers else [])]
        command += ["--named", *arguments.named] if arguments.named else []
        subprocess.run(command, check=False)
        if part.exists():
            found = json.loads(part.read_text())
            whole = found | {"rows": whole.get("rows", []) + found["rows"]}
            whole["worst_error"] = worst(whole["rows"])
            arguments.out.write_text(json.dumps(whole, indent=1) + "\n")
    part.unlink(missing_ok=True)
    print("\n".join(summary(whole.get("rows", []))))


def worst(rows: list[dict[str, Any]]) -> float | None:
    """The largest error of the backend fused's predicted peaks, as a share."""
    errors = [abs(row["error_share"]) for row in rows if row["backend"] == "fused" and row["error_share"] is not None]
    return max(errors, default=None)


def run(arguments: argparse.Namespace) -> None:
    """One model, in this process."""
    record: dict[str, Any] = {
        "torch": torch.__version__,
        "cap_gib": arguments.cap_gib,
        "rows": [],
    }
    for row in measure(arguments):
        show(row)
        record["rows"].append(row)
        arguments.out.write_text(json.dumps(record, indent=1))
    print("\n".join(summary(record["rows"])))


if __name__ == "__main__":
    main()
