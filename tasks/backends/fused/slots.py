"""Sequences that are being continued, in memory that stays where it is, and the step that gives each one more token.

A slot is a row of everything here. Its text begins at position 0, and a key or value of a position is written once it
is computed, over whatever stood there: neither padding nor what the slot held before is ever looked at.

A finished slot goes on computing and changes nothing, so that a step has one shape and can be recorded as one CUDA
graph; its place is given to another prompt between steps.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tasks.backends.fused import inference, ops
from tasks.backends.fused.capture import record
from tasks.backends.fused.model import FusedModel

Tensor = torch.Tensor


class Slots:
    """The state of `rows` sequences of at most `capacity` tokens, prompt and answer together.

    Args:
        limit: most new tokens of a sequence.
        stop: tokens that end one; they are part of it.
    """

    def __init__(self, model: FusedModel, rows: int, capacity: int, limit: int, stop: Sequence[int]) -> None:
        geometry, like = model.geometry, model.embedding
        self.capacity, self.limit = capacity, limit
        shape = (rows, capacity, 2, geometry.kv_heads, geometry.head_width)
        # zeros: what is masked must still be a number
        self.cache = [torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in model.layers]
        numbers = {"dtype": torch.long, "device": like.device}
        self.tokens = torch.zeros(rows, **numbers)  # type: ignore[call-overload]
        """The last token of each, whose keys and values are computed next."""
        self.positions = torch.zeros(rows, **numbers)  # type: ignore[call-overload]
        """Where it stands."""
        self.counts = torch.zeros(rows, **numbers)  # type: ignore[call-overload]
        """New tokens so far."""
        self.answers = torch.zeros((rows, limit), **numbers)  # type: ignore[call-overload]
        self.running = torch.zeros(rows, dtype=torch.bool, device=like.device)
        self._starts = torch.arange(rows, device=like.device) * capacity
        self._stops = torch.zeros(model.head.shape[0], dtype=torch.bool, device=like.device)
        self._stops[[token for token in stop if token < len(self._stops)]] = True

    def begin(self, rows: Tensor, lengths: Tensor, tokens: Tensor, may_end: Tensor) -> None:
        """Prompts of `lengths` tokens are in `rows` of the cache; `tokens` are the first that follow, and end a text
        where they may and are stop tokens."""
        self.tokens[rows], self.positions[rows], self.counts[rows] = tokens, lengths, 1
        self.answers[rows, 0] = tokens
        self.running[rows] = ~(self._stops[tokens] & may_end) & (self.limit > 1)

    def append(self, found: Tensor) -> None:
        """Take the next token of each sequence that is not finished."""
        place = self.counts.clamp(max=self.limit - 1)[:, None]
        self.answers.scatter_(1, place, torch.where(self.running, found, self.answers.gather(1, place)[:, 0])[:, None])
        self.tokens.copy_(torch.where(self.running, found, self.tokens))
        self.counts += self.running
        self.positions += self.running
        self.running &= ~self._stops[self.tokens] & (self.counts < self.limit)

    def write(self, number: int, keys_and_values: Tensor) -> None:
        """Into the cache of a layer, at every row's position; rows × what a position has."""
        self.cache[number].view(-1, keys_and_values.shape[1]).index_copy_(
            0, self._starts + self.positions, keys_and_values
        )


class DecodingStep:
    """One more token for every slot; recorded where that is possible, else kernel by kernel.

    Slots may be filled already: a step with nothing running, as recording takes it, leaves them as they are.
    """

    def __init__(self, model: FusedModel, slots: Slots, *, adapted: bool) -> None:
        self._model, self._slots = model, slots
        few = ops.few(slots.tokens[:, None])
        self._linear = inference.reading(adapted) if few else inference.unpacking(adapted)
        self._graph: torch.cuda.CUDAGraph | None = None
        if slots.tokens.is_cuda:
            self._record()

    @property
    def captured(self) -> bool:
        return self._graph is not None

    @torch.no_grad()
    def run(self) -> None:
        """Nothing here waits for the GPU."""
        if self._graph is not None:
            self._graph.replay()
        else:
            self.compute()

    @torch.no_grad()
    def compute(self) -> None:
        """Kernel by kernel."""
        slots, geometry = self._slots, self._model.geometry

        def attend(number: int, qkv: Tensor) -> Tensor:
            q = inference.rotated(geometry, qkv, 1, slots.positions)
            slots.write(number, inference.written(geometry, qkv))
            return ops.cached_attention(q, slots.cache[number], slots.positions)

        made, residual = inference.stream(self._model, slots.tokens, self._linear, attend)
        slots.append(inference.logits(self._model, made, residual).argmax(-1))

    def _record(self) -> None:
        running = self._slots.running
        before = running.clone()
        running.zero_()
        try:
            self._graph = record(self._model, self.compute, warm_up=1)
        finally:
            running.copy_(before)
