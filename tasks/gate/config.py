"""What a promotion rests on."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from artifacts.configuration import Config, Real, Seed
from artifacts.schema import Question

ASKED: dict[Question, str] = {
    "improved": "is better on this code",
    "specific": "gained more on this code than on code from elsewhere",
    "retention": "kept what it could do",
}
"""What each question asks of the tuned model."""


class GateConfig(Config):
    """When a tuned model is promoted. Fixed before the run: afterwards a reason is always found."""

    requires: tuple[Question, ...] = ("improved", "specific", "retention")
    """What must be shown: that the model is better on this code (`improved`), that it gained more there than on code
    from elsewhere (`specific`), that it kept what it could do (`retention`). What is required and was not
    measured holds the model."""
    decided_by: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        ("loss", "specific_loss", "retention_loss", "*_pass"), min_length=1
    )
    """Metrics that a promotion rests on, by name or pattern (`*_pass`: the functional suites). The others can only
    object, by having regressed, and `specific_*` not even so: each of the two changes that they compare is judged by
    itself. Few: of twenty figures, one is beyond its 95 % interval by chance."""
    tolerance: Real = Field(0.25, ge=0, lt=1)
    """What a challenger may lose of what the champion gained, on held-out figures, as a share: at 0.25 it is not worse
    when the interval of their difference leaves out a loss of a quarter of the champion's gain over its base. Elsewhere
    the evaluation's margins hold."""
    seed: Seed = 0
    """Of the draws for the comparison with the champion."""
