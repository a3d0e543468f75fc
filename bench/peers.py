"""The fastest competing library on the reference job's step: what does Unsloth need for the same 1,024 tokens?

    python -m bench.peers --out peers.json [--steps 60] [--cap-gib 14.56] [--rows nf4 nf4-graphs] [--tiny]

Takes the model of `bench.reference_job` (CodeLlama-7b's shape, random weights) and random tokens, 4 full sequences a
step: LoRA r=8 on q_proj and v_proj, fp16, AdamW, no accumulation. Unsloth gets every advantage that it offers: dropout
0, its fused cross-entropy, its compiled blocks, a fused optimizer, no clipping, no padding mask, and no waiting for the
GPU in the second half of the steps. Each row runs in a process of its own; one that fails is recorded as its error.

Needs unsloth, unsloth_zoo and what they need, found before other versions of the same packages (PYTHONPATH).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench.common import write_model

GIB = 2**30
MICRO_BATCH = 4
REFERENCE_TARGETS = ("q_proj", "v_proj")
# Unsloth reads these when it is imported. Without the last one, loading may hold fp16 copies beside the quantized ones.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "HF_DEACTIVATE_ASYNC_LOAD": "1"}


@dataclass(frozen=True)
class Row:
    """One way to run Unsloth; `environment` is what it reads from there."""

    label: str
    quantization: str = "nf4"
    checkpointing: bool | str = False
    targets: tuple[str, ...] = REFERENCE_TARGETS
    environment: dict[str, str] = field(default_factory=dict)


# Below 512 tokens Unsloth itself turns "unsloth" checkpointing into the ordinary kind. Its fused LoRA kernels want
# adapters on all of q, k and v, and on o: the last row trains more than the reference job does.
ROWS = {
    "nf4": Row("Unsloth nf4, no checkpointing"),
    "nf4-graphs": Row("the same, its opt-in CUDA graph per block", environment={"UNSLOTH_BLOCK_CUDAGRAPHS": "1"}),
    "nf4-checkpointing": Row("Unsloth nf4, its checkpointing", checkpointing="unsloth"),
    "int8": Row("Unsloth int8, no checkpointing", quantization="int8"),
    "nf4-qkvo": Row(
        "Unsloth nf4, LoRA on q, k, v, o (its fused LoRA)", targets=("q_proj", "k_proj", "v_proj", "o_proj")
    ),
}


def load(row: Row, folder: Path, tokens: int) -> tuple[Any, list[Any]]:
    """The model with its adapter, ready to train, and its trainable parameters in fp32."""
    import torch
    from unsloth import FastLanguageModel

    model, _ = FastLanguageModel.from_pretrained(
        model_name=str(folder),
        max_seq_length=tokens,
        dtype=torch.float16,
        load_in_4bit=row.quantization == "nf4",
        load_in_8bit=row.quantization == "int8",
        use_gradient_checkpointing=row.checkpointing,
        use_exact_model_name=True,  # else it looks for a ready-made copy on the hub
        offload_embedding=False,
    )
    model = FastLanguageModel.get_peft_model(
        model,
        r=8,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=list(row.targets),
        use_gradient_checkpointing=row.checkpointing,
        max_seq_length=tokens,
    )
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.data = parameter.data.float()
    model.train()
    FastLanguageModel.for_training(model)
    return model, trainable


def share_scaler(model: Any, scaler: Any) -> None:
    """As Unsloth's trainer does: its loss computes gradients in the forward pass, where fp16 needs the scale."""
    for module in (model, model.base_model, model.base_model.model):
        module.accelerator_scaler = scaler


def fast_path(model: Any, output: Any) -> dict[str, Any]:
    """Which of Unsloth's accelerations the steps really took."""
    import torch

    layers = [module for module in model.modules() if type(module).__name__.endswith("DecoderLayer")]
    attentions = [layer.self_attn for layer in layers]

    def patched(attribute: str, name: str) -> int:
        return sum(getattr(getattr(item, attribute, None), "__name__", "") == name for item in attentions)

    return {
        "layers": len(layers),
        "fused_qkv": patched("apply_qkv", "apply_lora_qkv"),
        "fused_o": patched("apply_o", "apply_lora_o"),
        # Its block compiler marks a layer whose compiled forward has run, and gives it mode 0 when that failed.
        "compiled_blocks": sum(bool(layer.__dict__.get("_unsloth_block_checked")) for layer in layers),
        "block_modes": sorted({str(layer.__dict__.get("_unsloth_block_mode")) for layer in layers}),
        "fused_loss": not isinstance(output.logits, torch.Tensor),
    }


