"""The settings of the stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from artifacts.configuration import Config, Real, Tokens
from artifacts.schema import Quantization


def _known(name: str) -> str:
    from tasks.exporting.forms import NAMES

    if name not in NAMES[1:]:
        raise ValueError(f"there is no form of that name beside the adapter; there are: {', '.join(NAMES[1:])}")
    return name


FormName = Annotated[str, AfterValidator(_known)]


class ExportingConfig(Config):
    """In which forms the trained model is handed over, and how closely they must agree with it."""

    forms: tuple[FormName, ...] = ("merged",)
    """What is written beside the adapter: `merged`, the whole model in fp16. `[]`: the adapter alone."""
    quantization: Quantization = "int8"
    """What the base weights were quantized to in training: the adapter is compared on the same."""
    max_shard_gb: Real = Field(2.0, ge=1e-6, le=1e6)
    """Size above which the merged weights go to another file, 10⁹ bytes. A larger single tensor has its own file."""
    positions: Tokens = Field(512, ge=1)
    """Token positions of held-out text at which logits are compared."""
    adapter_bound: Real = Field(1e-4, ge=0, le=1000)
    """How far a logit of the reloaded adapter may be from the trained model's, on the same quantized base."""
    merged_tolerance: Real = Field(0.004, ge=0, le=1)
    """How far a logit of the merged model may be from that of unquantized base and adapter, as a share of the largest
    logit; on a GPU five times as far. Rounding a weight to fp16 once changes it by up to 0.0005 of its value, and
    errors add up over the layers."""
