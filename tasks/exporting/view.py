"""What there is to see of an exported model."""

from __future__ import annotations

import json

from artifacts.escaping import code, quoted
from artifacts.presentation import Code, Section, Table, Text
from artifacts.schema import Comparison, ExportedModel
from tasks.exporting.adapter import CONFIG
from tasks.exporting.card import Form, loading_lines


def sections(handle: ExportedModel) -> list[Section]:
    """Where the exports are, how large, how exact, and the lines that load them."""
    rows = [_row("LoRA adapter", handle, "adapter", handle.adapter_bytes, handle.adapter_comparison)]
    if handle.merged_comparison:
        rows.append(_row("merged, fp16", handle, "merged", handle.merged_bytes, handle.merged_comparison))
    columns = ("export", "folder in it", "size", "largest difference of a logit", "allowed", "positions")
    caption = "; ".join(_against(handle))
    place = Text(f"In {code(handle.path)}")
    blocks = (
        place,
        Table(columns, tuple(rows), quoted(caption[:1].upper() + caption[1:] + ".")),
        Code(_lines(handle), "python"),
    )
    return [Section("model", "Exported model", blocks)]


def _row(title: str, handle: ExportedModel, form: Form, size: int, comparison: Comparison) -> tuple[str, ...]:
    difference, bound = f"{comparison.largest_difference:.2g}", f"{comparison.bound:.2g}"
    return title, f"`{form}`", _bytes(size), difference, bound, f"{comparison.positions:,}"


def _against(handle: ExportedModel) -> list[str]:
    found = (handle.adapter_comparison, handle.merged_comparison)
    return [comparison.against for comparison in found if comparison]


def _lines(handle: ExportedModel) -> str:
    form: Form = "merged" if handle.merged_comparison else "adapter"
    settings = json.loads((handle.path / "adapter" / CONFIG).read_text(encoding="utf-8"))
    base, revision = settings["base_model_name_or_path"], settings.get("revision")
    lines = loading_lines(base, revision, form, "FOLDER").replace('"FOLDER"', "folder")
    return f"folder = {json.dumps(str(handle.path / form), ensure_ascii=False)}\n\n{lines}"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
