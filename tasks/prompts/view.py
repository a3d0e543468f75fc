"""What there is to see of what is asked: how much, and what was left out."""

from __future__ import annotations

from collections import Counter

from artifacts.escaping import quoted
from artifacts.presentation import Block, Section, Table, Text
from artifacts.schema import PromptSet

MOST_OVERLAPS = 20
"""Overlaps listed by name."""
_NAMES = {"held_out": "held-out files", "retention": "files from elsewhere"}


def sections(handle: PromptSet) -> list[Section]:
    """How much is asked, and what stands in the training data."""
    rows = [("chunks whose loss is measured", f"{handle.losses.rows:,}")]
    rows += [(f"prompts, {quoted(suite.name)}", f"{suite.rows:,}") for suite in handle.suites]
    blocks: list[Block] = [Table(("of base, base again and tuned", ""), tuple(rows))]
    if handle.notes:
        blocks.append(Text("\n".join(f"- {quoted(note)}" for note in handle.notes)))
    found = [Section("prompts", "What the models are asked", tuple(blocks))]
    return [*found, _contamination(handle)] if handle.looked_at else found


def _contamination(handle: PromptSet) -> Section:
    counts = Counter(one.domain for one in handle.contaminated)
    said = "; ".join(
        f"{_NAMES.get(domain, domain)}: {counts[domain]:,} of {total:,}" for domain, total in handle.looked_at.items()
    )
    text = (
        f"Looked for in the training data, and left out where most of it stands in one training file. {quoted(said)}."
    )
    rows = tuple(
        (_NAMES.get(one.domain, one.domain), f"`{one.item}`", one.kind, f"`{one.document}`", f"{one.share:.0%}")
        for one in handle.contaminated[:MOST_OVERLAPS]
    )
    more = len(handle.contaminated) - len(rows)
    columns = ("", "left out", "how", "stands in", "share")
    table = [Table(columns, rows, f"And {more:,} more." if more else "")] if rows else []
    return Section("contamination", "What was contaminated", (Text(text), *table))
