"""Base and tuned as one loaded model, the adapter switched off and on, computed as the plan says."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from artifacts.schema import Engine, Plan, Quantization
from tasks.models.loading import attach_adapter, load_base

if TYPE_CHECKING:
    from peft import PeftModel

    from tasks.engine.decoding import Decoder
    from tasks.generation.sides import Computing

log = logging.getLogger(__name__)

Side = Literal["base", "again", "tuned"]
SIDES: tuple[Side, ...] = ("base", "again", "tuned")
"""In the order of measuring. `again` is the base model a second time: what it differs by from the first is noise."""


class Pair:
    """Both models. Release it when done: a 7B takes half of a small card.

    Args:
        length: the longest text in tokens that they will see, answers included.
    """

    def __init__(self, folder: Path, adapter: Path, quantization: Quantization, plan: Plan, length: int) -> None:
        self._tuned: PeftModel | None = attach_adapter(load_base(folder, quantization, plan), adapter)
        self._decoder = _decoder(self._tuned, length) if plan.engine == "fused" else None
        self.engine: Engine = "fused" if self._decoder else "stock"

    @contextmanager
    def side(self, side: Side) -> Iterator[Computing]:
        """One of them, until the block ends.

        Switched off, a LoRA layer calls its base layer and nothing else (`peft.tuners.lora.layer.Linear.forward`), so
        base computes exactly what a model without adapter does.
        """
        from tasks.generation.sides import Fused, Stock

        assert self._tuned is not None, "the models were released"
        if self._decoder:
            yield Fused(self._decoder, adapted=side == "tuned")
            return
        with ExitStack() as stack:
            if side != "tuned":
                stack.enter_context(self._tuned.disable_adapter())
            yield Stock(self._tuned.get_base_model())

    def release(self) -> None:
        """Give the memory back."""
        import torch

        self._tuned = self._decoder = None
        gc.collect()  # peft's wrappers hold each other
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _decoder(tuned: PeftModel, length: int) -> Decoder | None:
    """The engine on this model; None where it cannot run it."""
    from tasks.engine.decoding import Decoder, unsupported

    reason = unsupported(tuned)
    if reason:
        log.info("evaluated with the libraries' modules instead of the engine: %s", reason)
        return None
    return Decoder(tuned, length)


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
