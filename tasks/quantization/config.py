"""The settings of the stage. The pipeline derives them: `training.quantization` and the plan's device."""

from __future__ import annotations

from typing import Literal

from artifacts.configuration import Config


class QuantizationConfig(Config):
    """What the base model's linear layers become."""

    quantization: Literal["int8", "nf4"]
    """As in training. `none` needs no artifact: the model's own folder serves."""
    device: Literal["cuda", "cpu"]
    """Where it is computed. Part of the key: bitsandbytes' kernels for the two may round ties differently."""
