"""Pieces of syntax: which stretches of a file are statements, blocks, lists of arguments or whole bodies.

tree-sitter reads the file with the grammar of its language, and reads on after an error: only the pieces that contain
one are left out. Reading takes steps that are counted instead of seconds, so that the result is the same everywhere.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import lru_cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from tree_sitter import Language, Node

Kind = Literal["statement", "arguments", "block", "body"]

GRAMMARS = {
    "C": "tree_sitter_c:language",
    "C#": "tree_sitter_c_sharp:language",
    "C++": "tree_sitter_cpp:language",
    "GO": "tree_sitter_go:language",
    "Java": "tree_sitter_java:language",
    "JavaScript": "tree_sitter_javascript:language",
    "PHP": "tree_sitter_php:language_php",
    "Python": "tree_sitter_python:language",
    "Ruby": "tree_sitter_ruby:language",
    "Rust": "tree_sitter_rust:language",
    "Shell": "tree_sitter_bash:language",
    "TypeScript": "tree_sitter_typescript:language_typescript",
}
"""Module and function of each language's grammar; languages are spelled as sampling does."""
_TSX = "tree_sitter_typescript:language_tsx"

UNUSABLE = "no usable grammar installed for"
"""Begins what is counted of files whose grammar cannot be loaded."""

STEPS, BYTES_PER_STEP = 1_000, 20
"""Steps of reading that any file may take, and the bytes that allow another one. Code takes one for 60 to 300 bytes."""

_READ = 1 << 16
_DEFINES = re.compile("function|method|constructor|class|struct|interface|trait|impl|module|lambda|closure|arrow")
_BLOCKS = frozenset(
    (
        *("block", "statement_block", "compound_statement", "statement_list", "body_statement", "do_group", "then"),
        *("class_body", "declaration_list", "field_declaration_list", "interface_body", "constructor_body"),
    )
)
_ARGUMENTS = re.compile("^(.*_)?(arguments|argument_list|parameters|parameter_list)$")
_STATEMENTS = ("_statement", "_declaration", "_definition", "_item")


class Piece(NamedTuple):
    """A stretch of a file, in bytes."""

    start: int
    end: int
    kind: Kind


class _Given(threading.local):
    """What tree-sitter is given to read, a part after the other. It is one object a thread: tree-sitter (0.26) never
    lets go of what it was given. So the text of a node is taken from the file, too, and not from the node."""

    def __init__(self) -> None:
        self.part = bytearray()


_GIVEN = _Given()


class Unreadable(Exception):  # noqa: N818 - a finding about a file
    """A file has no pieces of syntax; says why."""


def pieces(language: str, path: str, source: bytes) -> list[Piece]:
    """The pieces of a file in order, without those that hold an error of syntax.

    Raises:
        Unreadable: as `read`, or the grammar finds nothing.
    """
    root = read(language, path, source)
    found = sorted({piece for one in _walk(root) if (piece := _stripped(one, source))})
    if not found:
        raise Unreadable("the grammar found nothing whole")
    return found


def read(language: str, path: str, source: bytes) -> Node:
    """A file as its grammar has it.

    Raises:
        Unreadable: there is no grammar for the language, or it cannot be loaded, or it takes too many steps.
    """
    from tree_sitter import Parser

    name = GRAMMARS.get(language)
    if name is None:
        raise Unreadable(f"no grammar for {language}")
    grammar = _grammar(_TSX if path.endswith(".tsx") else name)
    if grammar is None:
        raise Unreadable(f"{UNUSABLE} {language}")
    parser = Parser(grammar)
    steps, given = STEPS + len(source) // BYTES_PER_STEP, _GIVEN.part

    def part(place: int, _point: object) -> bytearray:
        given[:] = source[place : place + _READ]
        return given

    def gives_up(_place: int, _is_error: bool) -> bool:
        nonlocal steps
        steps -= 1
        return steps < 0

    try:
        return parser.parse(part, progress_callback=gives_up).root_node
    except ValueError:
        raise Unreadable("the grammar took too many steps") from None


def _stripped(piece: Piece, source: bytes) -> Piece | None:
    """Some grammars take the line break with a block; None where nothing is left."""
    text = source[piece.start : piece.end]
    start = piece.start + len(text) - len(text.lstrip())
    end = piece.start + len(text.rstrip())
    return Piece(start, end, piece.kind) if start < end else None


@lru_cache(maxsize=len(GRAMMARS) + 1)
def _grammar(name: str) -> Language | None:
    """None where its package is missing, damaged, or made for another tree-sitter."""
    from tree_sitter import Language

    module, _, function = name.partition(":")
    try:
        make: Callable[[], object] = getattr(import_module(module), function)
        return Language(make())
    except (ImportError, AttributeError, TypeError, ValueError):
        return None


def unusable() -> tuple[str, ...]:
    """The languages whose grammars cannot be loaded here."""
    return tuple(language for language, name in GRAMMARS.items() if _grammar(name) is None)


def package(language: str) -> str:
    """What is to be installed for a language."""
    return GRAMMARS[language].partition(":")[0].replace("_", "-")


def _walk(root: Node) -> Iterator[Piece]:
    """All pieces below a node, in no order."""
    waiting = [root]
    while waiting:
        node = waiting.pop()
        body = node.child_by_field_name("body")
        defines = _DEFINES.search(node.type) is not None
        holds_statements = node.parent is None or node.type in _BLOCKS
        for child in node.named_children:
            if child.child_count:
                waiting.append(child)
            if child.has_error or "comment" in child.type:
                continue
            is_body = body is not None and child.id == body.id
            if is_body or child.type in _BLOCKS:
                yield from _inside(child, "body" if is_body and defines else "block")
            elif _ARGUMENTS.match(child.type):
                yield from _inside(child, "arguments")
            elif holds_statements or (child.type.endswith(_STATEMENTS) and not _ARGUMENTS.match(node.type)):
                yield Piece(child.start_byte, child.end_byte, "statement")


def _inside(node: Node, kind: Kind) -> Iterator[Piece]:
    """What stands between the braces of a node; all of it where it has none."""
    children = node.children
    if not children or children[0].is_named:
        yield Piece(node.start_byte, node.end_byte, kind)
    elif named := [child for child in children if child.is_named]:
        yield Piece(named[0].start_byte, named[-1].end_byte, kind)
