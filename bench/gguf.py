"""The stage `exporting` on a 7B with every form of GGUF: time, host memory and disk, step by step.

    python -m bench.gguf --out bench/results/gguf.json [--shape 7b] [--calls adapter-gguf gguf-f16,gguf-q4_k_m]

CodeLlama-7b's shape with random weights, a random adapter on all linear layers of attention, the standard library as
the code to learn. The stage is the real one: it merges, converts, quantizes, and checks each file in llama.cpp. It is
called twice, the second time for the adapter as GGUF, so that both fit on a disk of 64 GB. Differences of logits say
how far apart the programs are; what 4 bits cost of a trained model is the evaluation's to say. The figures are written
after each step.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from artifacts.errors import StageError
from artifacts.progress import Progress, Tick
from artifacts.schema import Checkpoint, ExportedForm, ExportedModel, Plan
from bench import common
from bench.reference_job import SHAPES
from tasks import exporting
from tasks.exporting.comparing import HALF_PRECISION, gguf_share
from tasks.exporting.forms import gguf
from tasks.models.base_model import ModelConfig, ModelReference, locate
from tasks.models.shape import read_shape

EVERY = 0.05
"""Seconds between two looks at the memory."""
GB = 1e9
RANK = 8


class Meter:
    """What a piece of work takes: seconds, the highest memory of this process and of those that it starts, and bytes of
    a folder.

    Memory is what the programs hold themselves. Pages of a file that they map, as llama.cpp does with a model, can be
    given back at any time, and are counted apart.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began, self._held, self._mapped, self._disk = time.perf_counter(), 0, 0, 0
        self._ended = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self._ended.wait(EVERY):
            held, mapped = (sum(counts) for counts in zip(*map(_memory, _family(os.getpid())), strict=True))
            self._held, self._mapped = max(self._held, held), max(self._mapped, mapped)
            self._disk = max(self._disk, _bytes(self._folder))

    def take(self) -> dict[str, float]:
        """Since the last call."""
        found = {
            "seconds": round(time.perf_counter() - self._began, 1),
            "memory_gb": round(self._held / GB, 2),
            "mapped_gb": round(self._mapped / GB, 2),
            "disk_gb": round(max(self._disk, _bytes(self._folder)) / GB, 2),
        }
        self._began, self._held, self._mapped, self._disk = time.perf_counter(), 0, 0, 0
        return found

    def end(self) -> None:
        self._ended.set()


def _family(process: int) -> Iterator[int]:
    """A process and all that it has started."""
    yield process
    for path in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            children = path.read_text().split()
        except OSError:  # a thread that has ended
            continue
        for child in children:
            yield from _family(int(child))


def _memory(process: int) -> tuple[int, int]:
    """Bytes that a process holds, and those of files that it maps."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0, 0
    rows = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
    held, mapped = (
        sum(int(rows.get(name, "0 kB").split()[0]) for name in names)
        for names in (("RssAnon", "RssShmem"), ("RssFile",))
    )
    return held * 1024, mapped * 1024


def _bytes(folder: Path) -> int:
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size if path.is_file() and not path.is_symlink() else 0
        except OSError:  # gone already
            continue
    return found


def write_adapter(folder: Path, base: Path) -> Checkpoint:
    """A random adapter, as PEFT saves it, and what the card of a model wants to know of its training."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from peft import LoraConfig
    from safetensors.torch import save_file

    shape = read_shape(base)
    names = ("q_proj", "k_proj", "v_proj", "o_proj")
    config = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=list(names))
    config.save_pretrained(str(folder / "adapter"))
    torch.manual_seed(0)
    weights = {}
    for layer in range(shape.layers):
        for name in names:
            place = f"base_model.model.model.layers.{layer}.self_attn.{name}"
            weights[f"{place}.lora_A.weight"] = torch.randn(RANK, shape.hidden) / shape.hidden**0.5
            weights[f"{place}.lora_B.weight"] = 0.02 * torch.randn(shape.hidden, RANK)
    save_file(weights, folder / "adapter" / "adapter_model.safetensors", {"format": "pt"})
    metrics = {"step": [1], "loss": [1.0], "learning_rate": [2e-4]}
    pq.write_table(pa.table(metrics), folder / "metrics.parquet")
    count = sum(weight.numel() for weight in weights.values())
    return Checkpoint(
        path=folder,
        steps=0,
        tokens=0,
        first_loss=0.0,
        last_loss=0.0,
        trainable_parameters=count,
        total_parameters=int(shape.parameters) + count,
        peak_memory_gib=0.0,
        step_seconds=0.0,
        tokens_per_second=0.0,
    )


