"""Blocks and chapters → one HTML page that needs nothing but itself.

Text from data sets and models reaches this page: Jinja escapes whatever a template prints, Markdown is rendered with
HTML, links and images switched off, and the page's own content security policy forbids scripts and any request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markdown_it import MarkdownIt
from markupsafe import Markup, escape

from artifacts import presentation
from artifacts.escaping import inert, quoted, visible
from artifacts.presentation import Block, Figure, Table, code_of
from tasks.reporting.chapters import Chapter
from tasks.reporting.verdict import Answer, KeyFigure, Tone

_FIGURE = r"[+−-]?[\d.,]+(e[+-]?\d+)?\s?(%|pp|s|GiB|MiB|GB|MB|kB|B|bytes|tokens/s)?"
_NUMBER = re.compile(rf"{_FIGURE}( (to|→) {_FIGURE})?|[–—]?")


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    title: str
    subtitle: str
    answers: list[Answer]
    tone: Tone
    figures: list[KeyFigure]
    chapters: list[Chapter]


def to_html(page: Page) -> str:
    """The page as a document: equal pages give equal text."""
    return visible(_environment().get_template("report.html.j2").render(page=page))


def to_markdown(page: Page) -> str:
    """The page as Markdown with its pictures, for the dashboard; samples side by side are for the HTML alone."""
    answers = [f"**{answer.question}** {quoted(answer.sentence)}" for answer in page.answers]
    rows = tuple((one.label, one.value, one.note) for one in page.figures)
    lines = [f"# {quoted(page.title)}", quoted(page.subtitle), *answers, _markdown_of(Table(("", "", ""), rows))]
    for chapter in page.chapters:
        lines += [f"## {quoted(chapter.title)}"] if chapter.sections else []
        for section in chapter.sections:
            lines += [f"### {quoted(section.title)}", *map(_markdown_of, section.blocks)]
    return "\n\n".join(lines)


def _markdown_of(block: Block) -> str:
    caption = f"\n\n{inert(block.caption)}" if isinstance(block, Figure) and block.caption else ""
    return presentation.to_markdown(block) + caption


def markdown_to_html(text: str) -> Markup:
    """Markdown as HTML. What looks like HTML in it is shown, not obeyed; images are not loaded."""
    return Markup(_markdown().render(inert(text)))


def inline_to_html(text: str) -> Markup:
    """One line of Markdown, for captions."""
    return Markup(_markdown().renderInline(inert(text)))


def cell_to_html(cell: str) -> Markup:
    """A cell as it stands; one that is wholly in backticks, as code. Cells quote file names: no Markdown in them."""
    code = code_of(cell)
    return Markup("<code>{}</code>").format(code) if code else escape(cell)


def numeric_columns(table: Table) -> list[bool]:
    """Which columns hold figures and are set flush right."""
    columns = list(zip(*table.rows, strict=False)) or [()] * len(table.columns)
    return [any(map(str.strip, cells)) and all(_NUMBER.fullmatch(cell.strip()) for cell in cells) for cells in columns]


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "link", "autolink"])


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["markdown"] = markdown_to_html
    environment.filters["inline"] = inline_to_html
    environment.filters["cell"] = cell_to_html
    environment.filters["numeric"] = numeric_columns
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment
