"""Products on int8 tensor cores, as LLM.int8() defines them: int8 weights times activations rounded to int8 by row.

Forward, the columns of the input that are outliers stay in 16 bits and have a product of their own. Which ones is
fixed (`Apart`), so that no product has to look for them. Backward, dX = (dY · s) W: the weight's scales belong to the
dimension that is summed, so they go into the gradient before that is rounded by row. Tensor cores take int8 only with
the summed dimension contiguous: the backward product reads the codes transposed.

On a GPU the products are a Triton kernel, before sm_80 cuBLASLt; elsewhere the same arithmetic in plain torch. Sums of
int8 products are exact, so all of them agree but for the rounding of what is added in 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch

from tasks.backends.fused import ops
from tasks.backends.fused.support import APART, SUMS

Tensor = torch.Tensor

forced: Literal["triton", "cublaslt"] | None = None
"""What makes the products on a GPU, whatever its capability: for tests."""
TILE = (128, 128, 128)
"""Rows, columns and inputs of one program's tile in `int8_product`: 96 KiB of shared memory in three stages."""
LAUNCH = {"num_warps": 8, "num_stages": 3}
PIECE, PIECE_WARPS = 4096, 16
"""Columns of the MLP's activation that a program takes at a time, and its warps; see `pieces`."""
WORDS = (64, 64)
"""Of four bytes: what a program of `transpose` turns is four times as high."""


@dataclass(frozen=True)
class Apart:
    """The columns of a product's input that stay in 16 bits."""

    columns: Tensor
    """Their numbers, `APART` of them; −1 for none."""
    factors: Tensor
    """By column, 0 for these and 1 for all others; fp32."""

    @classmethod
    def largest(cls, x: Tensor) -> Apart:
        """The columns with the largest magnitudes in `x` (T × columns)."""
        number = min(APART, x.shape[1])
        chosen = x.abs().amax(0).topk(number).indices.sort().values.int()
        factors = torch.ones(x.shape[1], dtype=torch.float32, device=x.device)
        factors[chosen.long()] = 0
        return cls(torch.nn.functional.pad(chosen, (0, APART - number), value=-1), factors)

    def of(self, x: Tensor) -> Tensor:
        """These columns of `x`, zeros for none: T × `APART`."""
        return x[:, self.columns.clamp(min=0).long()] * (self.columns >= 0)


@dataclass(frozen=True)
class Quantized:
    """A product's input in int8."""

    codes: Tensor
    scales: Tensor
    """By row, fp32."""
    apart: Tensor | None = None
    """The columns that stay in 16 bits."""
    plain: Tensor | None = None
    """All of it in 16 bits, where an adapter reads it."""


def quantize(x: Tensor, factors: Tensor, apart: Apart | None = None, plain: Tensor | None = None) -> Quantized:
    """`x · factors` by row; x is T × columns, with rows at any distance."""
    tokens, columns = x.shape[0], len(factors)
    if not ops.by_kernels(x):
        codes, scales = _rounded(x[:, :columns].float() * factors)
        return Quantized(codes, scales, apart.of(x) if apart else None, plain)
    made = _empty(x, columns, apart is not None, plain)
    _kernels().quantize[(tokens,)](
        x,
        x.stride(0),
        factors,
        made.codes if apart is None else apart.columns,
        made.codes if made.apart is None else made.apart,
        made.codes,
        made.scales,
        columns,
        APART=APART if apart else 0,
        **_row(columns),
    )
    return made


def rms_norm(
    x: Tensor, weight: Tensor, eps: float, residual: Tensor | None, apart: Apart, *, plain: bool
) -> tuple[Quantized, Tensor]:
    """`ops.rms_norm`, its output quantized; in 16 bits too if it is wanted `plain`."""
    if not ops.by_kernels(x):
        out, rstd = ops.rms_norm(x, weight, eps, residual)
        return quantize(out, apart.factors, apart, out if plain else None), rstd
    tokens, width = x.shape
    out = weight.new_empty((tokens, width if plain else 0))
    made = _empty(out, width, True, out if plain else None)
    rstd = torch.empty(tokens, dtype=torch.float32, device=x.device)
    added = x if residual is None else residual
    _kernels().rms_norm_int8[(tokens,)](
        x,
        x.stride(0),
        added,
        added.stride(0),
        weight,
        x if made.plain is None else made.plain,
        rstd,
        apart.factors,
        apart.columns,
        made.apart,
        made.codes,
        made.scales,
        width,
        eps,
        RESIDUAL=residual is not None,
        PLAIN=plain,
        APART=APART,
        **_row(width),
    )
    return made, rstd


