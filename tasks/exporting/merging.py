"""The base model with the adapter merged in, in fp16, written tensor by tensor.

Merged into the unquantized weights: PEFT's own merge into int8 would quantize the sum again and round the adapter away.
One tensor is in memory at a time, so that a 7B is merged within a gigabyte of host memory.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from artifacts.progress import SILENT, Progress
from tasks.exporting.adapter import Adapter
from tasks.exporting.others import with_older_rope
from tasks.models.files import (
    CONFIG,
    GENERATION,
    INDEX,
    PAPERS,
    TOKENIZER,
    copy_files,
    read_json,
    shard_names,
    weight_files,
    write_json,
)

if TYPE_CHECKING:
    import torch

_FLOATS = {"F64", "F32", "F16", "BF16"}
_BYTES = {"F16": 2, "BOOL": 1, "U8": 1, "I8": 1, "I16": 2, "I32": 4, "I64": 8}


@dataclass(frozen=True)
class MergedTensor:
    """A tensor of the merged model: where it comes from and how it will be stored."""

    name: str
    source: Path
    shape: tuple[int, ...]
    dtype: str
    """By its name in safetensors: `F16` for whatever was floating point, otherwise as in the base model."""

    @property
    def size(self) -> int:
        """Bytes."""
        count = _BYTES.get(self.dtype, 1)
        for length in self.shape:
            count *= length
        return count


def merge(base: Path, adapter: Adapter, folder: Path, max_shard: int, progress: Progress = SILENT) -> None:
    """Write base + adapter to `folder`: weights in files of up to `max_shard` bytes, configuration, tokenizer, licence.

    Raises:
        StageError: the adapter does not fit the base, or is of a kind that cannot be merged; a weight beyond fp16.
    """
    adapter.check_mergeable()
    entries = read_entries(base)
    _check_kinds(adapter, entries, base)
    folder.mkdir(parents=True)
    shards = _split(entries, max_shard)
    names = shard_names(len(shards))
    progress.begin("merging", sum(entry.size for entry in entries), "bytes")
    done = 0
    for name, shard in zip(names, shards, strict=True):
        for size in _write_shard(folder / name, shard, lambda entry: merged_tensor(entry, adapter)):
            done += size
            progress.update(done)
    if len(shards) > 1:
        weight_map = {entry.name: name for name, shard in zip(names, shards, strict=True) for entry in shard}
        total = sum(entry.size for entry in entries)
        write_json(folder / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})
    _write_config(base, folder)
    copy_files(base, folder, (*GENERATION, *TOKENIZER, *PAPERS))


def merged_tensor(entry: MergedTensor, adapter: Adapter) -> torch.Tensor:
    """One tensor of the merged model: W + scaling · B·A computed in fp32, rounded to fp16 once.

    Raises:
        StageError: a value that is not finite in fp16.
    """
    import torch
    from safetensors import safe_open

    with safe_open(entry.source, framework="pt") as file:
        tensor: torch.Tensor = file.get_tensor(entry.name)
    if entry.dtype != "F16":
        return tensor
    module = entry.name.removesuffix(".weight")
    if module in adapter.modules:
        tensor = tensor.float() + adapter.delta(module)
    half = tensor.to(torch.float16)
    # Not a number is the largest and the smallest of all; `isfinite` would take several times the tensor's memory.
    if half.numel() and not torch.stack(torch.aminmax(half)).isfinite().all():
        raise StageError(
            f"{entry.name} of the merged model holds values that are not finite in fp16",
            field="exporting.forms",
            remedy="look at the loss curve (a lower training.learning_rate may help), or set exporting.forms=[]",
        )
    return half


def read_entries(base: Path) -> list[MergedTensor]:
    """The tensors of the base model, ordered by name."""
    from safetensors import safe_open

    found: dict[str, MergedTensor] = {}
    for place in weight_files(base):
        with safe_open(base / place, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                part = file.get_slice(name)
                dtype = "F16" if part.get_dtype() in _FLOATS else part.get_dtype()
                found[name] = MergedTensor(name, base / place, tuple(part.get_shape()), dtype)
    return [found[name] for name in sorted(found)]


def check_fit(adapter: Adapter, entries: list[MergedTensor]) -> None:
    """Refuse an adapter of another model. PEFT would only warn about modules that the base does not have.

    Raises:
        StageError: a module that the base does not have, or has in another shape.
    """
    shapes = {entry.name: entry.shape for entry in entries}
    for module in adapter.modules:
        shape, found = shapes.get(f"{module}.weight"), adapter.shape(module)
        if shape != found:
            there = "has no such weight" if shape is None else f"has {shape}"
            raise StageError(
                f"the adapter does not fit the base model: its {module} is {found}, the base {there}",
                field="model.name",
                remedy="export with the model that the adapter was trained on",
            )


def _check_kinds(adapter: Adapter, entries: list[MergedTensor], base: Path) -> None:
    problem = next(
        (
            f"{entry.name} of the base model is stored as {entry.dtype}: merging needs unquantized weights"
            for entry in entries
            if entry.dtype not in _BYTES
        ),
        None,
    )
    tied = read_json(base / CONFIG).get("tie_word_embeddings", False)
    if tied and any(adapter.modules.values()):
        problem = "the adapted embeddings are tied to the output layer, which merging would change too"
    if problem:
        raise StageError(problem, field="exporting.forms", remedy="set exporting.forms=[]")


def _split(entries: list[MergedTensor], max_shard: int) -> list[list[MergedTensor]]:
    shards: list[list[MergedTensor]] = [[]]
    size = 0
    for entry in entries:
        if shards[-1] and size + entry.size > max_shard:
            shards.append([])
            size = 0
        shards[-1].append(entry)
        size += entry.size
    return shards


def _write_shard(
    path: Path, entries: list[MergedTensor], make: Callable[[MergedTensor], torch.Tensor]
) -> Iterator[int]:
    """Write a safetensors file one tensor at a time; yields the bytes of each. `save_file` would hold them all.

    Format: https://github.com/huggingface/safetensors#format (length of the header, header as JSON, data).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    offset = 0
    for entry in entries:
        offsets = [offset, offset + entry.size]
        header[entry.name] = {"dtype": entry.dtype, "shape": list(entry.shape), "data_offsets": offsets}
        offset += entry.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for entry in entries:
            file.write(make(entry).contiguous().numpy().data.cast("B") if entry.size else b"")
            yield entry.size


def _write_config(base: Path, folder: Path) -> None:
    settings = read_json(base / CONFIG)
    for name in ("quantization_config", "_name_or_path"):
        settings.pop(name, None)
    settings["dtype"] = "float16"
    if "torch_dtype" in settings:  # the name of the same before transformers 5; other programs read it still
        settings["torch_dtype"] = "float16"
    write_json(folder / CONFIG, with_older_rope(settings))
