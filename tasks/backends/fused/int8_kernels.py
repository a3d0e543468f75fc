"""Triton kernels of products on int8 tensor cores: quantizing by row where a number is made, and the product itself.

As `kernels`: every number is read and written once, computed in fp32, and fits a T4. Only `int8_product` does not run
there: before sm_80 Triton uses no tensor cores, and cuBLASLt makes the product, with `scale_sums` behind it.

A row's scale is its largest magnitude / 127. Largest magnitudes are compared as bits, so that a NaN is the largest of
all: a gradient that has overflowed must stay visible to the gradient scaler.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _magnitudes(values):
    """As bits, whose order is that of the magnitudes."""
    return values.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _largest(values):
    """The largest magnitude of a row; NaN where there is one."""
    return tl.max(_magnitudes(values), axis=0).to(tl.float32, bitcast=True)


@triton.jit
def _codes(values, largest):
    """Of one row, rounded to the nearest, halves away from zero: ±0.5 is added and the fraction is dropped.

    That is one conversion a number. `floor` and `ceil` would be two more, and a GPU has few units for them.
    """
    half = ((values.to(tl.int32, bitcast=True) & -0x80000000) | 0x3F000000).to(tl.float32, bitcast=True)
    return (values * (127.0 / tl.where(largest == 0.0, 1.0, largest)) + half).to(tl.int8)


@triton.jit
def quantize(
    x, x_stride, factors, apart_columns, apart, codes, scales, columns, APART: tl.constexpr, BLOCK: tl.constexpr
):
    """`codes · scales = x · factors` by row; the columns named in `apart_columns` (−1: none) as they are to `apart`."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    inside = places < columns
    values = tl.load(x + row * x_stride + places, mask=inside, other=0.0).to(tl.float32)
    values *= tl.load(factors + places, mask=inside, other=0.0)
    if APART:
        slots = tl.arange(0, APART)
        chosen = tl.load(apart_columns + slots)
        tl.store(apart + row * APART + slots, tl.load(x + row * x_stride + chosen, mask=chosen >= 0, other=0.0))
    largest = _largest(values)
    tl.store(codes + row * columns + places, _codes(values, largest), mask=inside)
    tl.store(scales + row, largest / 127.0)