class Timed:
    """Tells the stage's steps apart by its progress: what it writes, and then a form that is checked with each."""

    def __init__(self, record: dict[str, Any], out: Path, meter: Meter, forms: Sequence[str]) -> None:
        self._rows: list[dict[str, Any]] = record["steps"]
        self._record, self._out, self._meter, self._forms = record, out, meter, forms
        self._title: str | None = None

    def hear(self, tick: Tick) -> None:
        checking = tick.title.startswith("comparing")
        if checking and tick.completed:
            self.close(f"checking {self._forms[int(tick.completed) - 1]}")
        if (not checking and tick.title != self._title) or (checking and not tick.completed):
            self.close(self._title)
            self._title = None if checking else tick.title

    def close(self, name: str | None) -> None:
        """End a step, if there was one, and write down what there is."""
        figures = self._meter.take()
        if name:
            self._rows.append({"step": name, **figures})
            print(json.dumps(self._rows[-1]), flush=True)
        write(self._record, self._out)


def write(record: dict[str, Any], out: Path) -> None:
    out.write_text(json.dumps(record, indent=1) + "\n")


def export(
    forms: Sequence[str], inputs: dict[str, Any], root: Path, record: dict[str, Any], out: Path, meter: Meter
) -> ExportedModel | None:
    """One call of the stage, into a folder that goes afterwards."""
    workdir = root / "export"
    workdir.mkdir()
    config = exporting.ExportingConfig(forms=tuple(forms), quantization="none", gguf_tolerance=1, merged_tolerance=1)
    checked = [form.name for form in exporting.forms.FORMS if form.name in ("adapter", *forms)]
    timed = Timed(record, out, meter, checked)
    meter.take()
    started = time.perf_counter()
    try:
        made = exporting.run_exporting(config, **inputs, workdir=workdir, progress=Progress(timed.hear))
    except StageError as error:
        record["errors"].append(str(error))
        made = None
    if made:
        record["seconds"] = round(record["seconds"] + time.perf_counter() - started, 1)
        record["forms"] |= {form.name: _told(form, config, inputs["plan"]) for form in made.forms}
    shutil.rmtree(workdir)
    write(record, out)
    return made


def _told(form: ExportedForm, config: exporting.ExportingConfig, plan: Plan) -> dict[str, Any]:
    """Size, and the largest difference of a logit as a share of the largest logit, of which the bound is a multiple."""
    found = form.comparison
    allowed = gguf_share(config, plan) if form.name.endswith(("f16", "adapter-gguf")) else gguf.DAMAGED
    if form.name == "merged":
        allowed = config.merged_tolerance * (HALF_PRECISION if plan.device == "cuda" else 1)
    share = None if form.name == "adapter" else float(f"{found.largest_difference / found.bound * allowed:.3g}")
    return {"gb": round(form.bytes / GB, 2), "share_of_largest_logit": share}


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    record: dict[str, Any] = {
        "date": datetime.now(UTC).date().isoformat(),
        "card": torch.cuda.get_device_name(0) if common.on_gpu() else "CPU",
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
        "shape": arguments.shape,
        "seconds": 0.0,
        "steps": [],
        "forms": {},
        "errors": [],
    }
    gguf.DAMAGED = 1.0  # random weights lose more than trained ones: here it is measured
    started = time.perf_counter()
    base = (arguments.model or root) / f"model-{arguments.shape}"
    common.write_model(base, arguments.shape)
    record["writing_the_model_s"] = round(time.perf_counter() - started, 1)
    model = locate(ModelConfig(name=str(base)))
    sample, tokens = common.texts_of(root, model, arguments.shape, format="fim")
    (root / "checkpoint" / "adapter").mkdir(parents=True)
    inputs: dict[str, Any] = {
        "model": ModelReference(name=model.name, revision=None, fingerprint="0", metadata=model.metadata),
        "sample": sample,
        "tokens": tokens,
        "checkpoint": write_adapter(root / "checkpoint", base),
        "plan": Plan(
            device="cuda" if common.on_gpu() else "cpu",
            precision="fp16" if common.on_gpu() else "fp32",
            micro_batch=4,
            accumulation=1,
            gradient_checkpointing=False,
            backend="transformers",
        ),
    }
    record["base_gb"] = round(_bytes(base) / GB, 2)
    meter = Meter(root)
    for forms in arguments.calls:
        export(forms.split(","), inputs, root, record, arguments.out, meter)
    meter.end()
    return record


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    calls = ["merged,gguf-f16,gguf-q8_0,gguf-q4_k_m", "adapter-gguf"]
    parser.add_argument("--calls", nargs="*", default=calls, help="of the stage: forms of each, with commas")
    parser.add_argument("--work", type=Path, help="a folder on a disk with room for 55 GB")
    parser.add_argument("--model", type=Path, help="where the random model is, or is put")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")
    with tempfile.TemporaryDirectory(dir=arguments.work) as root:
        write(measure(arguments, Path(root)), arguments.out)


if __name__ == "__main__":
    main()
