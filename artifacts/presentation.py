"""How results are shown: a few kinds of block, put into the dashboard and into the report alike.

A stage says what there is to see about its result as a list of sections; the dashboard gets each as Markdown, tables
and images, the report the same blocks as HTML. Figures are SVG or PNG bytes, drawn by the stage that knows the data.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal

from artifacts.escaping import code, fenced, inert, quoted


@dataclass(frozen=True)
class Text:
    """Markdown: paragraphs, lists, emphasis, `code`. What others wrote goes in by `quoted` or `code` of
    `artifacts.escaping`; links and pictures are shown as they are written."""

    markdown: str


@dataclass(frozen=True)
class Code:
    """Lines of code, or of anything that keeps its columns."""

    text: str
    language: str = "text"


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


Block = Text | Code | Table | Figure


@dataclass(frozen=True)
class Section:
    """Blocks under one heading. `key` names it among the dashboard's artifacts (lower case, digits, dashes)."""

    key: str
    title: str
    blocks: tuple[Block, ...]


def to_markdown(block: Block) -> str:
    """A block as GitHub-flavoured Markdown that loads nothing."""
    match block:
        case Text(markdown):
            return inert(markdown)
        case Code(text, language):
            return fenced(text, language)
        case Figure():
            return f"![{quoted(block.alt)}]({block.data_uri})"
        case Table(columns, rows, caption):
            lines = [_row(columns), _row(("---",) * len(columns)), *(_row(row) for row in rows)]
            return "\n".join(lines) + (f"\n\n{inert(caption)}" if caption else "")


def code_of(cell: str) -> str | None:
    """The code that a cell holds and nothing else, between backticks."""
    found = re.fullmatch(r"`([^`]+)`", cell)
    return found and found[1]


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _cell(cell: str) -> str:
    if cell == "---":
        return cell
    if held := code_of(cell):
        return code(held).replace("|", "\\|")
    return "<br>".join(map(quoted, cell.split("\n")))


def counted(number: int, one: str, many: str = "") -> str:
    """`1 file`, `1,200 files`; `many` where an s does not make it."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `7 min 5 s`, `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
