"""Triton kernels of the engine: what a step does between its matrix products.

Each reads and writes every number once, computes in fp32 whatever it is given, and fits a T4 (sm_75): no bf16, no
tensor-core instructions of later GPUs, no shared memory beyond a reduction's. cuBLAS does the large products.

liger-kernel 0.8.5 was read first. It has norms with the residual, rotation, SwiGLU and cross-entropy too, but rotation
and SwiGLU copy what is no contiguous tensor of its own, where here q|k|v and gate|up are columns of one product, and
the cross-entropy waits for the GPU (`.item()`), which a CUDA graph forbids; it unpacks no int8 weights.

Importing this module needs Triton, which comes with the CUDA builds of torch.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def dequantize_int8(codes, scales, out, columns, BLOCK: tl.constexpr):
    """`out[row] = codes[row] × scales[row]`, rounded once; a program per row and `BLOCK` columns."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < columns
    values = tl.load(codes + row * columns + places, mask=inside, eviction_policy="evict_first").to(tl.float32)
    tl.store(out + row * columns + places, (values * tl.load(scales + row)).to(out.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm(
    x,
    x_stride,
    residual,
    residual_stride,
    weight,
    out,
    rstd_out,
    columns,
    eps,
    RESIDUAL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """`x += residual` in place, then `out = x / rms(x) × weight`; a program per row."""
    row = tl.program_id(0).to(tl.int64)
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
    scaled = wide * rstd * tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + places, scaled.to(out.dtype.element_ty), mask=inside)


@triton.jit
def rms_norm_backward(
    dy, x, x_stride, weight, rstd, residual, dx, y, columns, WRITE_Y: tl.constexpr, BLOCK: tl.constexpr
):
    """The gradient of the norm's input plus that of the residual stream; with `WRITE_Y` the norm's output again."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, BLOCK)
    inside = places < columns
    scale = tl.load(rstd + row)
    normed = tl.load(x + row * x_stride + places, mask=inside, other=0.0).to(tl.float32) * scale
    weights = tl.load(weight + places, mask=inside, other=0.0).to(tl.float32)
    weighted = tl.load(dy + row * columns + places, mask=inside, other=0.0).to(tl.float32) * weights
    if WRITE_Y:  # y may be where dy is
        tl.store(y + row * columns + places, (normed * weights).to(y.dtype.element_ty), mask=inside)
    shared = tl.sum(weighted * normed, axis=0) / columns
    through = (weighted - normed * shared) * scale
    stream = tl.load(residual + row * columns + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + row * columns + places, (through + stream).to(dx.dtype.element_ty), mask=inside)


@triton.jit
def rotate(
    values,
    by_token,
    by_head,
    cosines,
    sines,
    positions,
    length,
    heads,
    INDEXED: tl.constexpr,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """Rotary position embedding of one token's heads, in place.

    `cosines` and `sines` are positions × HALF. The position of token t is `t % length`, or `positions[t]`.
    """
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions + token) if INDEXED else token % length
    head = tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (place < HALF)
    cosine = tl.load(cosines + position * HALF + place)
    sine = tl.load(sines + position * HALF + place)
    start = values + token * by_token + head * by_head + place
    first = tl.load(start, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(start + HALF, mask=inside, other=0.0).to(tl.float32)
    tl.store(start, (first * cosine - second * sine).to(values.dtype.element_ty), mask=inside)
    tl.store(start + HALF, (second * cosine + first * sine).to(values.dtype.element_ty), mask=inside)


@triton.jit
def rotate_back(
    q,
    k,
    v,
    q_token,
    q_head,
    k_token,
    k_head,
    v_token,
    v_head,
    target,
    target_token,
    cosines,
    sines,
    length,
    q_heads,
    kv_heads,
    HEADS: tl.constexpr,
    HALF: tl.constexpr,
):
    """The gradients of q, k and v side by side as their product has them, q's and k's turned back; a program per
    token and per each of the three."""
    token = tl.program_id(0).to(tl.int64)
    which = tl.program_id(1)
    source, by_token, by_head, heads, first_head = v, v_token, v_head, kv_heads, q_heads + kv_heads
    if which == 0:
        source, by_token, by_head, heads, first_head = q, q_token, q_head, q_heads, q_heads * 0
    if which == 1:
        source, by_token, by_head, heads, first_head = k, k_token, k_head, kv_heads, q_heads
    head = tl.arange(0, HEADS)[:, None]
    place = tl.arange(0, HALF)[None, :]
    inside = (head < heads) & (place < HALF)
    turned = which < 2
    cosine = tl.where(turned, tl.load(cosines + (token % length) * HALF + place), 1.0)
    sine = tl.where(turned, tl.load(sines + (token % length) * HALF + place), 0.0)
    read = source + token * by_token + head * by_head + place
    first = tl.load(read, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(read + HALF, mask=inside, other=0.0).to(tl.float32)
    write = target + token * target_token + (first_head + head) * (2 * HALF) + place
    tl.store(write, (first * cosine + second * sine).to(target.dtype.element_ty), mask=inside)
    tl.store(write + HALF, (second * cosine - first * sine).to(target.dtype.element_ty), mask=inside)


@triton.jit
def swiglu(gate_up, stride, out, columns, BLOCK: tl.constexpr):
    """`silu(gate) × up`; gate and up are the two halves of a row."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < columns
    gate = tl.load(gate_up + row * stride + places, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * stride + columns + places, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + row * columns + places, (gate * tl.sigmoid(gate) * up).to(out.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward(dout, gate_up, stride, columns, BLOCK: tl.constexpr):
    """The gradients of gate and up, written over them."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = places < columns
    gates, ups = gate_up + row * stride + places, gate_up + row * stride + columns + places
    gate = tl.load(gates, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(ups, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(dout + row * columns + places, mask=inside, other=0.0).to(tl.float32)
    sigmoid = tl.sigmoid(gate)
    slope = sigmoid * (1.0 + gate * (1.0 - sigmoid))
    tl.store(gates, (grad * up * slope).to(gate_up.dtype.element_ty), mask=inside)
    tl.store(ups, (grad * gate * sigmoid).to(gate_up.dtype.element_ty), mask=inside)


@triton.jit
def cross_entropy(logits, labels, losses, factor, columns, IGNORED: tl.constexpr, BLOCK: tl.constexpr):
    """The loss of each row, and in place of its logits their gradient times `factor` (a number in memory)."""
    row = tl.program_id(0).to(tl.int64)
    label = tl.load(labels + row)
    start = logits + row * columns
    highest = float("-inf")
    total = 0.0
    for first in range(0, columns, BLOCK):
        places = first + tl.arange(0, BLOCK)
        values = tl.load(start + places, mask=places < columns, other=float("-inf")).to(tl.float32)
        new = tl.maximum(highest, tl.max(values, axis=0))
        total = total * tl.exp(highest - new) + tl.sum(tl.exp(values - new), axis=0)
        highest = new
    counts = label != IGNORED
    chosen = tl.load(start + tl.where(counts, label, 0)).to(tl.float32)
    tl.store(losses + row, tl.where(counts, highest + tl.log(total) - chosen, 0.0))
    weight = tl.where(counts, tl.load(factor), 0.0)
    tl.debug_barrier()  # every thread has read the label's logit before it is overwritten
    for first in range(0, columns, BLOCK):
        places = first + tl.arange(0, BLOCK)
        values = tl.load(start + places, mask=places < columns, other=float("-inf")).to(tl.float32)
        grad = tl.exp(values - highest) / total - tl.where(places == label, 1.0, 0.0)
        tl.store(start + places, (grad * weight).to(logits.dtype.element_ty), mask=places < columns)


@triton.jit
def int8_linear(
    x, codes, scales, out, rows, columns, inputs, splits, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr
):
    """`out[s] = x @ codes.T × scales` over the s-th part of the inputs, for few rows (decoding): the codes are read
    once and never written out in 16 bits. `out` is fp32, splits × rows × columns; the caller adds the parts up."""
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    part = tl.program_id(1)
    row = tl.arange(0, ROWS)
    depth = tl.arange(0, DEPTH)
    share = tl.cdiv(tl.cdiv(inputs, DEPTH), splits) * DEPTH
    total = tl.zeros((ROWS, COLUMNS), dtype=tl.float32)
    for first in range(part * share, tl.minimum((part + 1) * share, inputs), DEPTH):
        place = first + depth
        values = tl.load(
            x + row[:, None] * inputs + place[None, :],
            mask=(row[:, None] < rows) & (place[None, :] < inputs),
            other=0.0,
        )
        weights = tl.load(
            codes + column[None, :].to(tl.int64) * inputs + place[:, None],
            mask=(column[None, :] < columns) & (place[:, None] < inputs),
            other=0,
        )
        total += tl.dot(values, weights.to(values.dtype))
    scale = tl.load(scales + column, mask=column < columns, other=0.0)
    target = out + (part.to(tl.int64) * rows + row[:, None]) * columns + column[None, :]
    tl.store(target, total * scale[None, :], mask=(row[:, None] < rows) & (column[None, :] < columns))


@triton.jit
def add_up(parts, out, numbers, splits, BLOCK: tl.constexpr):
    """`out = parts.sum(0)`, always in the same order, rounded once; `parts` is splits × numbers."""
    place = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = place < numbers
    source = parts + place
    total = tl.zeros((BLOCK,), dtype=tl.float32)
    for _ in range(0, splits):
        total += tl.load(source, mask=inside, other=0.0)
        source += numbers
    tl.store(out + place, total.to(out.dtype.element_ty), mask=inside)


@triton.jit
def cached_attention(
    q,
    q_row,
    cache,
    cache_row,
    cache_position,
    values,
    positions,
    out,
    scale,
    heads,
    GROUP: tl.constexpr,
    WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Attention of one query per row to the keys of its row up to `positions[row]`; a program per row and head.

    A position's keys stand in the cache before its values, which begin `values` numbers later; `GROUP` heads share one.
    """
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    place = tl.arange(0, WIDTH)
    last = tl.load(positions + row)
    query = tl.load(q + row * q_row + head * WIDTH + place).to(tl.float32) * scale
    start = cache + row * cache_row + (head // GROUP) * WIDTH + place[None, :]
    highest = float("-inf")
    total = 0.0
    mixed = tl.zeros((WIDTH,), dtype=tl.float32)
    for first in range(0, last + 1, KEYS):
        key = first + tl.arange(0, KEYS)
        inside = key <= last
        found = start + key[:, None] * cache_position
        keys = tl.load(found, mask=inside[:, None], other=0.0).to(tl.float32)
        scores = tl.where(inside, tl.sum(keys * query[None, :], axis=1), float("-inf"))
        new = tl.maximum(highest, tl.max(scores, axis=0))
        shrunk = tl.exp(highest - new)
        shares = tl.exp(scores - new)
        total = total * shrunk + tl.sum(shares, axis=0)
        content = tl.load(found + values, mask=inside[:, None], other=0.0).to(tl.float32)
        mixed = mixed * shrunk + tl.sum(shares[:, None] * content, axis=0)
        highest = new
    tl.store(out + (row * heads + head) * WIDTH + place, (mixed / total).to(out.dtype.element_ty))