@triton.jit
def rms_norm_int8(
    x,
    x_stride,
    residual,
    residual_stride,
    weight,
    out,
    rstd_out,
    factors,
    apart_columns,
    apart,
    codes,
    scales,
    columns,
    eps,
    RESIDUAL: tl.constexpr,
    PLAIN: tl.constexpr,
    APART: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`kernels.rms_norm`, and `quantize` of what it makes, which is written itself only with `PLAIN`."""
    row = tl.program_id(0).to(tl.int64)
    slots = tl.arange(0, APART)
    chosen = tl.load(apart_columns + slots)
    some = tl.load(x + row * x_stride + chosen, mask=chosen >= 0, other=0.0)
    if RESIDUAL:
        some_added = tl.load(residual + row * residual_stride + chosen, mask=chosen >= 0, other=0.0)
        some = (some.to(tl.float32) + some_added.to(tl.float32)).to(x.dtype.element_ty)
        tl.debug_barrier()  # every thread has read these before they are overwritten
    places = tl.arange(0, BLOCK)
    inside = places < columns
    values = tl.load(x + row * x_stride + places, mask=inside, other=0.0)
    if RESIDUAL:
        added = tl.load(residual + row * residual_stride + places, mask=inside, other=0.0)
        values = (values.to(tl.float32) + added.to(tl.float32)).to(x.dtype.element_ty)
        tl.store(x + row * x_stride + places, values, mask=inside)
    wide = values.to(tl.float32)
    rstd = 1.0 / tl.sqrt(tl.sum(wide * wide, axis=0) / columns + eps)
    tl.store(rstd_out + row, rstd)
    made = wide * rstd * tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    made = made.to(weight.dtype.element_ty)
    if PLAIN:
        tl.store(out + row * columns + places, made, mask=inside)
    some_made = some.to(tl.float32) * rstd * tl.load(weight + chosen, mask=chosen >= 0, other=0.0).to(tl.float32)
    tl.store(apart + row * APART + slots, some_made.to(weight.dtype.element_ty))
    kept = made.to(tl.float32) * tl.load(factors + places, mask=inside, other=0.0)
    largest = _largest(kept)
    tl.store(codes + row * columns + places, _codes(kept, largest), mask=inside)
    tl.store(scales + row, largest / 127.0)


@triton.jit
def _activation(gates, columns, places, inside):
    """SwiGLU of some columns of a row, rounded as `kernels.swiglu` does; gates: where the row begins."""
    gate = tl.load(gates + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + columns + places, mask=inside, other=0.0).to(tl.float32)
    return (gate * tl.sigmoid(gate) * up).to(gates.dtype.element_ty)


@triton.jit
def swiglu_int8(
    gate_up,
    stride,
    out,
    factors,
    apart_columns,
    apart,
    codes,
    scales,
    columns,
    PLAIN: tl.constexpr,
    APART: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`kernels.swiglu`, and `quantize` of what it makes, which is written itself only with `PLAIN`.

    A row is `PIECES` of `BLOCK`. All of them stay in registers until the row's largest magnitude is known.
    """
    row = tl.program_id(0).to(tl.int64)
    gates = gate_up + row * stride
    bits = tl.zeros((BLOCK,), dtype=tl.int32)
    kept = ()
    for piece in tl.static_range(PIECES):
        places = piece * BLOCK + tl.arange(0, BLOCK)
        inside = places < columns
        made = _activation(gates, columns, places, inside)
        if PLAIN:
            tl.store(out + row * columns + places, made, mask=inside)
        values = made.to(tl.float32) * tl.load(factors + places, mask=inside, other=0.0)
        bits = tl.maximum(bits, _magnitudes(values))
        kept += (values,)
    # only now: the loads above must not wait for these, which depend on one another
    slots = tl.arange(0, APART)
    chosen = tl.load(apart_columns + slots)
    tl.store(apart + row * APART + slots, _activation(gates, columns, chosen, chosen >= 0))
    largest = tl.max(bits, axis=0).to(tl.float32, bitcast=True)
    tl.store(scales + row, largest / 127.0)
    for piece in tl.static_range(PIECES):
        places = piece * BLOCK + tl.arange(0, BLOCK)
        tl.store(codes + row * columns + places, _codes(kept[piece], largest), mask=places < columns)


@triton.jit
def _activation_backward(dout, gates, columns, places, inside):
    """The gradients of gate and up for some columns of a row, rounded as `kernels.swiglu_backward` does."""
    gate = tl.load(gates + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gates + columns + places, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(dout + places, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
    return (grad * up * slope).to(gates.dtype.element_ty), (grad * gate * sigmoid).to(gates.dtype.element_ty)


@triton.jit
def swiglu_backward_int8(
    dout,
    gate_up,
    stride,
    factors,
    codes,
    scales,
    columns,
    PLAIN: tl.constexpr,
    PIECES: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`kernels.swiglu_backward`, and `quantize` of both gradients as one row; written over gate and up only with
    `PLAIN`. In registers as in `swiglu_int8`. `BLOCK` is at least the number of threads: only the thread that
    overwrites a column reads it."""
    row = tl.program_id(0).to(tl.int64)
    gates, grads = gate_up + row * stride, dout + row * columns
    bits = tl.zeros((BLOCK,), dtype=tl.int32)
    kept = ()
    for piece in tl.static_range(PIECES):
        places = piece * BLOCK + tl.arange(0, BLOCK)
        inside = places < columns
        of_gate, of_up = _activation_backward(grads, gates, columns, places, inside)
        if PLAIN:
            tl.store(gates + places, of_gate, mask=inside)
            tl.store(gates + columns + places, of_up, mask=inside)
        first = of_gate.to(tl.float32) * tl.load(factors + places, mask=inside, other=0.0)
        second = of_up.to(tl.float32) * tl.load(factors + columns + places, mask=inside, other=0.0)
        bits = tl.maximum(bits, tl.maximum(_magnitudes(first), _magnitudes(second)))
        kept += (first, second)
    largest = tl.max(bits, axis=0).to(tl.float32, bitcast=True)
    tl.store(scales + row, largest / 127.0)
    for piece in tl.static_range(PIECES):
        places = piece * BLOCK + tl.arange(0, BLOCK)
        inside = places < columns
        target = codes + row * 2 * columns + places
        tl.store(target, _codes(kept[2 * piece], largest), mask=inside)
        tl.store(target + columns, _codes(kept[2 * piece + 1], largest), mask=inside)


@triton.jit
def _column_of(a, b, c, d, SHIFT: tl.constexpr):
    """Byte `SHIFT` / 8 of each of four words, as one word."""
    low = ((a >> SHIFT) & 255) | (((b >> SHIFT) & 255) << 8)
    return low | (((c >> SHIFT) & 255) << 16) | (((d >> SHIFT) & 255) << 24)


@triton.jit
def transpose(codes, out, rows, columns, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """`out = codes.T`; codes: rows × columns, four bytes a word. A program turns 4 · `ROWS` × 4 · `COLUMNS` bytes:
    four by four in registers, then the words that come of it."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    wide, high = columns // 4, rows // 4
    inside = (row[:, None] < high) & (column[None, :] < wide)
    source = codes + 4 * row[:, None] * wide + column[None, :]
    a = tl.load(source, mask=inside, eviction_policy="evict_first")
    b = tl.load(source + wide, mask=inside, eviction_policy="evict_first")
    c = tl.load(source + 2 * wide, mask=inside, eviction_policy="evict_first")
    d = tl.load(source + 3 * wide, mask=inside, eviction_policy="evict_first")
    turned = (column[:, None] < wide) & (row[None, :] < high)
    target = out + 4 * column[:, None] * high + row[None, :]
    tl.store(target, tl.trans(_column_of(a, b, c, d, 0)), mask=turned)
    tl.store(target + high, tl.trans(_column_of(a, b, c, d, 8)), mask=turned)
    tl.store(target + 2 * high, tl.trans(_column_of(a, b, c, d, 16)), mask=turned)
    tl.store(target + 3 * high, tl.trans(_column_of(a, b, c, d, 24)), mask=turned)


@triton.jit
def int8_product(
    x,
    w,
    row_scales,
    column_scales,
    left,
    left_stride,
    right,
    right_stride,
    out,
    out_stride,
    rows,
    columns,
    inputs,
    rank,
    SCALED: tl.constexpr,
    RANK: tl.constexpr,
    EVEN: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
    GROUP: tl.constexpr,
):
    """`out = (x @ w.T) × row_scales × column_scales + left @ right`, a tile a program, rounded once.

    x: rows × inputs and w: columns × inputs, int8. left: rows × rank and right: rank × columns, 16 bits; `RANK` 0:
    none. Without `SCALED` the columns have no scales. `EVEN`: all sizes are multiples of the tile's.
    """
    program = tl.program_id(0)
    down, across = tl.cdiv(rows, ROWS), tl.cdiv(columns, COLUMNS)
    first = (program // (GROUP * across)) * GROUP  # tiles that share their inputs run at the same time
    height = tl.minimum(down - first, GROUP)
    row = (first + (program % (GROUP * across)) % height) * ROWS + tl.arange(0, ROWS)
    column = ((program % (GROUP * across)) // height) * COLUMNS + tl.arange(0, COLUMNS)
    depth = tl.arange(0, DEPTH)
    here, there = row, column
    if not EVEN:
        here, there = tl.where(row < rows, row, 0), tl.where(column < columns, column, 0)
    xs = x + here[:, None] * inputs + depth[None, :]
    ws = w + there[None, :].to(tl.int64) * inputs + depth[:, None]
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
    for start in range(0, inputs, DEPTH):
        if EVEN:
            total = tl.dot(tl.load(xs), tl.load(ws), total, out_dtype=tl.int32)
        else:
            inside = start + depth < inputs
            a = tl.load(xs, mask=inside[None, :], other=0)
            total = tl.dot(a, tl.load(ws, mask=inside[:, None], other=0), total, out_dtype=tl.int32)
        xs += DEPTH
        ws += DEPTH
    made = total.to(tl.float32) * tl.load(row_scales + here)[:, None]
    if SCALED:
        made *= tl.load(column_scales + there)[None, :]
    if RANK:
        one = tl.arange(0, RANK)
        a = tl.load(left + here[:, None] * left_stride + one[None, :], mask=one[None, :] < rank, other=0.0)
        b = tl.load(right + one[:, None] * right_stride + there[None, :], mask=one[:, None] < rank, other=0.0)
        made = tl.dot(a, b, made)
    target = out + row[:, None].to(tl.int64) * out_stride + column[None, :]
    if EVEN:
        tl.store(target, made.to(out.dtype.element_ty))
    else:
        tl.store(target, made.to(out.dtype.element_ty), mask=(row[:, None] < rows) & (column[None, :] < columns))


@triton.jit
def scale_sums(
    sums,
    row_scales,
    column_scales,
    out,
    out_stride,
    columns,
    SCALED: tl.constexpr,
    ADD: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`out = sums × row_scales × column_scales`, with `ADD` plus what is in `out`; a program per row and `BLOCK`."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < columns
    made = tl.load(sums + row * columns + places, mask=inside, other=0).to(tl.float32) * tl.load(row_scales + row)
    if SCALED:
        made *= tl.load(column_scales + places, mask=inside, other=0.0)
    target = out + row * out_stride + places
    if ADD:
        made += tl.load(target, mask=inside, other=0.0).to(tl.float32)
    tl.store(target, made.to(out.dtype.element_ty), mask=inside)
