"""What the dashboard shows of a report: the verdict, the key figures, and where the page is."""

from __future__ import annotations

import json

from artifacts.escaping import code, quoted
from artifacts.presentation import Section, Table, Text
from artifacts.schema import RunReport


def sections(handle: RunReport) -> list[Section]:
    """For the dashboard: the verdict, the key figures, and where the page is."""
    figures = json.loads((handle.path / "figures.json").read_text(encoding="utf-8"))
    table = Table(("", "", ""), tuple((one["label"], one["value"], one["note"]) for one in figures))
    where = f"The whole report is one HTML file: {code(handle.path / 'report.html')}"
    return [Section("verdict", "Outcome", (Text(f"**{quoted(handle.verdict)}**"), table, Text(where)))]
