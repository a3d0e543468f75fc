"""Quantizing tensor by tensor and writing one file of weights: host memory holds one file, the GPU one tensor.

The functions are bitsandbytes' own, with the arguments that its layers give them when transformers quantizes a model
while loading it: the bytes are the same, and so are the names under which bitsandbytes serializes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from artifacts.errors import StageError
from tasks.quantization.layout import Tensor, unusable

if TYPE_CHECKING:
    import torch

Sizes = list[dict[str, int]]
"""A mapping per tensor of the base model: bytes by name of what was written for it."""


def write_shard(
    path: Path, tensors: Sequence[Tensor], quantization: Literal["int8", "nf4"], device: Literal["cuda", "cpu"]
) -> Sizes:
    """Write one file of quantized and other tensors.

    Raises:
        InputError: a tensor cannot be read.
        StageError: the GPU or the host has too little memory.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    written: list[dict[str, torch.Tensor]] = []
    for tensor in tensors:
        try:
            written.append(_converted(tensor, quantization, device))
        except SafetensorError as error:
            raise unusable(tensor.source.parent, f"{tensor.source.name} cannot be read ({error})") from error
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise StageError(
                f"memory ran out while {tensor.name} was quantized on the {device} ({str(error).splitlines()[0]})",
                field="training.quantization",
                remedy="free the GPU of other processes; quantizing takes the memory of one tensor",
            ) from error
    save_file({name: value for one in written for name, value in one.items()}, path, metadata={"format": "pt"})
    return [{name: value.nbytes for name, value in one.items()} for one in written]


def _converted(tensor: Tensor, quantization: Literal["int8", "nf4"], device: str) -> dict[str, torch.Tensor]:
    """What a tensor of the base model becomes in the artifact, by name, on the host."""
    from safetensors import safe_open

    with safe_open(tensor.source, framework="pt") as file:
        weight = file.get_tensor(tensor.stored)
    if tensor.role == "other":
        return {tensor.name: weight}
    if tensor.role == "transposed":
        weight = weight.T.contiguous()
    convert = _to_int8 if quantization == "int8" else _to_nf4
    return {name: value.cpu().contiguous() for name, value in convert(tensor.name, weight, device).items()}


def _to_int8(name: str, weight: torch.Tensor, device: str) -> dict[str, torch.Tensor]:
    """outputs × inputs in int8, and per output the largest absolute value (`SCB`, fp32). As `Int8Params._quantize`."""
    import torch
    from bitsandbytes.functional import int8_vectorwise_quant

    rows, largest, _ = int8_vectorwise_quant(weight.to(device, torch.float16))
    module = name.removesuffix("weight")
    by_row = torch.tensor(0, dtype=torch.uint8)  # the code of the only layout that bitsandbytes still has
    return {name: rows, f"{module}SCB": largest, f"{module}weight_format": by_row}


def _to_nf4(name: str, weight: torch.Tensor, device: str) -> dict[str, torch.Tensor]:
    """Two weights a byte, and per 64 weights the largest absolute value (fp32). As `Params4bit._quantize`."""
    from bitsandbytes.functional import quantize_4bit

    packed, state = quantize_4bit(weight.to(device), blocksize=64, compress_statistics=False, quant_type="nf4")
    return {name: packed, **{f"{name}.{key}": value for key, value in state.as_dict(packed=True).items()}}
