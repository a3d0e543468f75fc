"""The stage: transformers quantizes the model and saves it, and beside it goes what else makes a model's folder.

What is quantized, and how, is what transformers and bitsandbytes do when they load the model: the bytes are the same.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from artifacts import reading
from artifacts.errors import StageError
from artifacts.progress import SILENT, Progress
from artifacts.schema import QuantizedBase, WeightGroup
from tasks.models.base_model import ModelReference, fetch
from tasks.models.files import CONFIG, GENERATION, PAPERS, TOKENIZER, copy_files, read_json, weight_files, write_json
from tasks.models.loading import published_dtype, quantization_config, quantized_as_published
from tasks.models.safetensors_files import read_header
from tasks.processes.child import die_with
from tasks.quantization.config import QuantizationConfig
from tasks.quantization.view import sections
from tasks.running.stage import Stage

MAX_SHARD = 2_000_000_000
"""Largest file of weights, bytes: what the host holds at once of a model on a GPU."""

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
        linear, other = call(write_weights, base, workdir, config, MAX_SHARD)
    _write_config(base, workdir, config.quantization)
    copy_files(base, workdir, (*GENERATION, *TOKENIZER, *PAPERS))
    return QuantizedBase(path=workdir, quantization=config.quantization, linear=linear, other=other)


def write_weights(
    base: Path, folder: Path, config: QuantizationConfig, max_shard: int
) -> tuple[WeightGroup, WeightGroup]:
    """Have transformers quantize the model and save it; the sizes of linear layers, and of all else."""
    import torch

    published = _sizes(base)
    model = quantized_as_published(base, config.quantization, config.device)
    from bitsandbytes.nn import Linear4bit, Linear8bitLt  # imported by now, in the way that `import_bitsandbytes` does

    try:
        model.save_pretrained(folder, max_shard_size=max_shard)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise StageError(
            f"memory ran out while the quantized model was written ({str(error).splitlines()[0]})",
            field="training.quantization",
            remedy="free memory and run again",
        ) from error
    for place in GENERATION:  # what transformers would make up; the published one is copied
        (folder / place).unlink(missing_ok=True)
    linear = {
        f"{name}.weight": layer.in_features * layer.out_features
        for name, layer in model.named_modules()
        if isinstance(layer, (Linear4bit, Linear8bitLt))
    }
    other = {name: weight.numel() for name, weight in model.named_parameters() if name not in linear}
    saved = _sizes(folder)
    before = sum(linear.values()) * model.dtype.itemsize
    after = sum(size for name, size in saved.items() if name not in other)
    return _group(linear, before, after), _group(other, sum(published.values()) - before, sum(saved.values()) - after)


def _sizes(folder: Path) -> dict[str, int]:
    """Bytes of each tensor in a model's files."""
    found: dict[str, int] = {}
    for name in weight_files(folder):
        with reading.opened(folder / name, field="model.name", remedy="fetch or save the model again") as file:
            header = read_header(file, os.fstat(file.fileno()).st_size)
        found |= {tensor: stored.end - stored.start for tensor, stored in header.items()}
    return found


def _group(numbers: dict[str, int], published: int, size: int) -> WeightGroup:
    return WeightGroup(tensors=len(numbers), parameters=sum(numbers.values()), original_bytes=published, bytes=size)


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


def _write_config(base: Path, folder: Path, quantization: Literal["int8", "nf4"]) -> None:
    """As published, with what was done to the weights; without the place where it once lay."""
    settings = read_json(base / CONFIG)
    settings.pop("_name_or_path", None)
    settings["quantization_config"] = quantization_config(quantization, published_dtype(base)).to_dict()
    write_json(folder / CONFIG, settings)


STAGE = Stage(name="quantization", version=2, run=run_quantization, produces=QuantizedBase, sections=sections)
