"""Chunks of different lengths in steps of fixed shape: padded, in buckets by length, or packed; the same chunks in each
way, as passes of the fused engine.

    python -m bench.packing --out bench/results/packing.json [--shape 1.5b] [--lengths 1024 2048] [--tokens 4096]

The chunks are those of the standard library's files, by the tokenization stage. Weights are random: times and memory
mean something here, losses do not.

- pad: a chunk a sequence, filled up.
- bucket: the same, in sequences of a quarter, a half, three quarters or all of the length, whichever is the shortest
  that fits; each of these shapes is a graph of its own, with as many sequences as keep a micro-batch's tokens.
- pack: several chunks a sequence, kept apart by a mask, which is how `training.packing` does it.
"""

from __future__ import annotations

import argparse
import gc
import json
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from artifacts.schema import Plan
from bench.common import GIB, on_gpu, write_model
from bench.reference_job import SHAPES
from tasks import sampling, tokenization
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tasks.models.base_model import ModelConfig, locate
from tasks.models.loading import load_base, silence_peft
from tasks.training.batches import FILLER, IGNORED
from tasks.training.packing import packed

Rows = list[list[list[int]]]
"""By sequence its chunks, as ids."""


def chunks(root: Path, model: Path, length: int, files: int) -> list[list[int]]:
    """Ids of each chunk of the standard library's files."""
    import pyarrow.parquet as pq

    folders = [root / f"{kind}-{length}" for kind in ("sample", "tokens")]
    for folder in folders:
        folder.mkdir()
    source = sampling.config.LocalSource(paths=("stdlib",), repositories="top-level", exclude=("*test*",))
    sample = sampling.run_sampling(sampling.SamplingConfig(source=source, files=files), workdir=folders[0])
    config = tokenization.TokenizationConfig(max_length=length)
    tokenization.run_tokenization(config, sample=sample, model=locate(ModelConfig(name=str(model))), workdir=folders[1])
    ids: list[list[int]] = pq.read_table(folders[1] / "train.parquet", columns=["input_ids"])["input_ids"].to_pylist()
    return ids


def arranged(found: list[list[int]], length: int) -> dict[str, dict[int, Rows]]:
    """For each way the sequences by their length in tokens."""
    sizes = [length // 4, length // 2, length * 3 // 4, length]
    places = np.searchsorted(sizes, [len(ids) for ids in found])
    buckets = {
        size: [[ids] for ids, place in zip(found, places, strict=True) if place == number]
        for number, size in enumerate(sizes)
    }
    order = packed(np.arange(len(found)), np.array([len(ids) for ids in found]), length)
    together = [
        [found[row] for row in order.rows[start:end]]
        for start, end in zip(order.starts[:-1], order.starts[1:], strict=True)
    ]
    return {"pad": {length: [[ids] for ids in found]}, "bucket": buckets, "pack": {length: together}}


def tensors(rows: Rows, length: int, sequences: int) -> list[tuple[torch.Tensor, ...]]:
    """Micro-batches: ids, labels and positions. The last is filled up with empty sequences."""
    made = []
    for row in [*rows, *[[]] * (-len(rows) % sequences)]:
        ids = [one for chunk in row for one in chunk]
        labels = [one if place else IGNORED for chunk in row for place, one in enumerate(chunk)]
        positions = [place for chunk in row for place in range(len(chunk))]
        left = length - len(ids)
        made.append(([*ids, *[FILLER] * left], [*labels, *[IGNORED] * left], [*positions, *range(left)]))
    columns = [torch.tensor(column) for column in zip(*made, strict=True)]
    if on_gpu():
        columns = [column.pin_memory() for column in columns]
    return list(zip(*(column.split(sequences) for column in columns), strict=True))


def timed(work: Callable[[], object], repeats: int) -> float:
    """Median seconds, after one call that is not counted."""
    times = []
    for _ in range(repeats + 1):
        begun = time.perf_counter()
        work()
        if on_gpu():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - begun)
    return median(times[1:])


def pass_over(model: Any, found: dict[int, Rows], tokens: int, repeats: int, *, together: bool) -> dict[str, Any]:
    """All chunks forward and backward, once."""
    longest = max(found)
    gc.collect()  # the graphs of the way before
    if on_gpu():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    fused = FusedModel(model, length=longest)
    begun = time.perf_counter()
    work = []
    for length, rows in found.items():
        sequences = max(1, tokens // length)
        micro_batch = MicroBatch(fused, (sequences, length), packed=together)
        work += [(micro_batch, *one) for one in tensors(rows, length, sequences)]
    factor = torch.tensor(64.0)

    def once() -> None:
        for micro_batch, ids, labels, positions in work:
            micro_batch.run(ids, labels, factor, positions if together else None)

    set_up = time.perf_counter() - begun
    seconds = timed(once, repeats)
    real = sum(len(chunk) for rows in found.values() for row in rows for chunk in row)
    room = sum(ids.numel() for _, ids, _, _ in work)
    return {
        "micro_batches": len(work),
        "shapes": len({tuple(ids.shape) for _, ids, _, _ in work}),
        "tokens": real,
        "padding": round(1 - real / room, 4),
        "seconds": round(seconds, 4),
        "micro_batch_ms": round(1000 * seconds / len(work), 2),
        "tokens_per_second": round(real / seconds),
        "set_up_s": round(set_up, 1),
        "captured": all(one.captured for one, *_ in work),
        "peak_gib": round(torch.cuda.max_memory_allocated() / GIB, 2) if on_gpu() else None,
        "reserved_gib": round(torch.cuda.max_memory_reserved() / GIB, 2) if on_gpu() else None,
    }


def load(folder: Path, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    silence_peft()
    plan = Plan(
        device="cuda" if on_gpu() else "cpu",
        precision="fp16" if on_gpu() else "fp32",
        micro_batch=1,
        accumulation=1,
        gradient_checkpointing=False,
        backend="transformers",
    )
    lora = LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    tuned = get_peft_model(load_base(folder, "none", plan), lora)
    for parameter in tuned.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return tuned


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="1.5b")
    parser.add_argument("--lengths", type=int, nargs="+", default=[1024, 2048])
    parser.add_argument("--tokens", type=int, default=4096, help="of a micro-batch")
    parser.add_argument("--chunks", type=int, default=192, help="how many are passed over")
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    record: dict[str, Any] = {
        "card": torch.cuda.get_device_name() if on_gpu() else "CPU",
        "torch": torch.__version__,
        **{name: getattr(arguments, name) for name in ("shape", "tokens", "chunks", "repeats")},
        "rows": {},
    }
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        write_model(root / "model", arguments.shape)
        model = load(root / "model", 16)
        for length in arguments.lengths:
            found = chunks(root, root / "model", length, arguments.chunks)
            found = random.Random(0).sample(found, min(arguments.chunks, len(found)))
            record["rows"][str(length)] = rows = {}
            for way, sequences in arranged(found, length).items():
                given = {size: one for size, one in sequences.items() if one}
                rows[way] = pass_over(model, given, arguments.tokens, arguments.repeats, together=way == "pack")
                print(length, way, rows[way], flush=True)
                arguments.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
