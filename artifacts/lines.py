"""Lines of source as editors and Python's own files count them: they end with a line feed, a carriage return, or both.

`str.splitlines` ends lines at form feeds, U+2028, NEL and others besides, which stand within lines of real code.
"""

from __future__ import annotations

import io


def lines_of(text: str) -> list[str]:
    """The lines of a text with their ends; the last one may have none. Together they are the text."""
    return list(io.StringIO(text, newline=""))


def first_line(text: str) -> str:
    """The first line, without its end; a text of no lines has an empty one."""
    return without_end(io.StringIO(text, newline="").readline())


def without_end(line: str) -> str:
    """A line without the line feed, carriage return or both that end it."""
    return line.removesuffix("\n").removesuffix("\r")
