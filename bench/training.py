"""The reference job's training stage on one GPU: the libraries' modules as the reference settings spell them, against
the fused engine, against the fastest peer, against the floor that the card's own rates set.

    python -m bench.training --out bench/results/training.json [--steps 200] [--stock-steps 20] [--cap-gib 14.56]

Builds CodeLlama-7b's shape with random weights and outlier channels, takes the standard library as the code to learn,
and runs the real training stage (a process of its own, TRL's trainer, checkpoints, event files) with memory capped to
a T4's. Losses mean nothing here; times, memory and agreement do.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from artifacts.progress import SILENT
from artifacts.schema import Plan, TokenizedDataset
from bench.reference_job import SHAPES, write_random_model
from tasks import sampling, tokenization, training
from tasks.base_model import ModelConfig, ModelReference, locate

TOKENS = 1024
"""Of an optimizer step."""
LIBRARIES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


def prepare(root: Path, shape: str) -> tuple[ModelReference, TokenizedDataset]:
    """The model and the texts, made once per folder."""
    import torch

    folder = root / f"model-{shape}"
    if not (folder / "config.json").exists():
        write_random_model(folder, SHAPES[shape], "cuda" if torch.cuda.is_available() else "cpu")
    model = locate(ModelConfig(name=str(folder)))
    for name in ("sample", "tokens"):
        (root / name).mkdir(exist_ok=True)
    source = sampling.configuration.LocalSource(paths=("stdlib",), repositories="top-level", exclude=("*test*",))
    sample = sampling.run_sampling(
        sampling.SamplingConfig(source=source, files=300), workdir=root / "sample", progress=SILENT
    )
    tokens = tokenization.run_tokenization(
        tokenization.TokenizationConfig(), sample=sample, model=model, workdir=root / "tokens", progress=SILENT
    )
    return model, tokens


def stage(root: Path, name: str, plan: Plan, steps: int, model: ModelReference, tokens: TokenizedDataset) -> Any:
    """One run of the training stage: wall time of the whole and the median step after the first tenth."""
    import pyarrow.parquet as pq

    workdir = root / f"run-{name}"
    workdir.mkdir()
    config = training.TrainingConfig(max_steps=steps, warmup_steps=min(10, steps // 2), lora={"dropout": 0.0})  # type: ignore[arg-type]
    started = time.perf_counter()
    result = training.run_training(config, model=model, tokens=tokens, plan=plan, workdir=workdir, progress=SILENT)
    wall = time.perf_counter() - started
    columns = pq.read_table(workdir / "metrics.parquet").to_pydict()
    later = columns["seconds"][max(3, steps // 10) :]
    row = {
        "what": name,
        "plan": plan.model_dump(mode="json"),
        "steps": steps,
        "step_ms": 1000 * median(later),
        "mean_step_ms": 1000 * sum(later) / len(later),
        "first_step_s": columns["seconds"][0],
        "stage_s": wall,
        "peak_gib": result.peak_memory_gib,
        "losses": [columns["loss"][0], columns["loss"][-1]],
    }
    print(f"{name}: {row['step_ms']:.1f} ms a step, stage {wall:.1f} s, peak {row['peak_gib']:.2f} GiB", flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--stock-steps", type=int, default=20)
    parser.add_argument("--cap-gib", type=float, default=14.56)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--rows", nargs="*", default=["engine", "stock"])
    parser.add_argument("--keep", type=Path, help="a folder for the model and the texts, to be used again")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        kept = arguments.keep or root
        kept.mkdir(exist_ok=True)
        model, tokens = prepare(kept, arguments.shape)
        import torch

        on_gpu = torch.cuda.is_available()
        fused = Plan(
            device="cuda" if on_gpu else "cpu",
            precision="fp16" if on_gpu else "fp32",
            micro_batch=4,
            accumulation=1,
            gradient_checkpointing=False,
            engine="fused",
            gpu_memory_gib=arguments.cap_gib if on_gpu else None,
        )
        stock = fused.model_copy(
            update={"micro_batch": 1, "accumulation": 4, "gradient_checkpointing": True, "engine": "stock"}
        )
        plans = {"engine": (fused, arguments.steps), "stock": (stock, arguments.stock_steps)}
        rows = [stage(root, name, *plans[name], model, tokens) for name in arguments.rows]
    arguments.out.write_text(json.dumps({"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
