"""What is measured, on how much, and how."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Config
from artifacts.schema import Quantization


class EvaluationConfig(Config):
    """How base and tuned are compared."""

    quantization: Quantization = "int8"
    """What both models' base weights are quantized to; as in training, unless set otherwise."""
    seed: int = 0
    """Chooses the chunks, the lines, the samples shown and the draws for the intervals."""
    max_chunks: int = Field(400, ge=1)
    """Held-out chunks whose loss is measured, spread evenly over the repositories."""
    line_prompts: int = Field(200, ge=0)
    """Lines to complete from the text before them; 0 leaves the suite out."""
    fim_prompts: int = Field(200, ge=0)
    """Lines to fill in between the text before and after them; 0 leaves the suite out."""
    prompt_tokens: int = Field(256, ge=16)
    """Longest prompt in tokens, special ones included; what lies farthest from the gap is cut off."""
    max_new_tokens: int = Field(48, ge=4)
    """Longest answer in tokens. Lines that would not fit are not asked for."""
    batch_size: int = Field(32, ge=1)
    """Sequences computed at once. Fewer need less memory; the last bits of the results depend on it."""
    resamples: int = Field(10_000, ge=2_000)
    """Draws of clusters for the intervals; with few clusters all subsets are used instead."""
    samples: int = Field(6, ge=0)
    """Completions shown in the report."""
    cpu_threads: int = Field(2, ge=1)
    """Threads of a run on the CPU; part of what decides the bits there, as in training."""
