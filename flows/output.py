"""Standard output and error as they are found: in any encoding, closed, full, or with nobody at the other end.

What a person asked for is done all the same. A sign that the encoding lacks is spelled in ASCII; what a reader who left
(`| head -1`) does not take is dropped; what a full disk does not take is dropped and said in the end.
"""

from __future__ import annotations

import codecs
import io
import locale
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import rich.console
from rich.segment import Segment

from artifacts.escaping import visible

if TYPE_CHECKING:
    from typing_extensions import Buffer

_SPELLED = {
    "✓": "+",
    "≡": "=",
    "✗": "x",
    "…": "...",
    "→": "->",
    "−": "-",
    "–": "-",
    "×": "x",
    "·": "-",
    "•": "*",
    "±": "+/-",
    "≥": ">=",
    "≤": "<=",
    "“": '"',
    "”": '"',
    "‘": "'",
    "’": "'",
    "⁹": "^9",
    "²": "^2",
    "½": "1/2",
}


class Console(rich.console.Console):
    """Where a person reads. What others wrote (names of files, errors, answers) acts on no terminal: control characters
    are spelled out, whatever they are part of, and nothing is a link."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"highlight": False, "emoji": False, **settings})

    def render(self, renderable: Any, options: Any = None) -> Iterator[Segment]:
        """See `rich.console.Console`."""
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                plain = segment.style.update_link(None) if segment.style and segment.style.link else segment.style
                yield Segment(visible(segment.text), plain)


class _Sink(io.FileIO):
    """A descriptor to write to, which takes everything: what could not be written is counted by its reason."""

    lost: OSError | None = None

    def write(self, data: Buffer) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(memoryview(data).cast("B"))
        except OSError as error:
            self.lost = error
            return len(memoryview(data).cast("B"))


_sinks: list[_Sink] = []


def in_utf8() -> None:
    """Begin again in Python's UTF-8 mode where the locale has another encoding: libraries read their own files by the
    locale's. What is printed keeps that encoding."""
    if not sys.flags.utf8_mode and codecs.lookup(locale.getencoding()).name != "utf-8":
        os.environ["PYTHONUTF8"] = "1"
        if sys.stdout:
            os.environ.setdefault("PYTHONIOENCODING", sys.stdout.encoding)
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def settle() -> None:
    """Make standard output and error take whatever is printed from now on. Call once, before anything is printed."""
    codecs.register_error("spelled", _spell)
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: what is opened next must not take its number, and with it what is printed
            os.open(os.devnull, os.O_RDWR)
    for number, name in ((1, "stdout"), (2, "stderr")):
        before = getattr(sys, name)
        sink = _Sink(number, "w", closefd=False)
        _sinks.append(sink)
        stream = io.TextIOWrapper(
            io.BufferedWriter(sink),
            encoding=before.encoding if before else "utf-8",
            errors="spelled",
            line_buffering=before.line_buffering if before else False,
            write_through=before.write_through if before else False,
        )
        if before:
            before.flush()
        setattr(sys, name, stream)
    if codecs.lookup(sys.stdout.encoding).name != "utf-8":  # nor may it end a process that this one starts
        os.environ["PYTHONIOENCODING"] = f"{sys.stdout.encoding}:backslashreplace"


def lost() -> OSError | None:
    """Why a part of what was printed to standard output is lost; None where nothing is, or its reader left."""
    sys.stdout.flush()
    return _sinks[0].lost if _sinks else None


def _spell(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    return "".join(_SPELLED.get(one) or one.encode("unicode_escape").decode() for one in wrong), error.end
