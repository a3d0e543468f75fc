"""The engine's forward pass alone: nothing is kept, the adapters are applied or not.

`DecoderLayer.forward` keeps what its backward pass needs and always applies the adapters; here are the same products
and kernels in the same order, with attention left to the caller, who has the whole text or a cache.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from tasks.backends.fused import ops
from tasks.backends.fused.layers import DecoderLayer, Geometry
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.projection import Projection
from tasks.backends.fused.support import HEAD_TOKENS
from tasks.backends.fused.weights import Int8Weight, Nf4Weight

Tensor = torch.Tensor
Linear = Callable[[Projection, Tensor], Tensor]
"""A product, x (T × columns) → T × rows, adapters included where they are wanted."""
Attend = Callable[[int, Tensor], Tensor]
"""The number of a layer and its q|k|v before rotation, T × …, → what attention makes of them, T × (heads · width)."""


def unpacking(adapted: bool) -> Linear:
    """Products of many rows: weights are unpacked first. Nothing is dropped out, also where training does."""

    def linear(projection: Projection, x: Tensor) -> Tensor:
        if not (adapted and projection.dropout):
            return projection.forward(x, adapted=adapted)[:, : projection.rows]
        y = projection.forward(x, adapted=False)
        for one in projection.adapted:
            out = y[:, one.outputs]
            one.adapter.add_to(out, x @ one.adapter.a.T)
        return y

    return linear


def reading(adapted: bool) -> Linear:
    """Products of few rows: quantized weights are read as they are stored."""

    def linear(projection: Projection, x: Tensor) -> Tensor:
        parts = [
            one.product(x, projection.dtype) for one in projection.weights if isinstance(one, (Int8Weight, Nf4Weight))
        ]
        if not parts:
            return unpacking(adapted)(projection, x)
        y = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if projection.bias is not None:
            y += projection.bias
        if adapted and projection.adapted:
            _adapt(projection, x, y)
        return y

    return linear


def _adapt(projection: Projection, x: Tensor, y: Tensor) -> None:
    """Add the adapters' part to `y` (T × rows)."""
    inner = x @ projection.inner_factors().T
    for one in projection.adapted:
        out = y[:, one.outputs]
        own = inner[:, one.inner.start - projection.rows : one.inner.stop - projection.rows]
        one.adapter.add_to(out, own)


def stream(model: FusedModel, ids: Tensor, linear: Linear, attend: Attend) -> tuple[Tensor, Tensor]:
    """What the last layer makes of token ids (T), and the residual stream that it is to be added to: both T × H."""
    model.begin()
    pending, residual = model.embedded(ids), None
    for number, layer in enumerate(model.layers):
        pending, residual = _layer(layer, pending, residual, linear, lambda qkv, n=number: attend(n, qkv))  # type: ignore[misc]
    model.end()
    assert residual is not None
    return pending, residual


def _layer(
    layer: DecoderLayer, pending: Tensor, residual: Tensor | None, linear: Linear, attend: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """As `DecoderLayer.forward`: the layer's output and the stream after attention."""
    geometry = layer.geometry
    x, _ = ops.rms_norm(pending, layer.norms[0], geometry.eps, residual)
    middle = linear(layer.o, attend(linear(layer.qkv, x)))
    x, _ = ops.rms_norm(middle, layer.norms[1], geometry.eps, pending)
    gate_up = linear(layer.gate_up, x)
    del x
    return linear(layer.down, ops.swiglu(gate_up, geometry.mlp)), middle


def rotated(geometry: Geometry, qkv: Tensor, length: int, positions: Tensor | None = None) -> Tensor:
    """q, turned in place as k is: T × heads × head width, a view. `length` and `positions` as `ops.rotate` has them."""
    q, k, _ = geometry.spans
    shape = (len(qkv), -1, geometry.head_width)
    ops.rotate(qkv[:, : k.stop].view(shape), geometry.angles, length, positions)
    return qkv[:, q].view(shape)


def attention(geometry: Geometry, qkv: Tensor, shape: tuple[int, int]) -> Tensor:
    """Causal attention of whole sequences: q|k|v are turned in place. `shape`: sequences and tokens of each."""
    rotated(geometry, qkv, shape[1])
    q, k, v = (qkv[:, span].view(*shape, -1, geometry.head_width) for span in geometry.spans)
    out, _ = ops.attention(q, k, v)
    return out.reshape(len(qkv), -1)


def written(geometry: Geometry, qkv: Tensor) -> Tensor:
    """k|v, as the cache has them side by side: T × 2 · heads · width, a view."""
    return qkv[:, geometry.spans[1].start : geometry.spans[2].stop]


def logits(model: FusedModel, pending: Tensor, residual: Tensor) -> Tensor:
    """T × vocabulary, from what `stream` returns (its `pending` is overwritten)."""
    x, _ = ops.rms_norm(pending, model.final_norm, model.geometry.eps, residual)
    return x @ model.head.T


@torch.no_grad()
def losses(model: FusedModel, ids: Tensor, labels: Tensor, *, adapted: bool) -> Tensor:
    """The negative log-likelihood of each token's successor, in nats: sequences × tokens, fp32.

    Args:
        ids: sequences × tokens; padding stands behind the text.
        labels: the token that follows each, `ops.IGNORED` where that has no part: its loss is 0.
    """
    shape = (ids.shape[0], ids.shape[1])
    pending, residual = stream(
        model, ids.flatten(), unpacking(adapted), lambda _, qkv: attention(model.geometry, qkv, shape)
    )
    found = torch.empty(pending.shape[0], dtype=torch.float32, device=ids.device)
    nothing = torch.zeros((), dtype=torch.float32, device=ids.device)
    flat = labels.flatten()
    for start in range(0, len(found), HEAD_TOKENS):
        part = slice(start, start + HEAD_TOKENS)
        found[part] = ops.cross_entropy(logits(model, pending[part], residual[part]), flat[part], nothing)
    return found.view(shape)
