"""What others wrote, as text and nothing else, wherever it is shown: terminal, Markdown, HTML.

File names, licences, completions, errors of libraries and programs are data. In a terminal they move no cursor and set
no title; in Markdown they are no link, no picture and no tag; and nowhere do they turn the order of what stands beside
them. HTML is escaped by the report's templates.
"""

from __future__ import annotations

import re

# Control characters but for tab and line end, C1 among them; what turns the direction of writing or is not seen at all;
# separators of lines that editors do not count; halves of characters, which no file takes.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
_MARKDOWN = re.compile(r"[\\`*\[\]<>|~#&!]|(?<![^\W_])_|_(?![^\W_])|@(?=[\w-]+\.)|:(?=//)|(?<=www)\.", re.IGNORECASE)
_AT_START = re.compile(r"^\s*(?:\d{1,9}(?=[.)](?:\s|$))|(?=[-+](?:\s|$)|=+\s*$|-+\s*$))")
# None with a bar in it: in a table it would be two cells, and no code.
_CODE = re.compile(r"(?<![`\\])(`+)(?!`)[^\n|]*?(?<!`)\1(?!`)")
_ALIVE = re.compile(r"\\[!-/:-@\[-`{-~]|<(?=[A-Za-z/!?])|!?\[|:(?=//)|(?<=www)\.|@(?=[\w-]+\.)", re.IGNORECASE)


def visible(text: str) -> str:
    """The text with what acts on a terminal, or hides, spelled out: `\\x1b`, `\\u202e`."""
    return _UNSEEN.sub(_spelled, text.replace("\r\n", "\n"))


def quoted(text: object) -> str:
    """As Markdown within a line: shown sign by sign, whatever it looks like."""
    line = " ".join(visible(str(text)).split("\n"))
    escaped = _MARKDOWN.sub(r"\\\g<0>", line)
    return _AT_START.sub(lambda match: match[0].lstrip() + "\\", escaped)


def code(text: object) -> str:
    """As code within a line of Markdown."""
    line = " ".join(visible(str(text)).split("\n"))
    marks = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    space = " " if line[:1] in ("`", " ", "") or line[-1:] in ("`", " ") else ""
    return f"{marks}{space}{line}{space}{marks}"


def fenced(text: str, language: str = "") -> str:
    """As a block of code of Markdown."""
    text = visible(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{language}\n{text}\n{fence}"


def inert(markdown: str) -> str:
    """Markdown without links, pictures and tags: who renders it asks no other host. Code stays as it is."""
    parts, end = [], 0
    markdown = visible(markdown)
    for match in _CODE.finditer(markdown):
        parts += [_without_links(markdown[end : match.start()]), match[0]]
        end = match.end()
    return "".join([*parts, _without_links(markdown[end:])])


def _without_links(markdown: str) -> str:
    return _ALIVE.sub(lambda match: match[0] if match[0][0] == "\\" else re.sub(r"(.)", r"\\\1", match[0]), markdown)


def _spelled(match: re.Match[str]) -> str:
    number = ord(match[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