def train(model: Any, trainable: list[Any], steps: int, tokens: int) -> dict[str, Any]:
    """Steps timed one by one, then as many without waiting for the GPU in between."""
    import torch

    optimizer = torch.optim.AdamW(trainable, lr=2e-4, fused=True)
    scaler = torch.amp.GradScaler("cuda")
    share_scaler(model, scaler)
    generator = torch.Generator().manual_seed(0)
    shape = (8, MICRO_BATCH, tokens)
    batches = list(torch.randint(3, model.config.vocab_size, shape, generator=generator).to("cuda"))

    def step(index: int) -> Any:
        batch = batches[index % len(batches)]
        with torch.autocast("cuda", dtype=torch.float16):
            output = model(input_ids=batch, labels=batch)
        scaler.scale(output.loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return output

    seconds: list[float] = []
    losses: list[float] = []
    for index in range(steps):
        torch.cuda.synchronize()
        started = time.perf_counter()
        output = step(index)
        torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        losses.append(output.loss.item())
    started = time.perf_counter()
    for index in range(steps):
        output = step(index)
    torch.cuda.synchronize()
    together = (time.perf_counter() - started) / steps
    alone = statistics.median(seconds[steps // 3 :])
    return {
        "trainable": sum(parameter.numel() for parameter in trainable),
        "first_step_s": round(seconds[0], 2),
        "step_ms": round(alone * 1e3, 2),
        "back_to_back_ms": round(together * 1e3, 2),
        "tokens_per_second": round(MICRO_BATCH * tokens / min(alone, together)),
        "losses": [round(losses[0], 4), round(losses[-1], 4), round(output.loss.item(), 4)],
        "scale": scaler.get_scale(),
        "fast_path": fast_path(model, output),
    }


def peaks(prefix: str = "") -> dict[str, float]:
    import torch

    return {
        f"{prefix}peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2),
        f"{prefix}peak_reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2),
    }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """One row, in this process."""
    row = ROWS[arguments.row]
    os.environ.update(ENVIRONMENT | row.environment)
    os.environ.setdefault("UNSLOTH_COMPILE_LOCATION", str(arguments.model.parent / f"compiled-{arguments.row}"))
    os.environ.pop("UNSLOTH_RETURN_LOGITS", None)
    started = time.perf_counter()
    import torch
    import unsloth  # noqa: F401 - before transformers and peft, which it patches

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, arguments.cap_gib * GIB / total))
    model, trainable = load(row, arguments.model, arguments.tokens)
    torch.cuda.synchronize()
    record: dict[str, Any] = {"ready_s": round(time.perf_counter() - started, 1), **peaks("load_")}
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return record | train(model, trainable, arguments.steps, arguments.tokens) | peaks()


def run_child(arguments: argparse.Namespace) -> None:
    """What a row's process does: figures or the error, as JSON."""
    try:
        record = measure(arguments)
    except Exception as error:
        record = {"error": f"{type(error).__name__}: {error}"[:1000], "traceback": traceback.format_exc()[-4000:]}
    arguments.out.write_text(json.dumps(record))


def run_row(name: str, arguments: argparse.Namespace, root: Path, model: Path) -> dict[str, Any]:
    """One row in a process of its own."""
    out = root / f"{name}.json"
    command = [sys.executable, "-m", "bench.peers", "--row", name, "--model", str(model), "--out", str(out)]
    for option in ("steps", "cap_gib", "tokens"):
        command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    print(f"== {name}: {ROWS[name].label}", flush=True)
    try:
        ended = subprocess.run(command, check=False, timeout=arguments.row_timeout).returncode
        record = json.loads(out.read_text()) if out.is_file() else {"error": f"ended with exit code {ended}"}
    except subprocess.TimeoutExpired:
        record = {"error": f"not done after {arguments.row_timeout} s"}
    row = ROWS[name]
    return {
        "row": name,
        "label": row.label,
        "quantization": row.quantization,
        "targets": row.targets,
        "environment": row.environment,
        **record,
    }


def installed(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def card() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"


def table(rows: list[dict[str, Any]]) -> str:
    """The rows for people."""
    lines = [
        "| row | ms/step | back to back | tokens/s | peak GiB | reserved GiB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        if "error" in row:
            lines.append(f"| {row['label']} | failed: {row['error'][:100]} | | | | |".replace("\n", " "))
            continue
        figures = ("step_ms", "back_to_back_ms", "tokens_per_second", "peak_gib", "peak_reserved_gib")
        lines.append(f"| {row['label']} | {' | '.join(str(row[name]) for name in figures)} |")
    return "\n".join(lines)


def run(arguments: argparse.Namespace, root: Path) -> None:
    """Every row in turn, with the figures written after each."""
    model = arguments.model or root / "model"
    write_model(model, "tiny" if arguments.tiny else "7b")
    record: dict[str, Any] = {
        "card": card(),
        **{package: installed(package) for package in ("torch", "unsloth", "transformers", "peft", "bitsandbytes")},
        "shape": "tiny" if arguments.tiny else "7b",
        "micro_batch": MICRO_BATCH,
        **{option: getattr(arguments, option) for option in ("tokens", "steps", "cap_gib")},
        "rows": [],
    }
    for name in arguments.rows:
        record["rows"].append(run_row(name, arguments, root, model))
        arguments.out.write_text(json.dumps(record, indent=1))
        if "error" in record["rows"][-1]:
            print(record["rows"][-1].get("traceback", record["rows"][-1]["error"]), flush=True)
    print(table(record["rows"]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--steps", type=int, default=60, help="steps timed one by one, and again back to back")
    parser.add_argument("--cap-gib", type=float, default=14.56, help="GPU memory that a row may use (a T4's)")
    parser.add_argument("--tokens", type=int, default=256, help="length of each of the 4 sequences")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="which rows, in this order")
    parser.add_argument("--row-timeout", type=int, default=240, help="seconds after which a row is given up")
    parser.add_argument("--tiny", action="store_true", help="a tiny model, to see whether the rows run at all")
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    parser.add_argument("--model", type=Path, help="where the random model lies, or is to be written")
    arguments = parser.parse_args()
    if arguments.row:
        run_child(arguments)
        return
    with tempfile.TemporaryDirectory() as root:
        run(arguments, Path(root))


if __name__ == "__main__":
    main()
