"""The engine's operations on tensors: Triton kernels on a GPU, the same arithmetic in plain torch elsewhere.

The plain versions are what the kernels are tested against, and let the engine's own backward pass be checked on a
machine without a GPU. Shapes: T tokens, H the width of the residual stream, I that of the MLP.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import torch
from torch.nn import functional

Tensor = torch.Tensor

IGNORED = -100
"""The label of a position that has no part in the loss."""
_CAUSAL, _NO_MASK = 1, 0
"""torch's numbers for a causal mask that begins at the upper left, and for none."""
_WIDE = 4096
"""Most columns of one program where rows are cut; a row's reduction takes all of them."""
FEW, FEW_BEFORE_SM80 = 64, 16
"""Most rows that `int8_linear` is worth: with more, unpacking the weight for cuBLAS is faster. Triton's products use no
tensor cores before sm_80."""
_PROGRAMS = 264
"""Programs of `int8_linear` that are aimed at: two for each multiprocessor of the largest GPU."""
TILE = (64, 128)
"""Outputs and inputs of one program's tile in `int8_linear`."""


def dequantize_int8(codes: Tensor, scales: Tensor, out: Tensor) -> None:
    """`out` (rows × columns) = `codes` (int8) × `scales` (fp32, by row; LLM.int8()'s `SCB` / 127)."""
    if not by_kernels(out):
        out.copy_(codes.float() * scales[:, None])
        return
    rows, columns = codes.shape
    block = min(_WIDE, power(columns))
    kernels = _kernels()
    kernels.dequantize_int8[(rows, _parts(columns, block))](codes, scales, out, columns, BLOCK=block, num_warps=8)


