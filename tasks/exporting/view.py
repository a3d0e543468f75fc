"""What there is to see of an exported model."""

from __future__ import annotations

import json

from artifacts.escaping import code, quoted
from artifacts.presentation import Code, Section, Table, Text
from artifacts.schema import ExportedForm, ExportedModel
from tasks.exporting.forms import get


def sections(handle: ExportedModel) -> list[Section]:
    """Where the exports are, how large, how exact, and the lines that load the last of them."""
    columns = ("export", "folder in it", "size", "largest difference of a logit", "allowed", "positions")
    caption = "; ".join(form.comparison.against for form in handle.forms)
    table = Table(columns, tuple(map(_row, handle.forms)), quoted(caption[:1].upper() + caption[1:] + "."))
    form = get(handle.forms[-1].name)
    lines = form.loading_lines(handle.base_model, handle.base_revision, "FOLDER").replace('"FOLDER"', "folder")
    lines = f"folder = {json.dumps(str(handle.path / form.name), ensure_ascii=False)}\n\n{lines}"
    where = f"In {code(handle.path)}"
    if handle.adapter_scale != 1:
        where += f"; the adapter's effect is {handle.adapter_scale:g} times what was trained, in every form"
    return [Section("model", "Exported model", (Text(where), table, Code(lines, "python")))]


def _row(form: ExportedForm) -> tuple[str, ...]:
    found = form.comparison
    difference, bound = f"{found.largest_difference:.2g}", f"{found.bound:.2g}"
    return get(form.name).title, f"`{form.name}`", _bytes(form.bytes), difference, bound, f"{found.positions:,}"


def _bytes(size: int) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"
