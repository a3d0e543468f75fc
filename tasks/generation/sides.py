"""What computes one side's losses and answers: the libraries' modules, or the engine that training used.

Imports torch: import it inside functions only.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch.nn.functional import cross_entropy, pad

from tasks.engine.decoding import Decoder, Settings
from tasks.engine.ops import IGNORED
from tasks.generation.answers import Decoding, generate

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Computing(Protocol):
    """Base or tuned, ready to compute."""

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        """Summed negative log-likelihood of each sequence's counted tokens, in nats: float64 by row, from fp32.

        Args:
            ids: sequences × tokens, padded on the right, where no token before it can see it.
            counts: for each token, whether predicting it from those before counts; not so for the first.
        """

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        """As `answers.generate`."""


class Stock:
    """The modules of transformers, PEFT and bitsandbytes."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        ids, counts = ids.to(self.model.device), counts.to(self.model.device)
        with torch.inference_mode():
            logits = self.model(input_ids=ids, use_cache=False).logits
            sums = []
            for row in range(len(ids)):
                loss = cross_entropy(logits[row, :-1].float(), ids[row, 1:], reduction="none")
                sums.append(loss[counts[row, 1:]].double().sum())
            return torch.stack(sums)

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        return generate(self.model, prompts, decoding, done)


class Fused:
    """The engine, on the same weights."""

    def __init__(self, decoder: Decoder, *, adapted: bool) -> None:
        self._decoder, self._adapted = decoder, adapted

    def losses(self, ids: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
        following = pad(ids.masked_fill(~counts, IGNORED)[:, 1:], (0, 1), value=IGNORED)
        return self._decoder.losses(ids, following, adapted=self._adapted).double().sum(1)

    def generate(
        self, prompts: Sequence[Sequence[int]], decoding: Decoding, done: Callable[[int], None]
    ) -> list[list[int]]:
        settings = Settings(decoding.batch_size, decoding.max_new_tokens, decoding.stop, decoding.ended, decoding.first)
        return self._decoder.generate(prompts, settings, adapted=self._adapted, done=done)
