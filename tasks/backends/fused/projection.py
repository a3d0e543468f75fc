"""The engine's products with frozen weights, which are unpacked to 16 bits just before, or multiplied in int8.

A `Projection` is one product: the linear layers that read the same input (q, k and v; gate and up), one below the
other. The low-rank A factors of its adapters stand below them as further rows, so that the same product gives x Aᵀ
forward and the adapters' part of the input's gradient backward, at no cost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from tasks.backends.fused import int8, ops
from tasks.backends.fused.adapters import Adapters, LoraFactors
from tasks.backends.fused.int8 import Apart, Quantized
from tasks.backends.fused.support import ALIGNED, DEPTH
from tasks.backends.fused.weights import Int8Weight, PlainWeight, weights_of

Tensor = torch.Tensor
Input = Tensor | Quantized
"""What a product reads."""


class Scratch:
    """Buffers that weights are unpacked into, and the order in which that happens.

    The weights of the next products are unpacked on a stream of their own while this one runs: unpacking is bound by
    memory, the product by arithmetic. A step uses its matrices always in the same order, which is noted in the first.

    Args:
        numbers: of the largest matrix.
        like: a tensor of the matrices' type, where they are to be.
    """

    def __init__(self, numbers: int, like: Tensor) -> None:
        on_gpu = like.is_cuda
        count = DEPTH if on_gpu else 1
        self._buffers = [torch.empty(numbers, dtype=like.dtype, device=like.device) for _ in range(count)]
        self._side = torch.cuda.Stream(priority=0) if on_gpu else None
        self._order: list[Projection] = []
        self._known = False
        self._place = 0
        self._ready: list[torch.cuda.Event] = []
        """By place in the order: what to wait for before the matrix is used."""

    def begin(self) -> None:
        """A step starts."""
        self._place, self._ready = 0, []
        if not self._known:
            self._order = []

    def end(self) -> None:
        """A step is complete: the next one goes the same way, or unpacks nothing."""
        self._known = bool(self._order)

    def join(self) -> None:
        """Have the current stream wait for all that was unpacked ahead."""
        if self._side is not None:
            torch.cuda.current_stream().wait_stream(self._side)

    def matrix(self, projection: Projection) -> Tensor:
        """The projection's weights as `Projection.unpack` writes them, until the next one is asked for."""
        place, self._place = self._place, self._place + 1
        if self._side is None or not self._known:
            self._order.append(projection)
            self._unpack(projection, 0)
            return self._buffer(projection, 0)
        assert self._order[place] is projection, "the products of a step come in a fixed order"
        # The product before this one stands in the main stream by now, and with it all that used the free buffers.
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side):
            for number in range(len(self._ready), min(place + len(self._buffers), len(self._order))):
                self._unpack(self._order[number], number)
                self._ready.append(self._side.record_event())
        torch.cuda.current_stream().wait_event(self._ready[place])
        return self._buffer(projection, place)

    def _unpack(self, projection: Projection, place: int) -> None:
        projection.unpack(self._buffer(projection, place))

    def _buffer(self, projection: Projection, place: int) -> Tensor:
        rows, columns = projection.unpacked_shape
        return self._buffers[place % len(self._buffers)][: rows * columns].view(rows, columns)


@dataclass(frozen=True)
class Adapted:
    """An adapter in its projection."""

    adapter: LoraFactors
    outputs: slice
    """Its layer's columns of the product."""
    inner: slice
    """The columns of x Aᵀ."""