def swiglu(gate_up: Tensor, width: int, apart: Apart, *, plain: bool) -> Quantized:
    """`ops.swiglu`, its output quantized; in 16 bits too if it is wanted `plain`."""
    if not ops.by_kernels(gate_up):
        made_plain = ops.swiglu(gate_up, width)
        return quantize(made_plain, apart.factors, apart, made_plain if plain else None)
    tokens = gate_up.shape[0]
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device) if plain else None
    made = _empty(gate_up, width, True, out)
    _kernels().swiglu_int8[(tokens,)](
        gate_up,
        gate_up.stride(0),
        gate_up if out is None else out,
        apart.factors,
        apart.columns,
        made.apart,
        made.codes,
        made.scales,
        width,
        PLAIN=plain,
        APART=APART,
        **pieces(width),
    )
    return made


def swiglu_backward(dout: Tensor, gate_up: Tensor, factors: Tensor, *, plain: bool) -> Quantized:
    """`ops.swiglu_backward`, the gradients times `factors` quantized; `gate_up` is overwritten if they are wanted
    `plain`, and of no use afterwards if not."""
    tokens, width = dout.shape
    if not ops.by_kernels(dout):
        ops.swiglu_backward(dout, gate_up)
        return quantize(gate_up[:, : 2 * width], factors)
    made = _empty(dout, 2 * width, False, None)
    launch = pieces(width, shared=not plain or uses_triton(dout))  # on sm_75, `plain` spills 36 numbers a thread
    _kernels().swiglu_backward_int8[(tokens,)](
        dout, gate_up, gate_up.stride(0), factors, made.codes, made.scales, width, PLAIN=plain, **launch
    )
    return made


