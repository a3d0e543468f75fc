"""What a promotion rests on."""

from __future__ import annotations

from typing import Annotated, get_args

from pydantic import AfterValidator, Field

from artifacts.configuration import Config, Real, Seed
from artifacts.schema import Question

ASKED: dict[Question, str] = {
    "improved": "is better on this code",
    "specific": "gained more on this code than on code from elsewhere",
    "retention": "kept what it could do",
}
"""What each question asks of the tuned model."""
SHIPPED = "shipped"
"""The forms of the export that are measured as well, whichever they are."""


def _known(name: str) -> str:
    from tasks.gguf.library import PREFIX, TYPES, type_of

    if name in (*get_args(Question), SHIPPED) or (name.startswith(PREFIX) and type_of(name) in TYPES):
        return name
    questions = ", ".join((*get_args(Question), SHIPPED))
    raise ValueError(f"it is none of {questions}, and no form of an export such as {PREFIX}q4_k_m")


class GateConfig(Config):
    """When a tuned model is promoted. Fixed before the run: afterwards a reason is always found."""

    requires: tuple[Annotated[str, AfterValidator(_known)], ...] = (*get_args(Question), SHIPPED)
    """What must be shown: that the model is better on this code (`improved`), that it gained more there than on code
    from elsewhere (`specific`), that it kept what it could do (`retention`), that in each form of
    `generation.forms` it is as good as it was trained (`shipped`, or forms by name: `gguf-q4_k_m`). What is required
    and was not measured holds the model, but for `shipped` where no form is to be measured."""
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

    @property
    def questions(self) -> tuple[Question, ...]:
        """Those that base against tuned answers."""
        return tuple(question for question in get_args(Question) if question in self.requires)

    @property
    def forms(self) -> tuple[str, ...]:
        """Those that are required by name."""
        return tuple(name for name in self.requires if name not in (*get_args(Question), SHIPPED))
