"""How results are shown: a few kinds of block, put into the dashboard and into the report alike.

A stage says what there is to see about its result as a list of sections; the dashboard gets each as Markdown, tables
and images, the report the same blocks as HTML. Figures are SVG or PNG bytes, drawn by the stage that knows the data.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass
from typing import Literal

_CODE = re.compile(r"(^```.*?^```[^\n]*$|(?<![`\\])`[^`\n]+`(?!`))", re.MULTILINE | re.DOTALL)
_TAG = re.compile(r"<(?=[A-Za-z/!?])")


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
    """A block as GitHub-flavoured Markdown. Text quotes what others wrote, names of files for one: it loads nothing."""
    match block:
        case Text(markdown):
            return inert(markdown)
        case Figure():
            return f"![{block.alt}]({block.data_uri})"
        case Table(columns, rows, caption):
            lines = [_row(columns), _row(("---",) * len(columns)), *(_row(row) for row in rows)]
            return "\n".join(lines) + (f"\n\n{inert(caption)}" if caption else "")


def inert(markdown: str) -> str:
    """Markdown without tags and images: whoever renders it asks no other host. Code stays as it is."""
    parts = _CODE.split(markdown)
    parts[::2] = [_TAG.sub("&lt;", part).replace("![", "!\\[") for part in parts[::2]]
    return "".join(parts)


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(inert(cell).replace("|", "\\|").replace("\n", "<br>") for cell in cells) + " |"


def duration(seconds: float) -> str:
    """`4.2 s`, `42 s`, `7 min 5 s`, `3 h 12 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
