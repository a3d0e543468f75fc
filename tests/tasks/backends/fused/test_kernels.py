"""The kernels without a GPU: compiled for a T4, and run by Triton's interpreter against plain torch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.backends.fused import int8, ops
from tasks.backends.fused.support import APART
from tests.tasks.backends.fused import interpreted

triton = pytest.importorskip("triton", reason="needs Triton (Linux on x86-64)")

T4 = 75
SHARED_BYTES = {75: 64 * 1024, 80: 163 * 1024, 86: 99 * 1024, 89: 99 * 1024, 90: 227 * 1024}
"""Shared memory that a block may have, by compute capability."""
F16, F32, I8, I32, I64, INT = "*fp16", "*fp32", "*i8", "*i32", "*i64", "i32"
QUANTIZED = {"factors": F32, "apart_columns": I32, "apart": F16, "codes": I8, "scales": F32}
STRIDES = ("q_token", "q_head", "k_token", "k_head", "v_token", "v_head")
CASES: dict[str, tuple[dict[str, str], dict[str, Any], int]] = {
    "dequantize_int8": ({"codes": I8, "scales": F32, "out": F16}, {"BLOCK": 4096}, 8),
    "rms_norm": (
        {"x": F16, "residual": F16, "weight": F16, "out": F16, "rstd_out": F32, "eps": "fp32"},
        {"RESIDUAL": True, "BLOCK": 8192},
        8,
    ),
    "rms_norm_backward": (
        {"dy": F16, "x": F16, "weight": F16, "rstd": F32, "residual": F16, "dx": F16, "y": F16},
        {"WRITE_Y": True, "BLOCK": 8192},
        8,
    ),
    "rotate": (
        {"values": F16, "cosines": F32, "sines": F32, "positions": I64},
        {"INDEXED": True, "HEADS": 64, "HALF": 64},
        4,
    ),
    "rotate_back": (
        {"q": F16, "k": F16, "v": F16, "target": F16, "cosines": F32, "sines": F32},
        {"HEADS": 32, "HALF": 64},
        4,
    ),
    "swiglu": ({"gate_up": F16, "out": F16}, {"BLOCK": 2048}, 4),
    "swiglu_backward": ({"dout": F16, "gate_up": F16}, {"BLOCK": 2048}, 4),
    "cross_entropy": (
        {"logits": F16, "labels": I64, "losses": F32, "factor": F32},
        {"IGNORED": -100, "BLOCK": 8192},
        16,
    ),
    "int8_linear": (
        {"x": F16, "codes": I8, "scales": F32, "out": F32},
        {"ROWS": 64, "COLUMNS": ops.TILE[0], "DEPTH": ops.TILE[1]},
        4,
    ),
    "add_up": ({"parts": F32, "out": F16}, {"BLOCK": 1024}, 4),
    "cached_attention": (
        {"q": F16, "cache": F16, "positions": I64, "out": F16, "scale": "fp32"},
        {"GROUP": 1, "WIDTH": 128, "KEYS": 32},
        4,
    ),
    "quantize": (QUANTIZED | {"x": F16}, {"APART": APART, "BLOCK": 32768}, 16),
    "rms_norm_int8": (
        QUANTIZED | {"x": F16, "residual": F16, "weight": F16, "out": F16, "rstd_out": F32, "eps": "fp32"},
        {"RESIDUAL": True, "PLAIN": True, "APART": APART, "BLOCK": 8192},
        8,
    ),
    "swiglu_int8": (
        QUANTIZED | {"gate_up": F16, "out": F16},
        {"PLAIN": True, "APART": APART, "PIECES": 3, "BLOCK": int8.PIECE},
        int8.PIECE_WARPS,
    ),
    "swiglu_backward_int8": (
        QUANTIZED | {"dout": F16, "gate_up": F16},
        {"PLAIN": True, "PIECES": 3, "BLOCK": int8.PIECE},
        int8.PIECE_WARPS,
    ),
    "transpose": ({"codes": I32, "out": I32}, {"ROWS": int8.WORDS[0], "COLUMNS": int8.WORDS[1]}, 4),
    "scale_sums": (
        {"sums": I32, "row_scales": F32, "column_scales": F32, "out": F16},
        {"SCALED": True, "ADD": True, "BLOCK": 2048},
        4,
    ),
    "int8_product": (
        {"x": I8, "w": I8, "row_scales": F32, "column_scales": F32, "left": F16, "right": F16, "out": F16},
        {"SCALED": True, "RANK": 32, "EVEN": True, "GROUP": 8}
        | dict(zip(("ROWS", "COLUMNS", "DEPTH"), int8.TILE, strict=True)),
        8,
    ),
}
"""Types of the arguments that are no plain integers, constants, and warps, of the largest form in use."""
STREAM: dict[str, dict[str, str]] = {
    "rms_norm": {"x": F32, "residual": F32},
    "rms_norm_int8": {"x": F32, "residual": F32},
    "rms_norm_backward": {"x": F32},
    "scale_sums": {"out": F32},
    "add_up": {"out": F32},
    "int8_product": {"out": F32},
}
"""Those that read or write a residual stream in fp32: the types of the arguments there."""


def test_every_kernel_is_covered() -> None:
    assert found().keys() == CASES.keys()


def found() -> dict[str, Any]:
    """All kernels that are launched, not those that others call."""
    from tasks.backends.fused import int8_kernels, kernels

    both = {**vars(kernels), **vars(int8_kernels)}
    return {name: one for name, one in both.items() if isinstance(one, triton.JITFunction) and name[0] != "_"}


def compiled(
    name: str, capability: int, stages: int, *, stream: bool = False, aligned: bool = False, **changed: Any
) -> Any:
    """`aligned`: sizes are multiples of 16; `changed`: other constants than those of `CASES`."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, constants, warps = CASES[name]
    types, constants = types | (STREAM[name] if stream else {}), constants | changed
    limit = {"maxnreg": most} if (most := constants.pop("maxnreg", None)) else {}
    kernel = found()[name]
    signature = {arg: "constexpr" if arg in constants else types.get(arg, INT) for arg in kernel.arg_names}
    # as at a launch, where Triton sees that addresses and sizes are multiples of 16
    seen = [place for place, arg in enumerate(kernel.arg_names) if arg in types or (aligned and arg not in constants)]
    attributes = {(place,): [["tt.divisibility", 16]] for place in seen}
    source = ASTSource(kernel, signature, constants, attributes if aligned or name == "int8_product" else None)
    options = {"num_warps": warps, "num_stages": stages} | limit
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


