"""Losses and answers of a loaded model by the libraries' modules. Imports torch: import it inside functions only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch
from torch.nn.functional import cross_entropy

from tasks.backends.contract import Decoding
from tasks.backends.transformers.answers import generate

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class TransformersInference:
    """A model as PEFT wraps it.

    Switched off, a LoRA layer calls its base layer and nothing else (`peft.tuners.lora.layer.Linear.forward`), so base
    computes exactly what a model without adapter does.
    """

    def __init__(self, model: PeftModel) -> None:
        self._model = model

    @contextmanager
    def side(self, *, adapted: bool) -> Iterator[Modules]:
        with ExitStack() as stack:
            if not adapted:
                stack.enter_context(self._model.disable_adapter())
            yield Modules(self._model.get_base_model())


class Modules:
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
