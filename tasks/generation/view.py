"""What there is to see of the generations: how many, and how fast."""

from __future__ import annotations

from artifacts.presentation import Section, Table
from artifacts.schema import Generations


def sections(handle: Generations) -> list[Section]:
    """Counts and speed. What the answers are worth is the evaluation's to say."""
    rows = [("chunks whose loss was measured", f"{handle.losses:,}"), ("prompts", f"{handle.completions:,}")]
    if handle.speed:
        rows += [
            ("completions/s", f"{handle.speed.completions_per_second:,.1f}"),
            ("tokens/s", f"{handle.speed.tokens_per_second:,.0f}"),
        ]
    table = Table(("base, base again and tuned", ""), tuple(rows))
    return [Section("generations", "What the models were put through", (table,))]
