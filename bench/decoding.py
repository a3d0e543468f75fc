"""Greedy answers: transformers' `generate` on bitsandbytes' int8, one prompt at a time and batched, against the engine.

    python -m bench.decoding --out decoding.json [--model DIR] [--shape 7b] [--prompts 64] [--prompt-tokens 256]
                             [--new-tokens 48] [--batch 32] [--cap-gib 14.56]

CodeLlama-7b's shape with random weights; nothing ends an answer early, so that all make equally many tokens. Each is
run once before it is timed: what that costs more is its start-up (kernels, the CUDA graph). What the answers say means
nothing here: int8 quantizes activations in the libraries' modules and not in the engine.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from artifacts.schema import Plan
from bench.reference_job import SHAPES, write_random_model
from tasks.backends.contract import Decoding
from tasks.backends.fused import ops
from tasks.backends.fused.decoding import Decoder
from tasks.models.loading import load_base, silence_peft

GIB = 2**30
ALONE = 4
"""Prompts that are enough to time one at a time."""
Prompts = list[list[int]]


def load(arguments: argparse.Namespace, folder: Path) -> Any:
    """The base model in int8."""
    on_gpu = torch.cuda.is_available()
    if not (folder / "config.json").exists():
        write_random_model(folder, SHAPES[arguments.shape], "cuda" if on_gpu else "cpu")
    plan = Plan(
        device="cuda" if on_gpu else "cpu",
        precision="fp16" if on_gpu else "fp32",
        micro_batch=1,
        accumulation=1,
        gradient_checkpointing=False,
        gpu_memory_gib=arguments.cap_gib if on_gpu else None,
        backend="transformers",
    )
    if on_gpu:
        torch.cuda.empty_cache()
    return load_base(folder, "int8", plan)


def with_adapter(model: Any) -> Any:
    from peft import LoraConfig, get_peft_model

    silence_peft()
    lora = LoraConfig(task_type="CAUSAL_LM", r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"])
    return get_peft_model(model, lora).requires_grad_(False).eval()


def stock(model: Any, new_tokens: int, batch: int) -> Callable[[Prompts], int]:
    """transformers' `generate`, so many prompts of one length at a time; returns the number of new tokens."""
    settings = {"do_sample": False, "min_new_tokens": new_tokens, "max_new_tokens": new_tokens, "pad_token_id": 0}

    def run(prompts: Prompts) -> int:
        made = 0
        for start in range(0, len(prompts), batch):
            ids = torch.tensor(prompts[start : start + batch], device=model.device)
            found = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)
            made += found[:, ids.shape[1] :].numel()
        return made

    return run


def engine(decoder: Decoder, new_tokens: int, batch: int, *, adapted: bool) -> Callable[[Prompts], int]:
    settings = Decoding(batch, new_tokens, frozenset())
    return lambda prompts: sum(map(len, decoder.generate(prompts, settings, adapted=adapted)))


def timed(what: str, run: Callable[[Prompts], int], prompts: Prompts, batch: int) -> dict[str, Any]:
    """Tokens and answers a second; start-up is what a first run of one batch takes more than its share of a later one,
    never below zero."""
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    first_prompts = prompts[:batch]
    first, _ = _seconds(run, first_prompts)
    seconds, tokens = _seconds(run, prompts)
    row = {
        "what": what,
        "prompts": len(prompts),
        "batch": batch,
        "tokens": tokens,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        "completions_per_second": len(prompts) / seconds,
        "start_up_s": max(0.0, first - seconds * len(first_prompts) / len(prompts)),
        "peak_gib": torch.cuda.max_memory_allocated() / GIB if on_gpu else None,
    }
    print(line(row), flush=True)
    return row


def _seconds(run: Callable[[Prompts], int], prompts: Prompts) -> tuple[float, int]:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    tokens = run(prompts)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started, tokens


def line(row: dict[str, Any]) -> str:
    peak = "" if row["peak_gib"] is None else f", peak {row['peak_gib']:.2f} GiB"
    return (
        f"{row['what']:34} {row['tokens_per_second']:8.1f} tokens/s {row['completions_per_second']:7.2f} answers/s,"
        f" start-up {row['start_up_s']:.1f} s{peak}"
    )


def products(model: Any, rows: int) -> list[dict[str, Any]]:
    """Each int8 product of a layer alone, as decoding takes it: milliseconds and GB/s of codes."""
    from bench.engine_step import milliseconds

    layer = model.layers[len(model.layers) // 2]
    found = []
    for name in ("qkv", "o", "gate_up", "down"):
        weight = getattr(layer, name).weights[0]
        x = torch.randn(rows, weight.columns, device="cuda", dtype=torch.float16)
        taken = milliseconds(lambda w=weight, x=x: w.product(x))  # type: ignore[misc]
        grid = ops.int8_grid(weight.rows, weight.columns)
        found.append({"what": name, "ms": taken, "gb_s": weight.codes.numel() / taken / 1e6, "grid": grid})
    return found


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    model = load(arguments, folder)
    torch.manual_seed(0)
    shape = (arguments.prompts, arguments.prompt_tokens)
    prompts: Prompts = torch.randint(3, model.config.vocab_size, shape).tolist()
    new, batch = arguments.new_tokens, min(arguments.batch, arguments.prompts)
    rows = [
        timed("generate, stock int8, alone", stock(model, new, 1), prompts[:ALONE], 1),
        timed("generate, stock int8, batched", stock(model, new, batch), prompts, batch),
    ]
    decoder = Decoder(with_adapter(model), arguments.prompt_tokens + new)
    for adapted in (False, True):
        run = engine(decoder, new, batch, adapted=adapted)
        rows.append(timed(f"engine, {'tuned' if adapted else 'base'}", run, prompts, batch))
    alone, batched, base, tuned = (row["tokens_per_second"] for row in rows)
    record: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "shape": arguments.shape,
        "prompt_tokens": arguments.prompt_tokens,
        "new_tokens": new,
        "captured": decoder.captured,
        "rows": rows,
        "speedup_over_alone": base / alone,
        "speedup_over_batched": base / batched,
        "tuned_over_base": tuned / base,
    }
    if torch.cuda.is_available():
        decoder.release()
        record["products"] = products(decoder.model, batch)
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--model", type=Path, help="where the random model lies, or is to be written")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--prompts", type=int, default=64)
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=48)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cap-gib", type=float, default=14.56, help="GPU memory that the run may use (a T4's)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        record = measure(arguments, arguments.model or Path(scratch))
    arguments.out.write_text(json.dumps(record, indent=1))
    alone, batched = record["speedup_over_alone"], record["speedup_over_batched"]
    print(f"engine over generate: {alone:.1f}× alone, {batched:.1f}× batched")
    for one in record.get("products", []):
        print(f"{one['what']:8} {one['ms']:.3f} ms {one['gb_s']:6.0f} GB/s of codes, grid {one['grid']}")


if __name__ == "__main__":
    main()
