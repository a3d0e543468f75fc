"""Frozen weights of linear layers as they are stored: by bitsandbytes in 8 or 4 bits, or unquantized."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import nn

from tasks.backends.fused import ops
from tasks.models.residual import SHRUNK

Tensor = torch.Tensor


class Weight(Protocol):
    """The frozen weight of one linear layer, rows × columns."""

    rows: int
    columns: int

    def unpack(self, out: Tensor) -> None:
        """Write the weight to `out` in the type that is computed in."""


class Int8Weight:
    """LLM.int8()'s storage: int8 codes and the largest magnitude of each row (`SCB`).

    Takes all layers of a projection, so that one kernel unpacks them: their codes are brought together, and the
    layers' own tensors become views of the whole. A single layer's are copied too: see `FusedModel`, where they move.
    """

    def __init__(self, modules: Sequence[Any]) -> None:
        stored: list[tuple[Tensor, Tensor]] = []
        for module in modules:
            # both move from the weight to the module's state at its first forward pass
            state, weight = module.state, module.weight
            codes = next(one for one in (state.CB, weight.CB, weight.data) if one is not None)
            stored.append((codes, state.SCB if state.SCB is not None else weight.SCB))
        self.codes = torch.cat([codes for codes, _ in stored])
        self.scales = torch.cat([largest.flatten().float() for _, largest in stored]) / 127
        self.rows, self.columns = self.codes.shape
        start = 0
        for module, (codes, _) in zip(modules, stored, strict=True):
            part = self.codes[start : start + codes.shape[0]]
            start += codes.shape[0]
            module.weight.data = part
            for holder in (module.weight, module.state):
                if holder.CB is not None:
                    holder.CB = part

    def unpack(self, out: Tensor) -> None:
        ops.dequantize_int8(self.codes, self.scales, out)

    def product(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """`x @ W.T`, for few rows, without unpacking; in a type as `ops.linear` has it."""
        return ops.int8_linear(x, self.codes, self.scales, dtype)


class Nf4Weight:
    """bitsandbytes' NF4: two codes a byte, one scale for every 64 weights."""

    def __init__(self, module: Any) -> None:
        self._packed, self._state = module.weight.data, module.weight.quant_state
        self.rows, self.columns = self._state.shape

    def unpack(self, out: Tensor) -> None:
        from bitsandbytes.functional import dequantize_4bit

        if out.is_cuda and out.dtype == self._state.dtype:
            dequantize_4bit(self._packed, self._state, out=out)
        else:  # bitsandbytes has no such operator elsewhere
            out.copy_(dequantize_4bit(self._packed, self._state))

    def product(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """`x @ W.T`; bitsandbytes unpacks or not, whichever is faster on the GPU for so many rows. In a type as
        `ops.linear` has it."""
        from bitsandbytes import matmul_4bit
        from bitsandbytes.functional import dequantize_4bit

        wide = dtype is not None and dtype != x.dtype  # it returns the type of x, which may not hold the product
        x = x * SHRUNK if wide else x
        made: Tensor
        if self.columns % self._state.blocksize:  # it would unpack as well, and warn of it in every product
            made = x @ dequantize_4bit(self._packed, self._state).to(x.dtype).T
        else:
            made = matmul_4bit(x, self._packed, self._state)
        return made.to(dtype) / SHRUNK if wide else made


class PlainWeight:
    """An unquantized weight."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module
        self.rows, self.columns = module.weight.shape

    def unpack(self, out: Tensor) -> None:
        out.copy_(self.module.weight)


def weights_of(modules: Sequence[nn.Module]) -> list[Weight]:
    """The weights of a projection's layers, however they are stored.

    Raises:
        TypeError: bitsandbytes and torch are known, nothing else.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    if all(isinstance(module, Linear8bitLt) for module in modules):
        return [Int8Weight(modules)]
    if all(isinstance(module, Linear4bit) for module in modules):
        return [Nf4Weight(module) for module in modules]
    if all(type(module) is nn.Linear for module in modules):
        return [PlainWeight(module) for module in modules if isinstance(module, nn.Linear)]
    raise TypeError(", ".join(type(module).__name__ for module in modules))
