"""The kernels without a GPU: compiled for a T4, and run by Triton's interpreter against plain torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tasks.backends.fused import ops
from tests.tasks.backends.fused import interpreted

triton = pytest.importorskip("triton", reason="needs Triton (Linux on x86-64)")

T4 = 75
SHARED_BYTES = 64 * 1024
"""Shared memory of a block on a T4."""
F16, F32, I8, I64, INT = "*fp16", "*fp32", "*i8", "*i64", "i32"
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
}
"""Types of the arguments that are no plain integers, constants, and warps, of the largest form in use."""


def test_every_kernel_is_covered() -> None:
    from tasks.backends.fused import kernels

    assert {name for name, one in vars(kernels).items() if isinstance(one, triton.JITFunction)} == CASES.keys()


@pytest.mark.parametrize("name", CASES)
def test_compiles_for_a_t4(name: str) -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from tasks.backends.fused import kernels

    types, constants, warps = CASES[name]
    kernel = getattr(kernels, name)
    signature = {arg: "constexpr" if arg in constants else types.get(arg, INT) for arg in kernel.arg_names}
    source = ASTSource(kernel, signature, constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", T4, 32), options={"num_warps": warps})
    assert compiled.metadata.shared <= SHARED_BYTES
    assert "cubin" in compiled.asm and ".target sm_75" in compiled.asm["ptx"]
    assert "bf16" not in compiled.asm["ptx"]


def test_kernels_compute_what_plain_torch_does(tmp_path: Path) -> None:
    project = Path(__file__).parents[4]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "tests.tasks.backends.fused.interpreted", str(tmp_path / "kernels.pt")]
    subprocess.run(command, env=environment, cwd=project, check=True)
    by_kernels = torch.load(tmp_path / "kernels.pt")
    for name, expected in interpreted.results().items():
        torch.testing.assert_close(by_kernels[name], expected, rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")
