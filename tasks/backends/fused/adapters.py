"""LoRA weights in one piece: fp32 masters, their 16-bit copies and their gradients, each one buffer.

PEFT's parameters become views of the masters, and their `.grad` views of the fp32 gradients, so that optimizer,
clipping, checkpoints and scaler see ordinary parameters, while copying, adding up and clearing are one kernel each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

Tensor = torch.Tensor


@dataclass
class LoraFactors:
    """The two factors of one adapted layer: `W + scale · b @ a`."""

    rank: int
    scale: float
    a: Tensor
    """rank × inputs, in the type that is computed in."""
    b: Tensor
    """outputs × rank."""
    a_grad: Tensor
    b_grad: Tensor
    start: int
    """Where `a` begins in the buffers."""

    def add_to(self, out: Tensor, inner: Tensor) -> None:
        """Add the layer's part to `out` (T × outputs), from x Aᵀ (T × rank); in the type of `out`, which may be fp32
        where 16 bits are computed in."""
        torch.addmm(out, inner.to(out.dtype), self.b.T.to(out.dtype), alpha=self.scale, out=out)


class Adapters:
    """All LoRA weights of a model.

    Args:
        groups: PEFT's adapted layers by projection. The A factors of a projection lie next to each other, followed by
            zeros up to `aligned` rows, so that they are one matrix.
        name: the adapter's name in PEFT.
        like: a tensor of the device and type that is computed in.
    """

    def __init__(self, groups: list[list[Any]], name: str, aligned: int, like: Tensor) -> None:
        self._spans: list[tuple[nn.Parameter, int]] = []
        self._made: dict[int, LoraFactors] = {}
        plan: list[tuple[Any, int, int]] = []
        size = 0
        for group in groups:
            ranks = 0
            for layer in group:
                plan.append((layer, size, 0))
                size += layer.lora_A[name].weight.numel()
                ranks += layer.r[name]
            if group:
                size += (-ranks % aligned) * group[0].in_features
            for index, layer in enumerate(group):
                place = len(plan) - len(group) + index
                plan[place] = (layer, plan[place][1], size)
                size += layer.lora_B[name].weight.numel()
        device = like.device
        self.masters = torch.zeros(size, dtype=torch.float32, device=device)
        self.grads = torch.zeros_like(self.masters)
        self.copies = torch.zeros(size, dtype=like.dtype, device=device)
        self.partial = torch.zeros_like(self.copies)
        for layer, a_start, b_start in plan:
            self._made[id(layer)] = self._adopt(layer, name, a_start, b_start)
        self.refresh()

    def of(self, layer: Any) -> LoraFactors | None:
        """The adapter of one of PEFT's layers; None for a layer without."""
        return self._made.get(id(layer))

    def refresh(self) -> None:
        """Bring the 16-bit copies up to the masters: once per forward pass."""
        self.copies.copy_(self.masters)

    def add_up(self) -> None:
        """Add the gradients of one backward pass to the fp32 ones."""
        self.grads.add_(self.partial)

    def clear(self) -> None:
        """Set all gradients to zero, in place: the graph writes to the same memory always."""
        self.grads.zero_()
        for parameter, start in self._spans:
            if parameter.grad is None:
                parameter.grad = self.grads[start : start + parameter.numel()].view_as(parameter)

    def factors(self, first: LoraFactors, rows: int, buffer: Tensor) -> Tensor:
        """The A factors of a projection as one matrix, from its first adapter on; or what another buffer has there."""
        columns = first.a.shape[1]
        return buffer[first.start : first.start + rows * columns].view(rows, columns)

    def _adopt(self, layer: Any, name: str, a_start: int, b_start: int) -> LoraFactors:
        a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
        for parameter, start in ((a, a_start), (b, b_start)):
            span = slice(start, start + parameter.numel())
            self.masters[span].copy_(parameter.data.flatten())
            parameter.data = self.masters[span].view_as(parameter)
            if parameter.requires_grad:
                parameter.grad = self.grads[span].view_as(parameter)
                self._spans.append((parameter, start))
        return LoraFactors(
            rank=layer.r[name],
            scale=layer.scaling[name],
            a=self._view(self.copies, a_start, a),
            b=self._view(self.copies, b_start, b),
            a_grad=self._view(self.partial, a_start, a),
            b_grad=self._view(self.partial, b_start, b),
            start=a_start,
        )

    def _view(self, buffer: Tensor, start: int, like: Tensor) -> Tensor:
        return buffer[start : start + like.numel()].view_as(like)
