"""The reference job on several GPUs: what a step takes through the real training stage, and what adding up the
processes' gradients takes of it.

    python -m bench.processes --out bench/results/processes.json [--processes 1 2] [--sequences 8 4] [--steps 40]

Sequences are those of an optimizer step, shared out among the processes. Model and texts as in `bench.training`, whose
folder `--keep` can name. Rows that the file holds already are not measured again.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import tempfile
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

from artifacts.errors import PreflightRefused
from bench import common
from bench.reference_job import SHAPES
from bench.training import planned
from flows.config import PipelineConfig
from tasks.models.shape import read_shape

PORT = "29511"
ROUNDS = 50


def ratios(rows: list[dict[str, Any]]) -> dict[str, float]:
    """How many times as fast several processes are as one, by kind of products and sequences."""
    alone = {(row["products"], row["sequences"]): row["step_ms"] for row in rows if row["processes"] == 1}
    return {
        f"{row['products']}, {row['sequences']} sequences, {row['processes']} processes": round(
            alone[row["products"], row["sequences"]] / row["step_ms"], 2
        )
        for row in rows
        if row["processes"] > 1 and (row["products"], row["sequences"]) in alone
    }


def reduction(numbers: int, processes: int) -> float:
    """Milliseconds of one call that adds up so many fp32 numbers of all processes, back to back with others."""
    import torch.multiprocessing

    context: Any = torch.multiprocessing.get_context("spawn")
    told = context.SimpleQueue()
    torch.multiprocessing.spawn(_reduce, (processes, numbers, told), nprocs=processes)
    return float(told.get())


def _reduce(rank: int, processes: int, numbers: int, told: Any) -> None:
    import torch
    import torch.distributed as dist

    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": PORT}
    gpu = common.on_gpu()
    device = torch.device("cuda", rank) if gpu else torch.device("cpu")
    if gpu:
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=processes)
    gradients = torch.ones(numbers, device=device)
    times = []
    for _ in range(ROUNDS):
        started = perf_counter()
        for _ in range(4):
            dist.all_reduce(gradients, op=dist.ReduceOp.MAX)
        if gpu:
            torch.cuda.synchronize()
        times.append((perf_counter() - started) / 4)
    if rank == 0:
        told.put(round(1000 * median(times[ROUNDS // 5 :]), 3))
    dist.destroy_process_group()


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    import torch

    kept = arguments.keep or root
    kept.mkdir(exist_ok=True)
    inputs = common.prepare(kept, arguments.shape)
    record: dict[str, Any] = json.loads(arguments.out.read_text()) if arguments.out.exists() else {"rows": []}
    record["date"] = datetime.now(UTC).date().isoformat()
    record["card"] = torch.cuda.get_device_name(0) if common.on_gpu() else "CPU"
    record |= {"cap_gib": arguments.cap_gib, "shape": arguments.shape}
    job = PipelineConfig().job()
    numbers = read_shape(inputs.model.metadata).lora_parameters(job.lora_rank, job.lora_target_modules)
    most = max(arguments.processes)
    if most > 1 and "reduction_ms" not in record:
        record |= {"reduced_mb": round(numbers * 4 / 1e6, 1), "reduction_ms": reduction(numbers, most)}
        print(f"adding up {record['reduced_mb']} MB: {record['reduction_ms']} ms", flush=True)
    names = ("sequences", "products", "processes")
    for values in product(*(getattr(arguments, name) for name in names)):
        wanted = dict(zip(names, values, strict=True))
        if any(wanted.items() <= row.items() for row in record["rows"]):
            continue
        sequences = wanted["sequences"]
        changes = {"effective_batch": sequences, "products": wanted["products"], "processes": wanted["processes"]}
        name = "-".join(map(str, values))
        try:
            plan = planned(root, inputs, arguments.cap_gib, **changes).plan
            row = common.run_stage(root, name, plan, arguments.steps, inputs, effective_batch=sequences)
        except PreflightRefused as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            continue
        record["rows"].append(wanted | row)
        record["times_as_fast"] = ratios(record["rows"])
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")  # whatever comes later, this is measured
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sequences", type=int, nargs="+", default=[8, 4], help="in an optimizer step")
    parser.add_argument("--products", nargs="+", choices=["fp16", "int8"], default=["fp16", "int8"])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--cap-gib", type=float, default=14.56, help="memory of each GPU that a run may use (a T4's)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--keep", type=Path, help="a folder for the model and the texts, to be used again")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with tempfile.TemporaryDirectory() as root:
        record = measure(arguments, Path(root))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record.get("times_as_fast"), indent=1))


if __name__ == "__main__":
    main()