def transpose(codes: Tensor, out: Tensor) -> None:
    """`out = codes.T`, both contiguous; sizes are multiples of 4."""
    if not ops.by_kernels(out):
        out.copy_(codes.T)
        return
    rows, columns = codes.shape
    words = codes.view(torch.int32), out.view(torch.int32)
    grid = (-(-rows // (4 * WORDS[0])), -(-columns // (4 * WORDS[1])))
    _kernels().transpose[grid](*words, rows, columns, ROWS=WORDS[0], COLUMNS=WORDS[1], num_warps=4)


def product(
    x: Quantized, w: Tensor, scales: Tensor | None, out: Tensor, left: Tensor | None = None, right: Tensor | None = None
) -> None:
    """`out = (x.codes @ w.T) · x.scales · scales + left @ right`.

    Args:
        w: columns × inputs, int8.
        scales: by column, fp32; None for none.
        out: T × columns, its rows at any distance.
        left: T × rank, 16 bits; None for nothing to add.
        right: rank × columns.
    """
    if not ops.by_kernels(out):
        _plain_product(x, w, scales, out, left, right)
    elif uses_triton(out):
        _triton_product(x, w, scales, out, left, right)
    else:
        _library_product(x, w, scales, out, left, right)


def uses_triton(x: Tensor) -> bool:
    """Whether Triton's product uses int8 tensor cores on the GPU of `x`."""
    if forced or not x.is_cuda:
        return forced != "cublaslt"
    return torch.cuda.get_device_capability(x.device) >= (8, 0)


def _plain_product(
    x: Quantized, w: Tensor, scales: Tensor | None, out: Tensor, left: Tensor | None, right: Tensor | None
) -> None:
    made = torch._int_mm(x.codes, w.T).float() * x.scales[:, None]
    if scales is not None:
        made *= scales
    if left is not None and right is not None:
        made += left.float() @ right.float()
    out.copy_(made)


def _triton_product(
    x: Quantized, w: Tensor, scales: Tensor | None, out: Tensor, left: Tensor | None, right: Tensor | None
) -> None:
    (rows, inputs), columns = x.codes.shape, w.shape[0]
    tile = TILE if x.codes.is_cuda else (16, 32, 32)  # small models in the interpreter fill no large ones
    low = left is not None and right is not None
    grid = (-(-rows // tile[0]) * -(-columns // tile[1]),)
    _kernels().int8_product[grid](
        x.codes,
        w,
        x.scales,
        x.scales if scales is None else scales,
        out if left is None else left,
        0 if left is None else left.stride(0),
        out if right is None else right,
        0 if right is None else right.stride(0),
        out,
        out.stride(0),
        rows,
        columns,
        inputs,
        0 if left is None else left.shape[1],
        SCALED=scales is not None,
        RANK=max(16, ops.power(left.shape[1])) if low and left is not None else 0,
        EVEN=not (rows % tile[0] or columns % tile[1] or inputs % tile[2]),
        ROWS=tile[0],
        COLUMNS=tile[1],
        DEPTH=tile[2],
        GROUP=8,
        **LAUNCH,
    )


def _library_product(
    x: Quantized, w: Tensor, scales: Tensor | None, out: Tensor, left: Tensor | None, right: Tensor | None
) -> None:
    """In pieces of `SUMS` columns, whose sums exist in 32 bits."""
    tokens = x.codes.shape[0]
    low = left is not None and right is not None
    if left is not None and right is not None:
        if out.dtype == left.dtype:
            torch.mm(left, right, out=out)
        else:
            torch.mm(left, right, out_dtype=out.dtype, out=out)
    for start in range(0, w.shape[0], SUMS):
        part = slice(start, min(start + SUMS, w.shape[0]))
        sums = torch._int_mm(x.codes, w[part].T)
        target = out[:, part]
        _kernels().scale_sums[(tokens, -(-sums.shape[1] // 2048))](
            sums,
            x.scales,
            x.scales if scales is None else scales[part],
            target,
            target.stride(0),
            sums.shape[1],
            SCALED=scales is not None,
            ADD=low,
            BLOCK=2048,
            num_warps=4,
        )


def _rounded(values: Tensor) -> tuple[Tensor, Tensor]:
    """Codes and scales of rows, as the kernels round them."""
    largest = values.abs().amax(1)
    scaled = values * (127.0 / torch.where(largest == 0, torch.ones_like(largest), largest))[:, None]
    return torch.where(scaled >= 0, (scaled + 0.5).floor(), (scaled - 0.5).ceil()).to(torch.int8), largest / 127


def _empty(like: Tensor, columns: int, apart: bool, plain: Tensor | None) -> Quantized:
    tokens, device = like.shape[0], like.device
    return Quantized(
        torch.empty((tokens, columns), dtype=torch.int8, device=device),
        torch.empty(tokens, dtype=torch.float32, device=device),
        torch.empty((tokens, APART), dtype=like.dtype, device=device) if apart else None,
        plain,
    )


def _row(columns: int) -> dict[str, int]:
    """How a program takes a whole row."""
    block = ops.power(columns)
    return {"BLOCK": block, "num_warps": 16 if block > 8192 else 8}


def pieces(width: int, *, shared: bool = True) -> dict[str, int]:
    """How a program takes a whole row of the MLP's activation and keeps it in registers.

    Two programs on an SM are faster than one: of 11,008 columns on an H200, the gradient takes 38 µs in place of 47.
    Each has half of the registers then. That is enough for 12,288 columns; of the gradient, up to 14 numbers a thread
    spill to the cache. Wider rows need an SM for themselves. Above 18,944 columns they spill, too, which is slower.

    Args:
        shared: two programs may share an SM.
    """
    block = min(PIECE, max(32 * PIECE_WARPS, ops.power(width)))  # no fewer columns than threads
    launch = {"PIECES": -(-width // block), "BLOCK": block, "num_warps": PIECE_WARPS}
    return launch | ({"maxnreg": 64} if shared and launch["PIECES"] * block <= 12_288 else {})


def _kernels() -> Any:
    from tasks.backends.fused import int8_kernels

    return int8_kernels
