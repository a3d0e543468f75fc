"""Loading a causal language model as the job wants it: quantized, frozen, on its device, with or without adapter.

The same function serves training, exporting and evaluation, so that base and tuned are always computed alike.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from artifacts.schema import Plan, Quantization

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


def load_base(folder: Path, quantization: Quantization, plan: Plan) -> PreTrainedModel:
    """The base model on `plan.device`, weights quantized, every parameter frozen, in eval mode."""
    raise NotImplementedError


def attach_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """The model with a trained LoRA adapter (`Checkpoint.path / "adapter"`), frozen, adapter weights in fp32."""
    raise NotImplementedError
