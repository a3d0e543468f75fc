"""Losses and answers with and without the adapter, on the weights that training uses. Imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch.nn.functional import pad

from tasks.backends.contract import Decoding
from tasks.backends.fused.decoding import Decoder
from tasks.backends.fused.ops import IGNORED


class FusedInference:
    """Both sides of one decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    @contextmanager
    def side(self, *, adapted: bool) -> Iterator[FusedSide]:
        yield FusedSide(self._decoder, adapted=adapted)


class FusedSide:
    """One of them."""

    def __init__(self, decoder: Decoder, *, adapted: bool) -> None:
        self._decoder, self._adapted = decoder, adapted

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        following = pad(ids.masked_fill(~counts, IGNORED)[:, 1:], (0, 1), value=IGNORED)
        return self._decoder.losses(ids, following, adapted=self._adapted).double().sum(1)

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        return self._decoder.generate(prompts, decoding, adapted=self._adapted, done=done)