@pytest.mark.parametrize(
    ("name", "stream"),
    [(name, stream) for stream in (False, True) for name in (STREAM if stream else CASES) if name != "int8_product"],
)
def test_compiles_for_a_t4(name: str, stream: bool) -> None:
    made = compiled(name, T4, 3, stream=stream)
    assert made.metadata.shared <= SHARED_BYTES[T4]
    assert "cubin" in made.asm and ".target sm_75" in made.asm["ptx"]
    assert "bf16" not in made.asm["ptx"]


@pytest.mark.parametrize("capability", [T4, 90])
@pytest.mark.parametrize("name", ["swiglu_int8", "swiglu_backward_int8"])
def test_a_row_stays_in_registers(name: str, capability: int, tmp_path: Path) -> None:
    """What spills is written to memory and read again, which is what the kernel is there to save."""
    for width, plain in ((688, True), (11008, False), (11008, True), (28672, True)):
        gradient = name == "swiglu_backward_int8"
        sizes = int8.pieces(width, shared=not (gradient and plain and capability == T4))
        warps = sizes.pop("num_warps")
        made = compiled(name, capability, 3, aligned=True, PLAIN=plain, **sizes)
        assert made.metadata.shared <= SHARED_BYTES[capability] and made.metadata.num_warps == warps
        if width < 20_000:  # a thread keeps 24 numbers of 11,008 columns, and 48 of the gradient
            assert spilled(made.asm["cubin"], tmp_path) <= (56 if gradient else 0)


def spilled(cubin: bytes, folder: Path) -> int:
    """Bytes of memory that each thread has for what fits no register."""
    (folder / "kernel.cubin").write_bytes(cubin)
    command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", str(folder / "kernel.cubin")]
    used = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return sum(int(number) for number in re.findall(r"(?:STACK|LOCAL):(\d+)", used))


@pytest.mark.parametrize(("capability", "stream"), [(80, False), (86, False), (89, False), (90, False), (90, True)])
def test_the_product_in_int8_compiles_for_tensor_cores(capability: int, stream: bool) -> None:
    """A T4 never runs it (`int8.uses_triton`): cuBLASLt makes the product there."""
    made = compiled("int8_product", capability, 3, stream=stream)
    assert made.metadata.shared <= SHARED_BYTES[capability]
    assert ("wgmma.mma_async" if capability == 90 else "mma.sync") in made.asm["ptx"]
    assert "s32.s8.s8.s32" in made.asm["ptx"] or "s32.s8.s8" in made.asm["ptx"]


def interpret(file: Path, *what: str) -> Any:
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.tasks.backends.fused.interpreted", str(file), *what]
    subprocess.run(command, env=environment, cwd=Path(__file__).parents[4], check=True)
    return torch.load(file)


def test_swiglu_in_int8_has_the_bits_of_two_kernels(tmp_path: Path) -> None:
    """However many pieces a row has."""
    found = interpret(tmp_path / "rows.pt", "rows")
    assert len(found) == 30
    for name, pairs in found.items():
        assert all(interpreted.same_bits(*pair) for pair in pairs), name


def test_kernels_compute_what_plain_torch_does(tmp_path: Path) -> None:
    by_kernels = interpret(tmp_path / "kernels.pt")
    for name, expected in interpreted.results().items():
        wide = 1e-3 if expected.dtype == torch.float16 else 1e-5
        torch.testing.assert_close(by_kernels[name], expected, rtol=wide, atol=wide, msg=lambda m, n=name: f"{n}: {m}")
