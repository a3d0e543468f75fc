"""How what the models made is judged."""

from __future__ import annotations

from pydantic import Field

from artifacts.configuration import Config, Real, Seed, Share, Whole


class Margins(Config):
    """How much may be lost outside the fine-tuned domain. The model kept a skill when the whole interval of its loss
    lies below the margin. Fix them before the run: afterwards anything can be called small."""

    loss: Real = Field(0.05, ge=0, le=100)
    """Of the loss on the retention set, nats per token."""
    similarity: Share = 0.02
    """Of edit similarity, as a share: 0.02 are two percentage points."""
    exact_match: Share = 0.05
    """Of exact matches, as a share of the prompts."""
    functional: Share = 0.05
    """Of programs that pass, as a share of the problems."""


class EvaluationConfig(Config):
    """How base and tuned are compared."""

    margins: Margins = Field(default_factory=Margins)
    """What may be lost where the model should have kept what it could do."""
    seed: Seed = 0
    """Chooses the draws for the intervals, and which samples are shown beside the best and the worst."""
    resamples: Whole = Field(10_000, ge=2_000, le=100_000)
    """Draws of clusters for the intervals; with few clusters all subsets are used instead."""
    samples: Whole = Field(9, ge=0, le=1000)
    """Completions shown in the report: a third of them the best, the worst, and random ones. As many programs beside
    them, where functional suites were asked."""