def linear(x: Tensor, weight: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`x @ weight.T` in this type: that of both (the default), or fp32, in which products are summed anyway."""
    if dtype is None or dtype == x.dtype:
        return x @ weight.T
    if x.is_cuda:
        return torch.mm(x, weight.T, out_dtype=dtype)
    return x.to(dtype) @ weight.T.to(dtype)


def int8_linear(x: Tensor, codes: Tensor, scales: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """`x @ W.T` (T × rows) for few T, of a weight in int8 as `dequantize_int8` takes it, which is read once and never
    written out; in a type as `linear` has it. x: T × columns, contiguous.
    """
    if not x.is_cuda:
        return linear(x, (codes.float() * scales[:, None]).to(x.dtype), dtype)
    tokens, inputs = x.shape
    rows = codes.shape[0]
    blocks, splits = int8_grid(rows, inputs)
    parts = torch.empty((splits, tokens, rows), dtype=torch.float32, device=x.device)
    _kernels().int8_linear[(blocks, splits)](
        x,
        codes,
        scales,
        parts,
        tokens,
        rows,
        inputs,
        splits,
        ROWS=max(16, power(tokens)),
        COLUMNS=TILE[0],
        DEPTH=TILE[1],
        num_warps=4,
        num_stages=3,
    )
    out = torch.empty((tokens, rows), dtype=dtype or x.dtype, device=x.device)
    _kernels().add_up[(_parts(out.numel(), 1024),)](parts, out, out.numel(), splits, BLOCK=1024, num_warps=4)
    return out


def few(x: Tensor) -> bool:
    """Whether `x` (T × columns) has so few rows that `int8_linear` is the faster product."""
    old = x.is_cuda and torch.cuda.get_device_capability(x.device) < (8, 0)
    return x.shape[0] <= (FEW_BEFORE_SM80 if old else FEW)


def int8_grid(rows: int, columns: int) -> tuple[int, int]:
    """Blocks of outputs and parts of the inputs that a weight (rows × columns) is cut into by `int8_linear`."""
    blocks = _parts(rows, TILE[0])
    return blocks, min(_parts(_PROGRAMS, blocks), _parts(columns, TILE[1]))


def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The norm of `x` (T × H), in the type of `weight`, and the reciprocal of each row's root mean square (fp32).

    With `residual` it is added to `x` first, in place.
    """
    tokens, width = x.shape
    out = torch.empty((tokens, width), dtype=weight.dtype, device=x.device)
    rstd = torch.empty(tokens, dtype=torch.float32, device=x.device)
    if not by_kernels(x):
        if residual is not None:
            x += residual
        torch.rsqrt(x.float().square().mean(1) + eps, out=rstd)
        out.copy_(x.float() * rstd[:, None] * weight.float())
        return out, rstd
    has, added = residual is not None, x if residual is None else residual
    strides = x.stride(0), added.stride(0)
    _kernels().rms_norm[(tokens,)](
        x,
        strides[0],
        added,
        strides[1],
        weight,
        out,
        rstd,
        width,
        eps,
        RESIDUAL=has,
        BLOCK=power(width),
        num_warps=8,
    )
    return out, rstd


def rms_norm_backward(
    dy: Tensor, x: Tensor, weight: Tensor, rstd: Tensor, residual: Tensor, out: Tensor, again: Tensor | None = None
) -> None:
    """`out` = gradient of the norm's input, from `dy`, plus `residual`, which may be `out` itself.

    `again` receives the norm's output once more; it may be `dy` itself.
    """
    tokens, width = dy.shape
    if not by_kernels(x):
        normed = x.float() * rstd[:, None]
        weighted = dy.float() * weight.float()
        through = (weighted - normed * (weighted * normed).mean(1, keepdim=True)) * rstd[:, None]
        out.copy_(through + residual)
        if again is not None:
            again.copy_(normed * weight.float())
        return
    write = again is not None
    _kernels().rms_norm_backward[(tokens,)](
        dy,
        x,
        x.stride(0),
        weight,
        rstd,
        residual,
        out,
        again if again is not None else out,
        width,
        WRITE_Y=write,
        BLOCK=power(width),
        num_warps=8,
    )


def rotate(values: Tensor, angles: tuple[Tensor, Tensor], length: int, positions: Tensor | None = None) -> None:
    """Rotary position embedding, in place, of T × heads × head width with any strides.

    Args:
        angles: cosines and sines, positions × half of the head width, fp32.
        length: tokens of a sequence: token t stands at position t % length unless `positions` (T) says otherwise.
    """
    tokens, heads, width = values.shape
    cosines, sines = angles
    if not by_kernels(values):
        places = positions if positions is not None else torch.arange(tokens, device=values.device) % length
        cosine, sine = cosines[places][:, None], sines[places][:, None]
        first, second = (half.float().clone() for half in values.chunk(2, dim=-1))
        values.copy_(torch.cat([first * cosine - second * sine, second * cosine + first * sine], dim=-1))
        return
    _kernels().rotate[(tokens,)](
        values,
        *values.stride()[:2],
        cosines,
        sines,
        cosines if positions is None else positions,
        length,
        heads,
        INDEXED=positions is not None,
        HEADS=power(heads),
        HALF=width // 2,
        num_warps=4,
    )


def rotate_back(grads: Sequence[Tensor], target: Tensor, angles: tuple[Tensor, Tensor], length: int) -> None:
    """The gradients of q, k and v (each T × heads × head width) before rotation, side by side in `target`'s first
    columns (T × width)."""
    q, k, v = grads
    tokens, heads, width = q.shape
    cosines, sines = angles
    if not by_kernels(q):
        back = cosines, -sines
        for one in (q, k):
            rotate(one, back, length)
        joined = torch.cat([one.flatten(1) for one in grads], dim=1)
        target[:, : joined.shape[1]] = joined
        return
    strides = [stride for one in grads for stride in one.stride()[:2]]
    _kernels().rotate_back[(tokens, 3)](
        q,
        k,
        v,
        *strides,
        target,
        target.stride(0),
        cosines,
        sines,
        length,
        heads,
        k.shape[1],
        HEADS=power(heads),
        HALF=width // 2,
        num_warps=4,
    )


def swiglu(gate_up: Tensor, width: int) -> Tensor:
    """`silu(gate) × up` (T × I) of the first 2 · I columns of `gate_up`."""
    tokens = gate_up.shape[0]
    out = torch.empty((tokens, width), dtype=gate_up.dtype, device=gate_up.device)
    if not by_kernels(out):
        gate, up = gate_up[:, :width].float(), gate_up[:, width : 2 * width].float()
        return out.copy_(functional.silu(gate) * up)
    block = min(2048, power(width))
    _kernels().swiglu[(tokens, _parts(width, block))](gate_up, gate_up.stride(0), out, width, BLOCK=block, num_warps=4)
    return out


def swiglu_backward(dout: Tensor, gate_up: Tensor) -> None:
    """Write the gradients of gate and up over the first 2 · I columns of `gate_up`, from `dout` (T × I)."""
    tokens, width = dout.shape
    if not by_kernels(dout):
        gate, up, grad = gate_up[:, :width].float(), gate_up[:, width : 2 * width].float(), dout.float()
        sigmoid = torch.sigmoid(gate)
        slope = sigmoid * (1 + gate * (1 - sigmoid))
        gate_up[:, : 2 * width] = torch.cat([grad * up * slope, grad * gate * sigmoid], dim=1)
        return
    block = min(2048, power(width))
    _kernels().swiglu_backward[(tokens, _parts(width, block))](
        dout, gate_up, gate_up.stride(0), width, BLOCK=block, num_warps=4
    )


def cross_entropy(logits: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
    """The negative log-likelihood of every row (T, fp32); `logits` (T × vocabulary) become their gradient × `factor`.

    Rows whose label is `IGNORED` have loss and gradient zero. `factor` is a single number on the device.
    """
    tokens, vocabulary = logits.shape
    if not by_kernels(logits):
        wide = logits.float()
        losses = functional.cross_entropy(wide, labels, reduction="none", ignore_index=IGNORED)
        counts = labels != IGNORED
        grad = torch.softmax(wide, 1)
        grad[torch.arange(tokens), labels.clamp(min=0)] -= 1
        logits.copy_(grad.mul_((counts * factor)[:, None]))  # in place: two tensors as large as the logits, not three
        return losses
    losses = torch.empty(tokens, dtype=torch.float32, device=logits.device)
    _kernels().cross_entropy[(tokens,)](
        logits,
        labels,
        losses,
        factor,
        vocabulary,
        IGNORED=IGNORED,
        BLOCK=min(8192, power(vocabulary)),
        num_warps=16,
    )
    return losses


def texts_apart(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """What keeps the texts of a sequence apart, and the order of their tokens: sequences × 1 × tokens × tokens, for all
    heads and layers; to be added to the scores on a GPU, and elsewhere whether the one sees the other.

    Args:
        positions: sequences × tokens; 0 begins a text.
    """
    length = positions.shape[1]
    texts = (positions == 0).cumsum(1)
    places = torch.arange(length, device=positions.device)
    seen = (texts[:, :, None] == texts[:, None, :]) & (places[:, None] >= places)
    if not positions.is_cuda:
        return seen[:, None]
    # The kernel wants rows that begin at 16 bytes. No infinity: a block of keys may have nothing that is seen.
    wide = torch.zeros((len(positions), length, _parts(length, 16) * 16), dtype=dtype, device=positions.device)
    wide[:, :, :length].masked_fill_(~seen, torch.finfo(dtype).min)
    return wide[:, None, :, :length]


def attention(q: Tensor, k: Tensor, v: Tensor, apart: Tensor | None = None) -> tuple[Tensor, Any]:
    """Causal attention. All are sequences × tokens × heads × head width; q may have several heads for one of k and v.

    Args:
        apart: of `texts_apart`, where a sequence holds several texts.

    Returns the output in q's shape, contiguous, and what `attention_backward` wants besides.
    """
    query, key, value = (one.transpose(1, 2) for one in (q, _repeated(k, q), _repeated(v, q)))
    if not q.is_cuda:
        out = functional.scaled_dot_product_attention(query, key, value, apart, is_causal=apart is None)
        return out.transpose(1, 2).contiguous(), apart
    if apart is not None:
        bias = apart.expand(-1, q.shape[2], -1, -1)
        out, *rest = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, bias, True, 0.0, False)
        return out.transpose(1, 2), [*rest, bias]
    # The memory-efficient kernel runs on every GPU that quantized training does (FlashAttention 2 wants sm_80), and
    # causal order needs no mask: padding stands behind the text.
    out, *rest = torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, None, True, 0.0, True)
    return out.transpose(1, 2), [*rest, None]


def attention_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, in their shapes."""
    if q.is_cuda:
        return _efficient_backward(dout, q, k, v, out, rest)
    inputs = [one.transpose(1, 2).detach().requires_grad_() for one in (q, _repeated(k, q), _repeated(v, q))]
    with torch.enable_grad():
        again = functional.scaled_dot_product_attention(inputs[0], inputs[1], inputs[2], rest, is_causal=rest is None)
    grads = torch.autograd.grad(again, inputs, dout.transpose(1, 2))
    dq, dk, dv = (grad.transpose(1, 2) for grad in grads)
    return dq, _summed(dk, k), _summed(dv, v)


def _efficient_backward(
    dout: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    sequences, length, heads, _ = q.shape
    log_sum_exp, seed, offset, bias = rest
    # torch cuts the keys into parts, each with a program of its own. When there are heads enough to fill the GPU that
    # only costs: 104 µs against 73 for a 7B's layer, 4 × 256 tokens, on an H200. (It also adds up in changing order.)
    fills = sequences * heads >= 0.9 * torch.cuda.get_device_properties(q.device).multi_processor_count
    dq, dk, dv, _ = torch.ops.aten._efficient_attention_backward(
        dout,
        q,
        _repeated(k, q),
        _repeated(v, q),
        bias,
        out,
        None,
        None,
        length,
        length,
        log_sum_exp,
        0.0,
        seed,
        offset,
        _CAUSAL if bias is None else _NO_MASK,
        False,
        scale=None,
        num_splits_key=1 if fills else None,
    )
    return dq, _summed(dk, k), _summed(dv, v)


def cached_attention(q: Tensor, cache: Tensor, positions: Tensor) -> Tensor:
    """Attention of one query for each row to what its row of the cache holds up to the query's own position.

    Args:
        q: rows × heads × head width, heads side by side.
        cache: rows × positions × 2 (keys, values) × heads of those × head width.
        positions: the last that is looked at, by row.

    Returns:
        rows × (heads · head width).
    """
    rows, heads, width = q.shape
    group = heads // cache.shape[3]
    if not q.is_cuda:
        seen = torch.arange(cache.shape[1], device=q.device) <= positions[:, None]
        keys, values = (one.transpose(1, 2) for one in cache.unbind(2))
        # the heads that share keys stand where a sequence's queries would
        query = q.view(rows, -1, group, width)
        return functional.scaled_dot_product_attention(query, keys, values, seen[:, None, None]).reshape(rows, -1)
    out = torch.empty((rows, heads * width), dtype=q.dtype, device=q.device)
    _kernels().cached_attention[(rows, heads)](
        q,
        q.stride(0),
        cache,
        *cache.stride()[:3],
        positions,
        out,
        width**-0.5,
        heads,
        GROUP=group,
        WIDTH=width,
        KEYS=32,
        num_warps=4,
    )
    return out


def _repeated(one: Tensor, q: Tensor) -> Tensor:
    """Heads of k or v, each as often as q has heads for it."""
    times = q.shape[2] // one.shape[2]
    return one if times == 1 else one.repeat_interleave(times, dim=2)


def _summed(grad: Tensor, one: Tensor) -> Tensor:
    times = grad.shape[2] // one.shape[2]
    return grad if times == 1 else grad.reshape(*one.shape[:3], times, -1).sum(3)


def by_kernels(tensor: Tensor) -> bool:
    """Whether the kernels serve: on a GPU, and in Triton's interpreter, which runs them anywhere."""
    return tensor.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"


def _kernels() -> Any:
    from tasks.backends.fused import kernels

    return kernels


def power(number: int) -> int:
    """The next power of two."""
    return 1 << (number - 1).bit_length()


def _parts(columns: int, block: int) -> int:
    return -(-columns // block)
