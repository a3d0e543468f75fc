"""The names of the stages, in the order in which a run goes through them."""

from __future__ import annotations

from typing import Literal, get_args

StageName = Literal[
    "preflight",
    "sampling",
    "retention",
    "tokenization",
    "retention-tokens",
    "prompts",
    "quantization",
    "training",
    "exporting",
    "generation",
    "execution",
    "evaluation",
    "shipped-generation",
    "shipped-execution",
    "shipped-evaluation",
    "gate",
    "reporting",
]

STAGES: tuple[StageName, ...] = get_args(StageName)
SHIPPED: tuple[StageName, ...] = ("shipped-generation", "shipped-execution", "shipped-evaluation")
"""Those of a run that measures a form of the export as well."""
