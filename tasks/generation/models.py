"""Base and tuned as one loaded model, the adapter switched off and on, computed as the plan says."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

from artifacts.errors import InputError
from artifacts.schema import Plan, Quantization
from tasks import backends
from tasks.backends.contract import Computing, Inference
from tasks.models.files import ADAPTER
from tasks.models.loading import attach_adapter, load_base

Side = Literal["base", "again", "tuned"]
SIDES: tuple[Side, ...] = ("base", "again", "tuned")
"""In the order of measuring. `again` is the base model a second time: what it differs by from the first is noise."""


class Pair:
    """Both models, loaded. Release it when done: a 7B takes half of a small GPU."""

    backend = ""
    """What computes; known once it is prepared."""

    def __init__(self, folder: Path, adapter: Path, quantization: Quantization, plan: Plan) -> None:
        self._folder, self._adapter, self._plan = folder, adapter, plan
        self._tuned: Any = attach_adapter(load_base(folder, quantization, plan), adapter)
        self._inference: Inference | None = None

    def prepare(self, length: int) -> None:
        """Get ready for texts of so many tokens, answers included, as if nothing had been computed before: what is
        answered to one suite depends on no other."""
        self._inference = None
        gc.collect()
        for backend in (backends.get(self._plan.backend), backends.BACKENDS[-1]):
            if found := backend.inference(self._tuned, length):
                self.backend, self._inference = backend.name, found
                return

    def side(self, side: Side) -> AbstractContextManager[Computing]:
        """One of them, until the block ends."""
        assert self._inference is not None, "the models were not prepared, or were released"
        return self._inference.side(adapted=side == "tuned")

    def check(self, side: Side, ids: Sequence[int]) -> None:
        """See that one of them computes numbers on a text: what is none has no greatest, and would be answered as
        nothing, or as anything.

        Raises:
            InputError: it does not.
        """
        import torch

        counts = torch.ones((1, len(ids)), dtype=torch.bool)
        counts[0, 0] = False
        with self.side(side) as computing:
            loss = float(computing.losses(torch.tensor([list(ids)]), counts)[0])
        if math.isfinite(loss):
            return
        file, why, remedy = (
            (
                self._adapter / ADAPTER,
                "its factors or lora_alpha are",
                "run the training again with a lower learning rate",
            )
            if side == "tuned"
            else (self._folder, "its weights are", "take another base model")
        )
        if self._plan.precision == "fp16" and not self._plan.fp32_residual:
            remedy += ", or compute with numbers beyond fp16's: preflight.fp32_residual=true"
        raise InputError(
            f"{file} cannot be used: the loss of the {side} model is {loss}, so {why} damaged or too large",
            field="MODEL",
            remedy=f"copy it again, or {remedy}",
        )

    def release(self) -> None:
        """Give the memory back."""
        import torch

        self._tuned = self._inference = None
        gc.collect()  # peft's wrappers hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Compute with so many threads: sums split otherwise have other last bits."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
