"""Which columns stay in 16 bits where products run on int8 tensor cores. Imports torch.

Outliers of language models sit in the same few columns whatever is read, so they are looked for once, in a text of
random tokens, with the base model alone. A resumed run must choose as the first one did: nothing here depends on the
adapter, on what is learned from, or on the micro-batch.
"""

from __future__ import annotations

import torch

from tasks.backends.fused import inference
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.projection import Int8Projection, Projection

SEQUENCES, TOKENS = 4, 256
"""Of random text; a sequence is no longer than those that are learned from."""


@torch.no_grad()
def calibrate(model: FusedModel) -> None:
    """Choose the columns of every product."""
    generator = torch.Generator().manual_seed(0)
    shape = SEQUENCES, min(TOKENS, len(model.geometry.angles[0]))
    observe(model, torch.randint(model.embedding.shape[0], shape, generator=generator))


@torch.no_grad()
def observe(model: FusedModel, ids: torch.Tensor) -> None:
    """Choose the columns of every product by what these tokens (sequences × tokens) make of them."""

    def product(projection: Projection, x: torch.Tensor) -> torch.Tensor:
        if isinstance(projection, Int8Projection):
            projection.calibrate(x)
        return projection.forward(x, adapted=False)

    shape = ids.shape[0], ids.shape[1]
    inference.stream(
        model,
        ids.flatten().to(model.embedding.device),
        product,
        lambda _, qkv: inference.attention(model.geometry, qkv, shape),
    )
