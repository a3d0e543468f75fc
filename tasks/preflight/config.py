"""The job as preflight sees it: the few settings of the other stages that decide what it costs."""

from __future__ import annotations

from typing import Literal

from artifacts import digest
from artifacts.schema import Quantization, Record


class JobShape(Record):
    """What will be trained and how large it is, without the data."""

    quantization: Quantization = "int8"
    lora_rank: int = 8
    lora_target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Names as PEFT takes them: the end of a module's dotted name. `("all-linear",)` for every linear layer."""
    lora_dropout: float = 0.0
    """Share of an adapter's inputs that is dropped in training."""
    max_length: int = 256
    """Tokens in a sequence."""
    format: Literal["causal", "fim", "instruct"] = "causal"
    effective_batch: int = 4
    """Sequences in one optimizer step."""
    micro_batch: int | Literal["auto"] = "auto"
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    processes: int | Literal["auto"] = 1
    """Processes that train together."""
    engine: Literal["auto", "stock", "fused"] = "auto"
    max_steps: int = 200
    """Optimizer steps."""
    sample_files: int = 2000
    """Source files that sampling will write to the store."""
    exports_merged: bool = True
    """Whether the merged fp16 model will be written."""

    @property
    def fingerprint(self) -> str:
        return digest.of_json(self.model_dump(mode="json"))

    @property
    def step_tokens(self) -> int:
        """Tokens in one optimizer step, padding included."""
        return self.effective_batch * self.max_length