class Drop:
    """One adapter's dropout, and what its forward pass leaves for the backward pass, which forgets it at its end: kept
    until the next pass it would stand in the way of that one's memory, and of a graph's."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._mask: Tensor | None = None
        self._inner: Tensor | None = None
        self._inner_grad: Tensor | None = None

    def forward(self, x: Tensor, adapter: LoraFactors, again: bool) -> Tensor:
        """dropout(x) Aᵀ, T × rank; `again` with the mask of the last time."""
        if self._mask is None or not again:
            self._mask = torch.empty(x.shape, dtype=torch.bool, device=x.device).bernoulli_(1 - self._rate)
        self._inner = self._dropped(x) @ adapter.a.T
        return self._inner

    def backward(self, dy: Tensor, adapter: LoraFactors, dx: Tensor | None) -> None:
        """The gradient of B; that of x is added to `dx`."""
        assert self._inner is not None
        torch.addmm(adapter.b_grad, dy.T, self._inner, beta=0, alpha=adapter.scale, out=adapter.b_grad)
        self._inner_grad = (dy @ adapter.b) * adapter.scale
        if dx is not None:
            dx += self._dropped(self._inner_grad @ adapter.a)

    def factor_gradient(self, x: Tensor, adapter: LoraFactors) -> None:
        """The gradient of A, after `backward`: the last that is asked for."""
        assert self._inner_grad is not None
        torch.mm(self._inner_grad.T, self._dropped(x), out=adapter.a_grad)
        self._mask = self._inner = self._inner_grad = None

    def _dropped(self, values: Tensor) -> Tensor:
        masked: Tensor = torch.ops.aten.native_dropout_backward(values, self._mask, 1 / (1 - self._rate))
        return masked


class Projection:
    """`y = x @ [W…; A…].T`, the adapters' B included; y is T × `width`, of which the first `rows` are the layers'.

    With LoRA dropout every adapter sees an input of its own: their A factors then take products of their own.

    Args:
        dtype: of y; fp32 for products that are added to a residual stream in fp32. None: that of x.
    """

    def __init__(
        self,
        modules: Sequence[nn.Module],
        adapters: Sequence[LoraFactors | None],
        flat: Adapters,
        dropout: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.dtype = dtype or flat.copies.dtype
        self.weights = weights_of(modules)
        sizes = [int(module.out_features) for module in modules]  # type: ignore[arg-type]
        self.bias = _joined([getattr(module, "bias", None) for module in modules], sizes)
        self.columns = self.weights[0].columns
        self.rows = sum(sizes)
        self.adapted = list(_places(sizes, adapters, self.rows))
        self.dropout = dropout if self.adapted else 0.0
        ranks = 0 if self.dropout else sum(adapter.rank for adapter in adapters if adapter)
        self.width = self.rows + -(-ranks // ALIGNED) * ALIGNED
        self._flat = flat
        self._drops = [Drop(self.dropout) for _ in self.adapted]
        self._scratch: Scratch | None = None
        self._storage = self._join_plain() if all(isinstance(weight, PlainWeight) for weight in self.weights) else None

    @property
    def unpacked(self) -> int:
        """Numbers of scratch that the product needs."""
        return 0 if self._storage is not None else prod(self.unpacked_shape)

    @property
    def unpacked_shape(self) -> tuple[int, int]:
        """Of what `unpack` writes."""
        return self.width, self.columns

    def use(self, scratch: Scratch) -> None:
        """Unpack into this from now on."""
        self._scratch = scratch

    def keep(self, modules: Sequence[nn.Module]) -> None:
        """Unpack the weights once and for all, in place of their quantized form, which is given up."""
        if self._storage is None:
            like = self._flat.copies
            self._storage = torch.empty((self.width, self.columns), dtype=like.dtype, device=like.device)
            self.unpack(self._storage)
            self.weights = []
            start = 0
            for module in modules:
                rows = int(module.out_features)  # type: ignore[arg-type]
                _replace(module, self._storage[start : start + rows])
                start += rows

    def normed(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Input, Tensor]:
        """`ops.rms_norm`, as this projection reads its output."""
        return ops.rms_norm(x, weight, eps, residual)

    def activated(self, gate_up: Tensor, width: int) -> Input:
        """`ops.swiglu`, as this projection reads its output."""
        return ops.swiglu(gate_up, width)

    def activated_backward(self, dout: Tensor, gate_up: Tensor) -> Quantized | None:
        """`ops.swiglu_backward`, for this projection to go on from. What is returned, `backward` takes as `made`."""
        ops.swiglu_backward(dout, gate_up)
        return None

    def forward(self, x: Input, *, again: bool = False, adapted: bool = True) -> Tensor:
        """x: T × columns. `again`: drop out what the last forward pass did. Without `adapted` the layers alone:
        T × `rows`."""
        y, x = self._product(x, adapted)
        if self.bias is not None:
            y[:, : self.rows] += self.bias
        for one, drop in zip(self.adapted, self._drops, strict=True) if adapted else ():
            inner = drop.forward(x, one.adapter, again) if self.dropout else y[:, one.inner]
            out = y[:, one.outputs]
            one.adapter.add_to(out, inner)
        return y

    def backward(
        self,
        dy: Tensor,
        xa: Tensor | None,
        x: Tensor | None,
        *,
        wants_input: bool = True,
        made: Quantized | None = None,
    ) -> Tensor | None:
        """The gradient of x, from `dy` (T × width, of which the last columns are filled in here).

        Args:
            xa: the last columns of the forward product, T × (width − rows); None to compute them again from `x`.
            x: the input; needed when `xa` is None.
            made: `dy` as `activated_backward` has made it.
        """
        if self.adapted and not self.dropout:
            if xa is None:
                assert x is not None
                xa = x @ self.inner_factors().T
            self._fill_in(dy, xa)
        dx = self._product_backward(dy, made) if wants_input else None
        if self.dropout:
            for one, drop in zip(self.adapted, self._drops, strict=True):
                drop.backward(dy[:, one.outputs], one.adapter, dx)
        return dx

    def _fill_in(self, dy: Tensor, xa: Tensor) -> None:
        """The gradients of the B factors, and those of x Aᵀ in the last columns of `dy`, where `xa` may lie."""
        for one in self.adapted:
            adapter, grad, target = one.adapter, dy[:, one.outputs], dy[:, one.inner]
            inner = xa[:, one.inner.start - self.rows : one.inner.stop - self.rows]
            torch.addmm(adapter.b_grad, grad.T, inner, beta=0, alpha=adapter.scale, out=adapter.b_grad)
            torch.addmm(target, grad, adapter.b, beta=0, alpha=adapter.scale, out=target)
        if self.adapted[-1].inner.stop < self.width:
            dy[:, self.adapted[-1].inner.stop :] = 0

    def factor_gradients(self, dy: Tensor, x: Tensor) -> None:
        """The gradients of the A factors, after `backward` has filled in `dy`; x: T × columns."""
        if not self.dropout:  # all at once: they lie next to each other, as their columns of `dy` do
            grads = self._flat.factors(self.adapted[0].adapter, self.width - self.rows, self._flat.partial)
            torch.mm(dy[:, self.rows :].T, x, out=grads)
            return
        for one, drop in zip(self.adapted, self._drops, strict=True):
            drop.factor_gradient(x, one.adapter)

    def inner_factors(self) -> Tensor:
        """[A…] with zeros up to the width: (width − rows) × columns."""
        return self._flat.factors(self.adapted[0].adapter, self.width - self.rows, self._flat.copies)

    def unpack(self, matrix: Tensor) -> None:
        """Write all weights, the A factors below them, to `matrix` (width × columns)."""
        start = 0
        for weight in self.weights:
            weight.unpack(matrix[start : start + weight.rows])
            start += weight.rows
        if self.adapted:
            matrix[self.rows :] = self.inner_factors()

    def _product(self, x: Input, adapted: bool) -> tuple[Tensor, Tensor]:
        """The product, and its input in 16 bits for the adapters."""
        assert isinstance(x, Tensor)
        matrix = self._matrix()
        return ops.linear(x, matrix if adapted else matrix[: self.rows], self.dtype), x

    def _product_backward(self, dy: Tensor, made: Quantized | None) -> Tensor:
        assert made is None
        return dy @ self._matrix()

    def _matrix(self) -> Tensor:
        if self._storage is None:
            assert self._scratch is not None
            return self._scratch.matrix(self)
        if self.adapted:
            self._storage[self.rows :] = self.inner_factors()
        return self._storage

    def _join_plain(self) -> Tensor:
        """One matrix for all layers, which from now on are views of it: no copy per product. Of a single layer as well,
        as `Int8Weight` has it."""
        modules = [weight.module for weight in self.weights if isinstance(weight, PlainWeight)]
        like = modules[0].weight
        storage = torch.empty((self.width, self.columns), dtype=like.dtype, device=like.device)
        start = 0
        for module in modules:
            part = storage[start : start + module.weight.shape[0]]
            part.copy_(module.weight.data)
            module.weight.data = part
            start += part.shape[0]
        return storage


class Int8Projection(Projection):
    """A projection whose products run on int8 tensor cores (`int8`). Scratch, and what is kept of resident layers, are
    the codes transposed, for the backward pass; the forward pass reads them as they are stored."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        adapters: Sequence[LoraFactors | None],
        flat: Adapters,
        dropout: float = 0.0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(modules, adapters, flat, dropout, dtype)
        (weight,) = self.weights
        assert isinstance(weight, Int8Weight)
        self._weight = weight
        self.calibrate(torch.zeros((1, self.columns), dtype=flat.copies.dtype, device=flat.copies.device))

    @property
    def unpacked_shape(self) -> tuple[int, int]:
        return self.columns, self.rows

    def calibrate(self, x: Tensor) -> None:
        """Keep the columns apart that are largest in `x` (T × columns)."""
        self._apart = Apart.largest(x)
        columns = self._apart.columns.clamp(min=0).long()
        values = self._weight.codes[:, columns].float() * self._weight.scales[:, None]
        self._apart_weight = values.T.to(x.dtype).contiguous()

    def keep(self, modules: Sequence[nn.Module]) -> None:
        """Transpose the codes once and for all, beside their usual form."""
        self._storage = torch.empty(self.unpacked_shape, dtype=torch.int8, device=self._weight.codes.device)
        self.unpack(self._storage)

    def normed(self, x: Tensor, weight: Tensor, eps: float, residual: Tensor | None) -> tuple[Input, Tensor]:
        return int8.rms_norm(x, weight, eps, residual, self._apart, plain=bool(self.adapted))

    def activated(self, gate_up: Tensor, width: int) -> Input:
        return int8.swiglu(gate_up, width, self._apart, plain=bool(self.adapted))

    def activated_backward(self, dout: Tensor, gate_up: Tensor) -> Quantized | None:
        return int8.swiglu_backward(dout, gate_up, self._weight.scales, plain=bool(self.adapted))

    def unpack(self, matrix: Tensor) -> None:
        """Write the codes transposed to `matrix` (columns × rows)."""
        int8.transpose(self._weight.codes, matrix)

    def _product(self, x: Input, adapted: bool) -> tuple[Tensor, Tensor]:
        read = int8.quantize(x, self._apart.factors, self._apart, x) if isinstance(x, Tensor) else x
        width = self.width if adapted else self.rows
        y = self._flat.copies.new_empty((len(read.codes), width), dtype=self.dtype)
        int8.product(read, self._weight.codes, self._weight.scales, y[:, : self.rows], read.apart, self._apart_weight)
        if width > self.rows:
            assert read.plain is not None
            y[:, self.rows :] = ops.linear(read.plain, self.inner_factors(), self.dtype)
        return y, y if read.plain is None else read.plain  # nothing reads it where there is no adapter

    def _product_backward(self, dy: Tensor, made: Quantized | None) -> Tensor:
        gradient = int8.quantize(dy, self._weight.scales) if made is None else made
        transposed = self._storage
        if transposed is None:
            assert self._scratch is not None
            transposed = self._scratch.matrix(self)
        dx = dy.new_empty((len(dy), self.columns))
        low = (dy[:, self.rows :], self.inner_factors()) if self.width > self.rows else (None, None)
        int8.product(gradient, transposed, None, dx, *low)
        return dx


def _replace(module: Any, matrix: Tensor) -> None:
    """Let go of a layer's quantized weight."""
    module.weight.data = matrix
    for holder in (module.weight, getattr(module, "state", None)):
        for name in ("CB", "SCB"):
            if getattr(holder, name, None) is not None:
                setattr(holder, name, None)


def _places(sizes: Sequence[int], adapters: Sequence[LoraFactors | None], rows: int) -> Iterator[Adapted]:
    start, inner = 0, rows
    for size, adapter in zip(sizes, adapters, strict=True):
        if adapter:
            yield Adapted(adapter, slice(start, start + size), slice(inner, inner + adapter.rank))
            inner += adapter.rank
        start += size


def _joined(biases: Sequence[Tensor | None], sizes: Sequence[int]) -> Tensor | None:
    """Biases side by side, zeros for a layer that has none; None when no layer has one."""
    known = next((bias for bias in biases if bias is not None), None)
    if known is None:
        return None
    parts = [known.new_zeros(size) if bias is None else bias.data for bias, size in zip(biases, sizes, strict=True)]
    return torch.cat(parts)
