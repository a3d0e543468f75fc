"""Does `fused` learn what `transformers` does? Loss curves of both backends on the built-in model, two seeds.

    python -m bench.learning --out bench/results/learning.json [--steps 200]

The built-in model (7.5M parameters) learns the standard library at the reference settings through the real training
stage: int8 base, LoRA r=8 on q_proj and v_proj, 200 steps of 4 × 256 tokens. Same seed, other backend: how far are the
losses of each step apart? Same backend, other seed: what is such a difference worth?
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from artifacts.schema import Plan
from bench import common
from tasks.models.base_model import ModelConfig, locate

SEEDS = (42, 43)


def apart(first: list[float], second: list[float]) -> dict[str, float]:
    """Differences between two loss curves: of single steps, and of the means over the last tenth."""
    tenth = max(1, len(first) // 10)
    return {
        "mean_absolute": fmean(abs(a - b) for a, b in zip(first, second, strict=True)),
        "end": abs(fmean(first[-tenth:]) - fmean(second[-tenth:])),
    }


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    gpu = common.on_gpu()
    fused = Plan(
        device="cuda" if gpu else "cpu",
        precision="fp16" if gpu else "fp32",
        micro_batch=4,
        accumulation=1,
        gradient_checkpointing=False,
        backend="fused",
        gpu_memory_gib=14.56 if gpu else None,
    )
    plans = {"fused": fused, "transformers": fused.model_copy(update={"backend": "transformers"})}
    inputs = common.inputs_of(root, locate(ModelConfig(name="models/codellama-tiny")), "built-in")
    rows = {
        (backend, seed): common.run_stage(root, f"{backend}-{seed}", plan, arguments.steps, inputs, seed=seed)
        for seed in SEEDS
        for backend, plan in plans.items()
    }
    curves = {key: row["loss"] for key, row in rows.items()}
    backends = [apart(curves["fused", seed], curves["transformers", seed]) for seed in SEEDS]
    seeds = [apart(curves[backend, SEEDS[0]], curves[backend, SEEDS[1]]) for backend in plans]
    worst = {name: max(one[name] for one in backends) for name in backends[0]}
    spread = {name: min(one[name] for one in seeds) for name in seeds[0]}
    return {
        "device": plans["fused"].device,
        "steps": arguments.steps,
        "backends_apart": worst,
        "seeds_apart": spread,
        "agree": all(worst[name] <= spread[name] for name in worst),
        "rows": list(rows.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        record = measure(arguments, Path(root))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    for name in ("backends_apart", "seeds_apart", "agree"):
        print(name, record[name])


if __name__ == "__main__":
    main()
