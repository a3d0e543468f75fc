"""How results are shown: a few kinds of block, put into the dashboard and into the report alike.

A stage says what there is to see about its result as a list of sections; the dashboard gets each as Markdown, tables
and images, the report the same blocks as HTML. Figures are SVG or PNG bytes, drawn by the stage that knows the data.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Text:
    """Markdown: paragraphs, lists, emphasis, fenced code."""

    markdown: str


@dataclass(frozen=True)
class Table:
    """Rows under column heads. Cells are shown as they are: format numbers before."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class Figure:
    """A picture with what it says in words, for those who cannot see it."""

    image: bytes
    kind: Literal["png", "svg"]
    alt: str
    caption: str = ""

    @property
    def data_uri(self) -> str:
        mime = {"png": "image/png", "svg": "image/svg+xml"}[self.kind]
        return f"data:{mime};base64,{base64.b64encode(self.image).decode()}"


Block = Text | Table | Figure


@dataclass(frozen=True)
class Section:
    """Blocks under one heading. `key` names it among the dashboard's artifacts (lower case, digits, dashes)."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def to_markdown(block: Block) -> str:
    """A block as GitHub-flavoured Markdown."""
    match block:
        case Text(markdown):
            return markdown
        case Figure():
            return f"![{block.alt}]({block.data_uri})"
        case Table(columns, rows, caption):
            lines = [_row(columns), _row(("---",) * len(columns)), *(_row(row) for row in rows)]
            return "\n".join(lines) + (f"\n\n{caption}" if caption else "")


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"
