"""Base and tuned as one loaded model, the adapter switched off and on."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from artifacts.schema import Plan, Quantization
from tasks.loading import attach_adapter, load_base

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

Side = Literal["base", "tuned"]
SIDES: tuple[Side, ...] = ("base", "tuned")


class Pair:
    """Both models. Release it when done: a 7B takes half of a small card."""

    def __init__(self, folder: Path, adapter: Path, quantization: Quantization, plan: Plan) -> None:
        self._tuned: PeftModel | None = attach_adapter(load_base(folder, quantization, plan), adapter)

    @contextmanager
    def side(self, side: Side) -> Iterator[PreTrainedModel]:
        """The model, computing as base or as tuned until the block ends.

        Switched off, a LoRA layer calls its base layer and nothing else (`peft.tuners.lora.layer.Linear.forward`), so
        base computes exactly what a model without adapter does.
        """
        assert self._tuned is not None, "the models were released"
        with ExitStack() as stack:
            if side == "base":
                stack.enter_context(self._tuned.disable_adapter())
            yield self._tuned.get_base_model()

    def release(self) -> None:
        """Give the memory back."""
        import torch

        self._tuned = None
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
