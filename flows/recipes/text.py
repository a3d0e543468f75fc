"""YAML as data: the text of a recipe, or of a value on the command line, as mappings, lists and scalars.

Scalars are those of YAML 1.2: numbers, `true`, `false`, `null`. Whatever else is written without quotes is text; the
settings' own types say what it must be. Nothing is dropped silently: a name that occurs twice is an error. Nothing
grows: how deep a value is nested, and how much its aliases stand for, is bounded.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode
from yaml.reader import ReaderError

LONGEST = 1 << 18
"""Bytes of a recipe."""
DEEPEST = 40
MOST = 20_000
"""Scalars, lists and mappings in one text, each counted as often as aliases repeat it."""

_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
_SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    # `1e-3` stays text, which a number's setting reads as one, and which may be a commit elsewhere
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("float", r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)", "-+."),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
)


class _Reader(yaml.SafeLoader):
    """Composes a bounded tree without duplicate names, and builds it of JSON's types."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - as PyYAML has it

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        event: yaml.Event = self.peek_event()  # type: ignore[no-untyped-call]
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise _fault("this alias is a part of what it stands for", event.start_mark)
            self._add(self._sizes[id(node)], event)
            return node
        before = self._count
        self._add(1, event)
        self._depth += 1
        if self._depth > DEEPEST:
            raise _fault(f"values are nested more than {DEEPEST} deep", event.start_mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._count - before
        return node

    def compose_mapping_node(self, anchor: Any) -> MappingNode:
        node: MappingNode = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for name, _ in node.value:
            if not isinstance(name, ScalarNode) or name.tag not in (_TEXT, _MERGE):
                raise _fault("the name of a setting is text", name.start_mark)
            here = name.start_mark.line + 1
            if name.value in lines:
                problem = f"“{name.value}” is set twice, in line {lines[name.value]} and in line {here}"
                raise _fault(problem, name.start_mark)
            lines[name.value] = here
        return node

    def construct_object(self, node: Node, deep: bool = False) -> Any:
        try:
            value = super().construct_object(node, deep)
        except (ValueError, LookupError, AttributeError, TypeError, ArithmeticError) as error:
            raise _fault(f"this is no {node.tag.rpartition(':')[2]}", node.start_mark) from error
        if not isinstance(value, (dict, list, str, int, float, bool, type(None))):
            raise _fault(f"no setting is a {type(value).__name__}", node.start_mark)
        if isinstance(value, str) and re.search("[\0\ud800-\udfff]", value):
            raise _fault("NUL and halves of characters are no text", node.start_mark)
        return value

    def _add(self, count: int, event: yaml.Event) -> None:
        self._count += count
        if self._count > MOST:
            raise _fault(f"this stands for more than {MOST:,} values", event.start_mark)


def _fault(problem: str, mark: Any = None) -> ConstructorError:
    return ConstructorError(None, None, problem, mark)


for _name, _pattern, _first in _SCALARS:
    _Reader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), list(_first))
_Reader.add_constructor(
    "tag:yaml.org,2002:int", lambda _, node: int(node.value, 16 if node.value.startswith("0x") else 10)
)


class _Value(_Reader):
    """For the command line, where a shell takes off quotes: a `#` cuts nothing off, and there are no anchors."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._text = text.strip()

    def get_single_data(self) -> Any:
        # after the events of the stream and of the document comes what the document is
        what = next(islice(yaml.parse(self._text, _Reader), 2, None), None)
        plain = isinstance(what, yaml.ScalarEvent) and what.style is what.tag is what.anchor is None
        if plain or what is None:
            tag = self.resolve(ScalarNode, self._text, (True, False))  # type: ignore[no-untyped-call]
            return self.construct_object(ScalarNode(tag, self._text))
        return super().get_single_data()

    def scan_to_next_token(self) -> None:
        before = self.pointer
        super().scan_to_next_token()
        if "#" in self.buffer[before : self.pointer]:
            raise _fault("text with a # needs quotes within the value", self.get_mark())

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if getattr(self.peek_event(), "anchor", None) is not None:  # type: ignore[no-untyped-call]
            raise _fault("text that begins with & or * needs quotes within the value")
        return super().compose_node(parent, index)


def read(text: str) -> Any:
    """What a recipe says.

    Raises:
        ValueError: it is not YAML, or goes beyond a bound; says in which line.
    """
    return _loaded(_Reader, text)


def read_value(text: str) -> Any:
    """What a value on the command line says; without quotes and brackets it is taken as it is, to its end.

    Raises:
        ValueError: see `read`.
    """
    return _loaded(_Value, text)


def written(values: Sequence[Any]) -> str:
    """A list as it is written in brackets."""
    found: str = yaml.safe_dump([*values], default_flow_style=True, allow_unicode=True, width=LONGEST)
    return found.strip()


def _loaded(reader: type[_Reader], text: str) -> Any:
    try:
        return reader(text).get_single_data()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except ReaderError as error:
        raise ValueError(f"the character {error.character:#06x} cannot be a part of it") from None
