"""The reference job's training stage on one GPU: the libraries' modules as the reference settings spell them, against
the backend `fused` with products in 16 bits and in int8, against the fastest peer, against the floor that the rates of
the GPU set.

    python -m bench.training --out bench/results/training.json [--steps 200] [--transformers-steps 20] [--cap-gib 14.56]

Builds CodeLlama-7b's shape with random weights and outlier channels, takes the standard library as the code to learn,
and runs the real training stage (a process of its own, TRL's trainer, checkpoints, event files) with memory capped to
a T4's. Losses mean nothing here; times, memory and agreement do. The peer (`bench.peers`) runs where `--peers` names
folders with Unsloth and what it needs; its figure is null otherwise.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from artifacts.schema import Plan
from bench import common
from bench.reference_job import SHAPES
from flows.config import PipelineConfig
from tasks import preflight
from tasks.models.shape import read_shape

LIBRARIES = ("torch", "triton", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def planned(root: Path, inputs: common.Inputs, cap_gib: float, **changes: Any) -> Any:
    """What preflight plans for this card under this cap, and predicts. `changes`: of the reference job."""
    workdir = root / "-".join(["preflight", *map(str, changes.values())])
    workdir.mkdir()
    settings: dict[str, Any] = {"gpu_memory_gib": cap_gib, "precision": "fp16"} if common.on_gpu() else {}
    job = PipelineConfig().job().model_copy(update=changes)  # the defaults are the reference job
    config = preflight.PreflightConfig(**settings)
    return preflight.STAGE.run(config, model=inputs.model, job=job, workdir=workdir, progress=common.SILENT)


def transformers_of(plan: Plan) -> Plan:
    """The reference settings: batch 1 × accumulation 4, gradient checkpointing, the libraries' modules."""
    changes = {"micro_batch": 1, "accumulation": 4, "gradient_checkpointing": True, "backend": "transformers"}
    return plan.model_copy(update=changes | {"checkpointed_layers": None, "resident_layers": 0})


def floor(model: Path, card: dict[str, float], tokens: int = 1024) -> dict[str, float]:
    """Milliseconds of a step in which nothing but the products happens, at the GPU's rates; and with the unpacking of
    every int8 weight in both passes."""
    shape = read_shape(model)
    products = 4 * (shape.linear_parameters + shape.vocabulary * shape.hidden) * tokens
    unpacking = 2 * 3 * shape.linear_parameters
    bare = products / card["matmul_tflops"] / 1e9
    return {
        "floor_step_ms": round(bare, 2),
        "floor_with_unpacking_ms": round(bare + unpacking / card["copy_gb_s"] / 1e6, 2),
    }


def peers(root: Path, model: Path, folders: str, cap_gib: float) -> list[dict[str, Any]]:
    """Rows of `bench.peers`, run by an interpreter that finds Unsloth first."""
    out = root / "peers.json"
    path = os.pathsep.join(filter(None, [folders, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "bench.peers", "--out", str(out), "--model", str(model), "--cap-gib", str(cap_gib)]
    command += ["--rows", "nf4", "nf4-graphs", "--steps", "40"]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)
    rows: list[dict[str, Any]] = json.loads(out.read_text())["rows"] if out.exists() else []
    return rows


def best(rows: list[dict[str, Any]]) -> float | None:
    """The peer's fastest step, timed one by one or back to back, whichever favours it."""
    times = [min(row["step_ms"], row["back_to_back_ms"]) for row in rows if "step_ms" in row]
    return min(times, default=None)


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    kept = arguments.keep or root
    kept.mkdir(exist_ok=True)
    inputs = common.prepare(kept, arguments.shape)
    cleared, fast = (planned(root, inputs, arguments.cap_gib, products=products) for products in ("fp16", "int8"))
    print(cleared.summary, fast.summary, sep="\n", flush=True)
    fused = common.run_stage(root, "fused", cleared.plan, arguments.steps, inputs)
    int8 = common.run_stage(root, "fused, int8", fast.plan, arguments.steps, inputs)
    transformers = common.run_stage(
        root, "transformers", transformers_of(cleared.plan), arguments.transformers_steps, inputs
    )
    record: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "card": "CPU",
        "versions": {name: version(name) for name in LIBRARIES if _installed(name)},
        "cap_gib": arguments.cap_gib,
        "transformers_step_ms": transformers["step_ms"],
        "fused_step_ms": fused["step_ms"],
        "transformers_over_fused": round(transformers["step_ms"] / fused["step_ms"], 1),
        "int8_step_ms": int8["step_ms"],
        "fused_over_int8": round(fused["step_ms"] / int8["step_ms"], 2),
        "transformers_over_int8": round(transformers["step_ms"] / int8["step_ms"], 1),
        "int8_peak_gib": int8["peak_gib"],
        "predicted_int8_peak_gib": fast.prediction.peak_gib,
        "int8_stage_200_steps_s": int8["stage_s"] if arguments.steps == 200 else None,
        "unsloth_step_ms": None,
        "unsloth_over_fused": None,
        "fused_peak_gib": fused["peak_gib"],
        "predicted_peak_gib": cleared.prediction.peak_gib,
        "stage_200_steps_s": fused["stage_s"] if arguments.steps == 200 else None,
        "quantizing_once_s": inputs.quantizing_seconds,
        "memory_prediction_worst_error": _worst(arguments.memory),
        "rows": [fused, int8, transformers],
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")  # whatever comes later, this is measured
    if arguments.peers:
        found = peers(root, kept / f"model-{arguments.shape}", arguments.peers, arguments.cap_gib)
        fastest = best(found)
        record["unsloth_step_ms"] = fastest
        record["unsloth_over_fused"] = round(fastest / fused["step_ms"], 2) if fastest else None
        record["unsloth_over_int8"] = round(fastest / int8["step_ms"], 2) if fastest else None
        record["rows"] += found
    if common.on_gpu():
        import torch

        card = common.rates()
        record |= {"card": torch.cuda.get_device_name(0), **card, **floor(inputs.model.metadata, card)}
    return record


def table(record: dict[str, Any]) -> str:
    """The rows for people."""
    lines = ["| | ms a step | stage, s | peak GiB |", "| --- | --- | --- | --- |"]
    for row in record["rows"]:
        name = row.get("label") or row["what"]
        if "error" in row:
            lines.append(f"| {name} | failed: {row['error'][:80]} | | |")
        else:
            lines.append(f"| {name} | {row['step_ms']} | {row.get('stage_s', '')} | {row['peak_gib']} |")
    if "floor_step_ms" in record:
        lines.append(f"| floor: products alone at {record['matmul_tflops']} TFLOP/s | {record['floor_step_ms']} | | |")
        lines.append(f"| floor with unpacking | {record['floor_with_unpacking_ms']} | | |")
    return "\n".join(lines)


def _worst(file: Path) -> float | None:
    if not file.exists():
        return None
    worst: float = json.loads(file.read_text())["worst_error"]
    return worst


def _installed(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--transformers-steps", type=int, default=20)
    parser.add_argument("--cap-gib", type=float, default=14.56, help="GPU memory that a run may use (a T4's)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--keep", type=Path, help="a folder for the model and the texts, to be used again")
    parser.add_argument("--peers", help="folders with Unsloth and what it needs, as PYTHONPATH has them")
    parser.add_argument(
        "--memory", type=Path, default=Path(__file__).parent / "results" / "memory.json", help="of bench.memory"
    )
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with tempfile.TemporaryDirectory() as root:
        record = measure(arguments, Path(root))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
