"""One decoder layer of the Llama family, forward and backward, written out.

The input h of a layer is the residual stream (T × H). Kept for backward, T rows each: h, q|k|v after rotation, the
attention's output and log-sum-exp, the stream after attention, gate|up, and two numbers per row for the norms. The
inputs of frozen layers are not kept: their gradients do not need them. A recomputed layer keeps h alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tasks.backends.fused import ops
from tasks.backends.fused.projection import Projection

Tensor = torch.Tensor


@dataclass(frozen=True)
class Geometry:
    """Sizes that all layers share."""

    heads: int
    kv_heads: int
    head_width: int
    mlp: int
    eps: float
    angles: tuple[Tensor, Tensor]
    """Cosines and sines, positions × half of the head width, fp32."""

    @property
    def spans(self) -> tuple[slice, slice, slice]:
        """The columns of q, k and v in their common product."""
        q, k = self.heads * self.head_width, self.kv_heads * self.head_width
        return slice(0, q), slice(q, q + k), slice(q + k, q + 2 * k)


@dataclass
class Kept:
    """What a layer's forward pass leaves for its backward pass."""

    h: Tensor
    rstd_attention: Tensor
    qkv: Tensor
    attended: Tensor
    rest: Any
    middle: Tensor
    rstd_mlp: Tensor
    gate_up: Tensor


class DecoderLayer:
    """Norm, attention, norm, MLP."""

    def __init__(
        self, geometry: Geometry, norms: tuple[nn.Parameter, nn.Parameter], projections: dict[str, Projection]
    ) -> None:
        self.geometry = geometry
        self.norms = norms
        self.qkv, self.o = projections["qkv"], projections["o"]
        self.gate_up, self.down = projections["gate_up"], projections["down"]

    def forward(
        self,
        pending: Tensor,
        stream: Tensor | None,
        shape: tuple[int, int],
        *,
        again: bool = False,
        apart: Tensor | None = None,
    ) -> tuple[Tensor, Kept]:
        """The layer's output before it is added to the stream (T × H), and what backward needs; `kept.middle` is the
        stream that it is to be added to.

        Args:
            pending: what the layer before has made, T × H; becomes h in place.
            stream: what that is to be added to; None when `pending` is h already.
            shape: sequences and tokens of each.
            again: the layer is recomputed; what was dropped out is dropped out again.
            apart: what keeps the texts of a sequence apart; see `ops.texts_apart`.
        """
        geometry = self.geometry
        x, rstd_attention = self.qkv.normed(pending, self.norms[0], geometry.eps, stream)
        qkv = self.qkv.forward(x, again=again)
        del x
        q, k, v = self.heads(qkv)
        turned = qkv[:, : geometry.spans[1].stop].view(len(qkv), -1, geometry.head_width)  # q and k, side by side
        ops.rotate(turned, geometry.angles, shape[1])
        q, k, v = (one.view(*shape, *one.shape[1:]) for one in (q, k, v))
        out, rest = ops.attention(q, k, v, apart)
        attended = out.reshape(len(qkv), -1)
        middle = self.o.forward(attended, again=again)[:, : self.o.rows]
        x, rstd_mlp = self.gate_up.normed(middle, self.norms[1], geometry.eps, pending)
        gate_up = self.gate_up.forward(x, again=again)
        del x
        made = self.down.forward(self.down.activated(gate_up, geometry.mlp), again=again)[:, : self.down.rows]
        return made, Kept(pending, rstd_attention, qkv, attended, rest, middle, rstd_mlp, gate_up)

    def heads(self, qkv: Tensor) -> list[Tensor]:
        """q, k and v as T × heads × head width: views."""
        width = self.geometry.head_width
        return [qkv[:, span].view(len(qkv), -1, width) for span in self.geometry.spans]

    def backward(self, grad: Tensor, kept: Kept, shape: tuple[int, int], *, wants_input: bool) -> Tensor | None:
        """The gradient of h from that of the layer's output, which is also that of the stream; both T × H.

        Args:
            grad: overwritten.
            wants_input: whether anything before this layer is trained.
        """
        grad = self._mlp_backward(grad, kept)
        dqkv = self._attention_backward(grad, kept, shape)
        dx = self.qkv.backward(dqkv, kept.qkv[:, self.qkv.rows :], None, wants_input=wants_input)
        if dx is None:
            if self.qkv.adapted:
                x, _ = ops.rms_norm(kept.h, self.norms[0], self.geometry.eps)
                self.qkv.factor_gradients(dqkv, x)
            return None
        again = dx if self.qkv.adapted else None
        ops.rms_norm_backward(dx, kept.h, self.norms[0], kept.rstd_attention, grad, grad, again)
        if again is not None:
            self.qkv.factor_gradients(dqkv, again)
        return grad

    def _mlp_backward(self, grad: Tensor, kept: Kept) -> Tensor:
        """The gradient of the stream after attention, over that of the layer's output."""
        down, gate_up = self.down, self.gate_up
        activation = ops.swiglu(kept.gate_up, self.geometry.mlp) if down.adapted else None
        wide = _widened(grad, down)
        dactivation = down.backward(wide, None, activation)
        assert dactivation is not None
        if activation is not None:
            down.factor_gradients(wide, activation)
        quantized = gate_up.activated_backward(dactivation, kept.gate_up)
        del dactivation, activation, wide
        dx = gate_up.backward(kept.gate_up, kept.gate_up[:, gate_up.rows :], None, made=quantized)
        assert dx is not None
        again = dx if gate_up.adapted else None
        ops.rms_norm_backward(dx, kept.middle, self.norms[1], kept.rstd_mlp, grad, grad, again)
        if again is not None:
            gate_up.factor_gradients(kept.gate_up, again)
        return grad

    def _attention_backward(self, grad: Tensor, kept: Kept, shape: tuple[int, int]) -> Tensor:
        """The gradient of q|k|v before rotation, with room for the adapters' columns: T × width."""
        wide = _widened(grad, self.o)
        dout = self.o.backward(wide, None, kept.attended)
        assert dout is not None
        if self.o.adapted:
            self.o.factor_gradients(wide, kept.attended)
        q, k, v = (one.view(*shape, *one.shape[1:]) for one in self.heads(kept.qkv))
        out = kept.attended.view(q.shape)
        grads = [g.flatten(0, 1) for g in ops.attention_backward(dout.view(q.shape), q, k, v, out, kept.rest)]
        dqkv = torch.empty_like(kept.qkv)
        ops.rotate_back(grads, dqkv, self.geometry.angles, shape[1])
        return dqkv


def _widened(grad: Tensor, projection: Projection) -> Tensor:
    """The gradient with room for the adapters' columns; itself where there are none."""
    if projection.width == projection.rows:
        return grad
    wide = grad.new_empty((grad.shape[0], projection.width))
    wide[:, : projection.rows] = grad
    return wide
