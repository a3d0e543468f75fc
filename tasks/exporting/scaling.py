"""The weight of the adapter in what is handed over: less of it forgets less, and mostly learns nearly as much.

Training measures the loss on validation text with several weights. `auto` takes the least that costs next to nothing
there. Nothing that evaluation judges has a part in it.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from artifacts.errors import InputError
from artifacts.schema import ValidationResult
from tasks.exporting.adapter import CONFIG, WEIGHTS, Adapter
from tasks.exporting.config import ExportingConfig

GIVEN_UP = 0.05
"""Share of what validation text gained that `auto` may give up."""


def choose_scale(config: ExportingConfig, measured: ValidationResult | None) -> float:
    """The weight of the adapter that is asked for.

    Raises:
        InputError: `auto`, and training measured nothing.
    """
    if config.adapter_scale != "auto":
        return config.adapter_scale
    if measured is None:
        raise InputError(
            "the adapter's weight is chosen by the loss on validation text, and training measured none",
            field="exporting.adapter_scale",
            remedy="set training.validation, or a number in place of auto",
        )
    best = min(one.loss for one in measured.scaled)
    gained = max(0.0, measured.loss_before - best) if measured.loss_before is not None else 0.0
    return min(one.scale for one in measured.scaled if one.loss <= best + GIVEN_UP * gained)


def scaled(adapter: Adapter, scale: float, folder: Path) -> Adapter:
    """The adapter with its effect multiplied, in `folder`: its B factors are, in fp32, which any reader understands."""
    from safetensors.torch import load_file, save_file

    folder.mkdir(parents=True)
    shutil.copyfile(adapter.folder / CONFIG, folder / CONFIG)
    weights = load_file(adapter.folder / WEIGHTS)
    is_second = {name: "lora_B" in name or "lora_embedding_B" in name for name in weights}
    multiplied = {name: weight * scale if is_second[name] else weight for name, weight in weights.items()}
    save_file(multiplied, folder / WEIGHTS, {"format": "pt"})
    return Adapter.read(folder)
