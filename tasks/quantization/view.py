"""What there is to see of a quantized base model."""

from __future__ import annotations

from artifacts.presentation import Section, Table
from artifacts.schema import QuantizedBase, WeightGroup


def sections(handle: QuantizedBase) -> list[Section]:
    """What was quantized, what was not, and what that saves."""
    columns = ("", "kept as", "tensors", "parameters", "published, MB", "in the store, MB")
    rows = (_row("linear layers", handle.quantization, handle.linear), _row("all else", "published", handle.other))
    saved = 1 - handle.weight_bytes / max(1, handle.original_bytes)
    caption = f"Loaded {saved:.0%} smaller than published, by every stage that computes with {handle.quantization}."
    return [Section("base", "Quantized base model", (Table(columns, rows, caption),))]


def _row(what: str, kept: str, group: WeightGroup) -> tuple[str, ...]:
    sizes = (f"{size / 1e6:,.1f}" for size in (group.original_bytes, group.bytes))
    return what, kept, f"{group.tensors:,}", f"{group.parameters:,}", *sizes
