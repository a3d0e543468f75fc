"""What there is to see of the generations: how many, and how fast."""

from __future__ import annotations

from artifacts.presentation import Block, Section, Table, Text
from artifacts.schema import Generations


def sections(handle: Generations) -> list[Section]:
    """Counts and speed. What the answers are worth is the evaluation's to say."""
    rows = [("chunks whose loss was measured", f"{handle.losses:,}"), ("prompts", f"{handle.completions:,}")]
    rows += [(f"problems of {suite.name}", f"{suite.problems:,}") for suite in handle.functional]
    if handle.speed:
        rows += [
            ("completions/s", f"{handle.speed.completions_per_second:,.1f}"),
            ("tokens/s", f"{handle.speed.tokens_per_second:,.0f}"),
        ]
    blocks: list[Block] = [Table(("base, base again and tuned", ""), tuple(rows))]
    if handle.notes:
        blocks.append(Text("\n".join(f"- {note}" for note in handle.notes)))
    return [Section("generations", "What the models were put through", tuple(blocks))]
