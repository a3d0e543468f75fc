"""What there is to see of a sample: where it comes from, what was dropped and why, what it holds."""

from __future__ import annotations

from artifacts.escaping import quoted
from artifacts.presentation import Section, Table, Text
from artifacts.schema import DatasetSample, RetentionSample, SplitSize
from artifacts.units import FEWEST, UNITS

_TITLES = {
    "source": "read from the source",
    "language": "in the chosen languages",
    "license": "under an allowed licence",
    "content": "readable text",
    "quality": "past the quality filters",
    "secrets": "without files dropped for secrets",
    "duplicates": "without exact duplicates",
    "choice": "chosen",
    "near-duplicates": "without near-duplicates",
    "copies": "not in the training files",
}
_WORDS = {"not among the first of the seeded order": "more than asked for, by lot"}
"""Reasons that read better in other words."""
_REASONS = 6
"""Reasons shown per step; the rest are summed."""


def sections(sample: DatasetSample) -> list[Section]:
    """What went in: the funnel, the two sides, languages and licences."""
    rows = []
    for step in sample.funnel:
        reasons = sorted(step.dropped.items(), key=lambda item: -item[1])
        shown = [f"{_WORDS.get(reason, reason)} {count:,}" for reason, count in reasons[:_REASONS]]
        if rest := sum(count for _, count in reasons[_REASONS:]):
            shown.append(f"others {rest:,}")
        dropped = f"{sum(step.dropped.values()):,}"
        rows.append((_TITLES.get(step.name, step.name), f"{step.kept:,}", dropped, ", ".join(shown)))
    caption = "Every file that was read, and where it left."
    funnel = Table(("Step", "Files left", "Dropped", "Why"), tuple(rows), caption)
    secrets = (_counts("Secret that a placeholder stands for", sample.secrets, "Times"),) if sample.secrets else ()
    words = f"Source: **{quoted(sample.source)}**"
    if sample.replay:
        words += (
            f"\n\nReplay: {sample.replay.share:.2%} of the training sequences are general code,"
            f" from **{quoted(sample.replay.source)}**"
        )
    blocks = (
        Text(words),
        funnel,
        _sides(sample),
        _counts("Language", sample.languages),
        _counts("Licence", sample.licenses),
        *secrets,
    )
    return [Section("sampling", "What went in", blocks)]


def _sides(sample: DatasetSample) -> Table:
    if isinstance(sample, RetentionSample):
        return Table(("", "Files", "Repositories", "Text"), (_side("judged by", sample.size),))
    unit, columns = UNITS[sample.held_out_by], ("Side", "Files", "Repositories", "Text")
    if sample.held_out_by == "folder":
        columns = ("Side", "Files", "Folders", "Text")
    caption = unit.whole
    if sample.added_lines:
        caption += f" {sample.added_lines:,} lines of {unit.count(sample.units or 0)} are asked for."
    if sample.held_out_by != "repository":
        caption += f" {unit.proves}"
    elif sample.units is not None and sample.units < FEWEST:
        caption += f" An interval needs {FEWEST} held-out repositories: there will be no verdict."
    replay = (_side("general code, at most", sample.replay.size),) if sample.replay else ()
    rows = (_side("trained on", sample.own), *replay, _side("held out", sample.held_out))
    return Table(columns, rows, caption)


def _side(name: str, size: SplitSize) -> tuple[str, ...]:
    return name, f"{size.files:,}", f"{size.repositories:,}", f"{size.bytes / 1e6:.1f} MB"


def _counts(head: str, counts: dict[str, int], of: str = "Files") -> Table:
    rows = sorted(counts.items(), key=lambda item: -item[1])
    return Table((head, of), tuple((name, f"{count:,}") for name, count in rows))
