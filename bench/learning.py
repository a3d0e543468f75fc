"""Does `fused` learn what `transformers` does, with products in 16 bits and in int8? Three seeds, the built-in model.

    python -m bench.learning --out bench/results/learning.json [--steps 200]

The built-in model (7.5M parameters) learns the standard library at the reference settings through the real training
stage: int8 base, LoRA r=8 on q_proj and v_proj, 200 steps of 4 × 256 tokens. Same seed, other way of computing: how far
are the losses of each step apart? Same way, other seed: what is such a difference worth? And what became of it: losses
on files held out, and on code of other packages, all computed in one way (products in 16 bits).
"""

from __future__ import annotations

import argparse
import json
import random
import sysconfig
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean
from typing import Any

from artifacts.schema import Plan
from bench import common
from tasks.models.base_model import ModelConfig, locate

SEEDS = (42, 43, 44)
OTHERS = ("numpy", "pyarrow", "pydantic", "peft")
"""Packages whose code nobody learns here, but should still be known."""
Losses = dict[str, float]
"""Mean loss of each file, nats a token."""


def apart(first: list[float], second: list[float]) -> dict[str, float]:
    """Differences between two loss curves: of single steps, and of the means over the last tenth."""
    tenth = max(1, len(first) // 10)
    return {
        "mean_absolute": fmean(abs(a - b) for a, b in zip(first, second, strict=True)),
        "end": abs(fmean(first[-tenth:]) - fmean(second[-tenth:])),
    }


def interval(differences: list[float]) -> dict[str, float]:
    """The mean over files with its 95 % interval, by resampling files."""
    draw = random.Random(0)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(2000))
    return {"mean": fmean(differences), "low": means[50], "high": means[-51], "files": len(differences)}


def held_out(inputs: common.Inputs) -> Iterator[tuple[str, list[int]]]:
    """Chunks of the files that are not learned from."""
    import pyarrow.parquet as pq

    for row in pq.read_table(inputs.tokens.path / "held_out.parquet").to_pylist():
        yield row["path"], row["input_ids"]


def elsewhere(tokenizer: Any) -> Iterator[tuple[str, list[int]]]:
    """Chunks of other packages' files, one a file."""
    for package in OTHERS:
        files = sorted((Path(sysconfig.get_paths()["purelib"]) / package).rglob("*.py"))
        for file in [one for one in files if one.stat().st_size > 4000][::2][:20]:
            yield str(file), tokenizer(file.read_text(errors="replace"))["input_ids"][:256]


class Judge:
    """Losses of the base and of what training made of it."""

    def __init__(self, inputs: common.Inputs, plan: Plan) -> None:
        from transformers import AutoTokenizer

        from tasks.models.loading import load_base, silence_peft

        silence_peft()
        folder = inputs.model.metadata
        self._base = load_base(folder, "int8", plan.model_copy(update={"backend": "transformers"}))
        self._texts = {
            "held_out": list(held_out(inputs)),
            "elsewhere": list(elsewhere(AutoTokenizer.from_pretrained(folder))),
        }

    def losses(self, adapter: Path | None) -> dict[str, Losses]:
        """By kind of text and file."""
        from peft import PeftModel

        from tasks.backends.fused import inference
        from tasks.backends.fused.model import FusedModel

        model = self._base if adapter is None else PeftModel.from_pretrained(self._base, adapter)
        fused = FusedModel(model, length=256)
        found = {
            kind: self._by_file(inference, fused, texts, adapted=adapter is not None)
            for kind, texts in self._texts.items()
        }
        if adapter is not None:
            self._base = model.unload()
        return found

    def _by_file(self, inference: Any, fused: Any, texts: list[tuple[str, list[int]]], *, adapted: bool) -> Losses:
        import torch

        device = fused.embedding.device
        files: dict[str, list[float]] = defaultdict(list)
        for start in range(0, len(texts), 16):
            part = texts[start : start + 16]
            ids = torch.zeros((len(part), 256), dtype=torch.long)
            following = torch.full_like(ids, -100)
            for row, (_, chunk) in enumerate(part):
                ids[row, : len(chunk)] = torch.tensor(chunk)
                following[row, : len(chunk) - 1] = torch.tensor(chunk[1:])
            losses = inference.losses(fused, ids.to(device), following.to(device), adapted=adapted).cpu()
            for (file, chunk), row in zip(part, losses, strict=True):
                files[file].append(float(row.sum()) / (len(chunk) - 1))
        return {file: fmean(values) for file, values in files.items()}


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
    plans = {
        "fused": fused,
        "int8": fused.model_copy(update={"products": "int8"}),
        "transformers": fused.model_copy(update={"backend": "transformers"}),
    }
    inputs = common.inputs_of(root, locate(ModelConfig(name="models/codellama-tiny")), "built-in")
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    record: dict[str, Any] = {"device": fused.device, "steps": arguments.steps}
    for seed in SEEDS:
        for name, plan in plans.items():
            rows[name, seed] = common.run_stage(root, f"{name}-{seed}", plan, arguments.steps, inputs, seed=seed)
            # whatever comes later, this is measured
            arguments.out.write_text(json.dumps(record | {"rows": list(rows.values())}, indent=1) + "\n")
    curves = {key: row["loss"] for key, row in rows.items()}
    for name in ("transformers", "int8"):
        pairs = [apart(curves["fused", seed], curves[name, seed]) for seed in SEEDS]
        record[f"fused_and_{name}_apart"] = {key: max(one[key] for one in pairs) for key in pairs[0]}
    seeds = [apart(curves[name, SEEDS[0]], curves[name, other]) for name in plans for other in SEEDS[1:]]
    record["seeds_apart"] = {key: min(one[key] for one in seeds) for key in seeds[0]}
    judge = Judge(inputs, fused)
    base = judge.losses(None)
    after = {key: judge.losses(root / f"run-{key[0]}-{key[1]}" / "result" / "adapter") for key in rows}
    for kind, before in base.items():
        record[kind] = {
            f"{name} against the base": interval(_mean_differences(after, name, before, kind)) for name in plans
        }
        record[kind]["int8 against fused"] = interval(
            [
                fmean(after["int8", seed][kind][file] - after["fused", seed][kind][file] for seed in SEEDS)
                for file in before
            ]
        )
    record["agree"] = all(
        record[f"fused_and_{name}_apart"][key] <= record["seeds_apart"][key]
        for name in ("transformers", "int8")
        for key in record["seeds_apart"]
    )
    return record | {"rows": list(rows.values())}


def _mean_differences(
    after: dict[tuple[str, int], dict[str, Losses]], name: str, before: Losses, kind: str
) -> list[float]:
    """By file, the mean over the seeds."""
    return [fmean(after[name, seed][kind][file] - loss for seed in SEEDS) for file, loss in before.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        record = measure(arguments, Path(root))
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    for name, value in record.items():
        if name != "rows":
            print(name, value)


if __name__ == "__main__":
    main()
