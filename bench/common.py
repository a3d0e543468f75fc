"""What the benchmarks share: the reference job's model and texts, made once, and the GPU's own rates."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from artifacts.progress import SILENT
from artifacts.schema import DatasetSample, Plan, QuantizedBase, TokenizedDataset
from bench.reference_job import SHAPES
from tasks import quantization, sampling, tokenization, training
from tasks.models.base_model import ModelConfig, ModelReference, locate

GIB = 2**30


@dataclass(frozen=True)
class Inputs:
    """What the training stage takes."""

    model: ModelReference
    sample: DatasetSample
    tokens: TokenizedDataset
    base: QuantizedBase
    quantizing_seconds: float


def on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def write_model(folder: Path, shape: str) -> None:
    """A random model, written by a process of its own: it fills the GPU with 16-bit weights."""
    if (folder / "config.json").exists():
        return
    code = (
        "import sys; from pathlib import Path; from bench.reference_job import SHAPES, write_random_model; "
        f"write_random_model(Path(sys.argv[1]), SHAPES[sys.argv[2]], {'cuda' if on_gpu() else 'cpu'!r})"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), shape], check=True)


def prepare(root: Path, shape: str) -> Inputs:
    """Model, texts and the int8 base, by the real stages; made once in a folder that is kept."""
    assert shape in SHAPES
    file = root / f"inputs-{shape}"
    if not file.exists():
        write_model(root / f"model-{shape}", shape)
        file.write_bytes(pickle.dumps(inputs_of(root, locate(ModelConfig(name=str(root / f"model-{shape}"))), shape)))
    inputs: Inputs = pickle.loads(file.read_bytes())
    return inputs


def texts_of(
    root: Path, model: ModelReference, name: str, *, files: int = 400, **settings: Any
) -> tuple[DatasetSample, TokenizedDataset]:
    """Texts of the standard library, and their tokens for a model. `settings`: of the tokenization."""
    folders = {kind: root / f"{kind}-{name}" for kind in ("sample", "tokens")}
    for folder in folders.values():
        folder.mkdir(exist_ok=True)
    source = sampling.config.LocalSource(paths=("stdlib",), repositories="top-level", exclude=("*test*",))
    sample = sampling.run_sampling(
        sampling.SamplingConfig(source=source, files=files), workdir=folders["sample"], progress=SILENT
    )
    config = tokenization.TokenizationConfig(**settings)
    tokens = tokenization.run_tokenization(
        config, sample=sample, model=model, workdir=folders["tokens"], progress=SILENT
    )
    return sample, tokens


def inputs_of(root: Path, model: ModelReference, name: str, **settings: Any) -> Inputs:
    """Texts of the standard library for a model, and its int8 base. `settings`: as `texts_of` has them."""
    sample, tokens = texts_of(root, model, name, **settings)
    folder = root / f"base-{name}"
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    config = quantization.QuantizationConfig(quantization="int8", device="cuda" if on_gpu() else "cpu")
    base = quantization.run_quantization(config, model=model, workdir=folder, progress=SILENT)
    return Inputs(model, sample, tokens, base, round(time.perf_counter() - started, 1))


def run_stage(root: Path, name: str, plan: Plan, steps: int, inputs: Inputs, **settings: Any) -> dict[str, Any]:
    """One run of the training stage in a cold process: its wall time, and the median step after the first tenth."""
    import pyarrow.parquet as pq

    workdir = root / f"run-{name}"
    workdir.mkdir()
    config = training.TrainingConfig(max_steps=steps, warmup_steps=min(10, steps // 2), **settings)
    started = time.perf_counter()
    result = training.run_training(
        config,
        model=inputs.model,
        tokens=inputs.tokens,
        base=inputs.base,
        plan=plan,
        workdir=workdir,
        progress=SILENT,
    )
    wall = time.perf_counter() - started
    columns = pq.read_table(result.path / "metrics.parquet").to_pydict()
    later = columns["seconds"][max(3, steps // 10) :]
    row = {
        "what": name,
        "plan": plan.model_dump(mode="json"),
        "steps": steps,
        "step_ms": round(1000 * median(later), 2),
        "mean_step_ms": round(1000 * sum(later) / len(later), 2),
        "first_step_s": round(columns["seconds"][0], 2),
        "stage_s": round(wall, 1),
        "peak_gib": round(result.peak_memory_gib, 2),
        "loss": columns["loss"],
        "skipped_steps": sum(one is None for one in columns["grad_norm"]),
    }
    print(f"{name}: {row['step_ms']} ms a step, stage {row['stage_s']} s, peak {row['peak_gib']} GiB", flush=True)
    return row


def milliseconds(work: Callable[[], object], repeats: int = 20) -> float:
    """Median over repeats, by CUDA events, after one call that is not counted."""
    import torch

    work()
    torch.cuda.synchronize()
    times = []
    for _ in range(repeats):
        start, stop = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()  # type: ignore[no-untyped-call]
        work()
        stop.record()  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))  # type: ignore[no-untyped-call]
    return median(times)


def rates() -> dict[str, float]:
    """What the GPU does on random data: TFLOP/s of an 8192³ product in fp16, GB/s of a large copy, reads and writes
    both counted."""
    import torch

    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.float16) for _ in range(2))
    product = milliseconds(lambda: a @ b)
    source = torch.randn(2**29, device="cuda", dtype=torch.float16)
    target = torch.empty_like(source)
    copied = milliseconds(lambda: target.copy_(source))
    return {
        "matmul_tflops": round(2 * 8192**3 / product / 1e9, 1),
        "copy_gb_s": round(2 * source.nbytes / copied / 1e6, 1),
    }
