"""What decoding's kernels need of the oldest card: they are compiled for it, which takes no GPU."""

from __future__ import annotations

from typing import Any

import pytest

triton = pytest.importorskip("triton", reason="comes with the CUDA builds of torch")

T4_SHARED = 64 * 1024
"""Bytes of shared memory that a program may take on sm_75."""


def shared(function: Any, pointers: dict[str, str], numbers: tuple[str, ...], **constants: int) -> int:
    """Bytes of shared memory of a kernel compiled for sm_75. The order of arguments is the kernel's."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kinds = pointers | {name: "fp32" if name == "scale" else "i32" for name in numbers}
    signature = {name: kinds.get(name, "constexpr") for name in function.arg_names}
    source = ASTSource(function, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 75, 32), options={"num_warps": 4, "num_stages": 3})
    return int(compiled.metadata.shared)


@pytest.mark.parametrize("rows", [16, 32, 64])
def test_products_of_few_rows_fit_a_t4(rows: int) -> None:
    from tasks.engine import kernels, ops

    pointers = {"x": "*fp16", "codes": "*i8", "scales": "*fp32", "out": "*fp32"}
    sizes = ("rows", "columns", "inputs", "splits")
    columns, depth = ops.TILE
    assert shared(kernels.int8_linear, pointers, sizes, ROWS=rows, COLUMNS=columns, DEPTH=depth) <= T4_SHARED
    parts = {"parts": "*fp32", "out": "*fp16"}
    assert shared(kernels.add_up, parts, ("numbers", "splits"), BLOCK=1024) <= T4_SHARED


@pytest.mark.parametrize("width", [64, 128])
def test_attention_to_the_cache_fits_a_t4(width: int) -> None:
    from tasks.engine import kernels

    pointers = {"q": "*fp16", "cache": "*fp16", "positions": "*i64", "out": "*fp16"}
    sizes = ("q_row", "cache_row", "cache_position", "values", "scale", "heads")
    assert shared(kernels.cached_attention, pointers, sizes, GROUP=1, WIDTH=width, KEYS=32) <= T4_SHARED
