"""The stage: plan the files, write them one by one, and beside them what else makes a model's folder."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from artifacts.errors import StageError
from artifacts.progress import SILENT, Progress
from artifacts.schema import QuantizedBase, WeightGroup
from tasks.models.base_model import ModelReference, fetch
from tasks.models.files import (
    CONFIG,
    GENERATION,
    INDEX,
    PAPERS,
    TOKENIZER,
    copy_files,
    read_json,
    shard_names,
    write_json,
)
from tasks.models.loading import quantization_config
from tasks.processes.child import die_with
from tasks.quantization.config import QuantizationConfig
from tasks.quantization.layout import Tensor, plan_shards
from tasks.quantization.view import sections
from tasks.quantization.writing import Sizes, write_shard
from tasks.running.stage import Stage

MAX_SHARD = 2_000_000_000
"""Largest file of weights, bytes: what the host holds at once. A larger single tensor has its own file."""

Call = Callable[..., Any]


def run_quantization(
    config: QuantizationConfig, *, model: ModelReference, workdir: Path, progress: Progress = SILENT
) -> QuantizedBase:
    """Quantize the base model into a folder that `from_pretrained` loads.

    The same model, settings and kernels give the same bytes.

    Raises:
        InputError: the weights cannot be read, are quantized already, or do not fit the configuration.
        StageError: memory ran out.
        TransientError: the hub did not deliver the weights.
    """
    base = fetch(model, progress)
    progress.begin("quantizing")
    with worker(config.device) as call:
        shards: list[list[Tensor]] = call(plan_shards, base, config.quantization, MAX_SHARD)
        names = shard_names(len(shards))
        progress.begin("quantizing", sum(tensor.original_bytes for shard in shards for tensor in shard), "bytes")
        written: list[Sizes] = []
        for name, shard in zip(names, shards, strict=True):
            written.append(call(write_shard, workdir / name, shard, config.quantization, config.device))
            progress.advance(sum(tensor.original_bytes for tensor in shard))
    if len(shards) > 1:
        _write_index(workdir, dict(zip(names, written, strict=True)))
    _write_config(base, workdir, config.quantization)
    copy_files(base, workdir, (*GENERATION, *TOKENIZER, *PAPERS))
    pairs = [pair for shard, sizes in zip(shards, written, strict=True) for pair in zip(shard, sizes, strict=True)]
    linear, other = ([pair for pair in pairs if (pair[0].role != "other") is kind] for kind in (True, False))
    return QuantizedBase(path=workdir, quantization=config.quantization, linear=_group(linear), other=_group(other))


@contextmanager
def worker(device: Literal["cuda", "cpu"]) -> Iterator[Call]:
    """A way to call functions: here, or for a GPU in a process of its own. What a process has of the GPU it keeps
    until it ends (some 0.3 GiB with nothing on it), and this one lives while training needs the GPU.

    Raises:
        StageError: the process was killed.
    """
    if device == "cpu":
        yield lambda function, *arguments: function(*arguments)
        return
    context = get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(1, context, initializer=_begin, initargs=(os.getpid(),)) as pool:
        try:
            yield lambda function, *arguments: pool.submit(function, *arguments).result()
        except BrokenProcessPool as error:
            raise StageError(
                "the quantizing process was killed; mostly the kernel does that when memory runs out",
                field="training.quantization",
                remedy="free memory and run again",
            ) from error


def _begin(parent: int) -> None:
    """In the new process: end with the parent, and leave Ctrl-C to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with(parent)


def _group(pairs: Sequence[tuple[Tensor, dict[str, int]]]) -> WeightGroup:
    return WeightGroup(
        tensors=len(pairs),
        parameters=sum(tensor.parameters for tensor, _ in pairs),
        original_bytes=sum(tensor.original_bytes for tensor, _ in pairs),
        bytes=sum(sum(sizes.values()) for _, sizes in pairs),
    )


def _write_index(folder: Path, written: dict[str, Sizes]) -> None:
    sizes = {tensor: (file, size) for file, many in written.items() for one in many for tensor, size in one.items()}
    weight_map = {tensor: file for tensor, (file, _) in sizes.items()}
    total = sum(size for _, size in sizes.values())
    write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})


def _write_config(base: Path, folder: Path, quantization: Literal["int8", "nf4"]) -> None:
    """As published, with what was done to the weights; without the place where it once lay."""
    import torch

    settings = read_json(base / CONFIG)
    settings.pop("_name_or_path", None)
    published = getattr(torch, str(settings.get("dtype") or settings.get("torch_dtype")), torch.float16)
    settings["quantization_config"] = quantization_config(quantization, published).to_dict()
    write_json(folder / CONFIG, settings)


STAGE = Stage(name="quantization", version=1, run=run_quantization, produces=QuantizedBase, sections=sections)
