"""How both models answer."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Batch, Config, Real, Threads
from artifacts.schema import Quantization


class GenerationConfig(Config):
    """How base and tuned answer. What they are asked is set in `prompts`, how it is judged in `evaluation`."""

    quantization: Quantization = "int8"
    """What both models' base weights are quantized to; as in training, unless set otherwise."""
    repeated: Real = Field(1.0, gt=0, le=1)
    """Share of chunks and prompts, of each suite evenly from first to last, that the base model is put through a second
    time: the noise floor."""
    batch_size: Batch = 32
    """Sequences computed at once. Fewer need less memory; the last bits of the results depend on it."""
    cpu_threads: Threads = 2
    """Threads of a run on the CPU; part of what decides the bits there, as in training."""
