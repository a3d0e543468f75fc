"""What safetensors files say of themselves in their headers, checked before a library maps them.

Format: https://github.com/huggingface/safetensors#format (length of the header, header as JSON, data).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, BinaryIO

from artifacts.reading import parse_json

LONGEST_HEADER = 32 << 20
"""Bytes; that of a file with 10,000 tensors has one or two million."""
FLOATS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
"""Types of published weights, bytes of a number each."""
_BITS = {
    **{name: 8 * size for name, size in FLOATS.items()},
    **{"I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64, "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64},
    **{"F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8},
    **{"F6_E2M3": 6, "F6_E3M2": 6, "F4": 4},
}
_LONGEST = 1 << 48
"""Length of a dimension at most."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as a header describes it."""

    dtype: str
    """By its name in safetensors: `F16`, `BF16`, `I8`."""
    shape: tuple[int, ...]
    start: int
    """Its first byte, counted from the end of the header; each begins where the one before it ends."""
    end: int


def read_header(file: BinaryIO, size: int) -> dict[str, StoredTensor]:
    """The tensors of a file of `size` bytes, by name.

    Raises:
        ValueError: it is cut off, is no safetensors file, or its header describes what the file does not hold.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 10 or not 2 <= length <= min(LONGEST_HEADER, size - 8):
        raise ValueError(f"it is no complete safetensors file ({size:,} bytes)")
    header = parse_json(file.read(length))
    if not isinstance(header, dict):
        raise ValueError("it is no complete safetensors file: its header is no JSON object")
    found = {name: _tensor(name, entry) for name, entry in header.items() if name != "__metadata__"}
    end = 0
    for name, one in sorted(found.items(), key=lambda item: (item[1].start, item[1].end)):
        if one.start != end:
            raise ValueError(f"its header has {name!r} begin at byte {one.start:,}, where {end:,} is due")
        end = one.end
    if not found or 8 + length + end != size:
        raise ValueError(
            f"it is no complete safetensors file: it has {size:,} bytes, its header announces {8 + length + end:,}"
        )
    return found


def _tensor(name: str, entry: Any) -> StoredTensor:
    if not isinstance(entry, dict):
        raise ValueError(f"its header describes {name!r} as {type(entry).__name__}")
    dtype, shape, offsets = entry.get("dtype"), _counts(entry.get("shape")), _counts(entry.get("data_offsets"))
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise ValueError(f"its header has {name!r} of the unknown type {dtype!r}")
    if shape is None or len(shape) > 16:
        raise ValueError(f"its header has {name!r} of the shape {str(entry.get('shape'))[:60]}")
    if offsets is None or len(offsets) != 2:
        raise ValueError(f"its header has {name!r} at the bytes {str(entry.get('data_offsets'))[:60]}")
    bits = _BITS[dtype] * math.prod(shape)
    if bits % 8 or offsets[1] - offsets[0] != bits // 8:
        raise ValueError(f"its header gives {name!r} {offsets[1] - offsets[0]:,} bytes for {shape} of {dtype}")
    return StoredTensor(dtype, tuple(shape), *offsets)


def _counts(value: Any) -> list[int] | None:
    """A list of whole numbers that can count something; None for anything else."""
    fits = isinstance(value, list) and all(type(one) is int and 0 <= one <= _LONGEST for one in value)
    return list(value) if fits else None
