"""Questions about a file whose answers stand in it: no model writes either.

    body     write the body of this function, from its signature and documentation
    test     complete this test, of which the first half is shown
    explain  explain this function, which is shown without its documentation: that is the answer

A question is put in the model's own chat template, and the loss counts on the answer alone. Documentation is Python's
docstring or the comment before a function. Which functions are asked about depends on the seed and the file alone.
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from inspect import cleandoc
from typing import TYPE_CHECKING, Literal, NamedTuple

from tasks.families.chat import ChatTemplate
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode_bytes, encode
from tasks.tokenization.chunks import Chunk, TokenizedFile
from tasks.tokenization.syntax import Unreadable, read

if TYPE_CHECKING:
    from tree_sitter import Node

NUMBER = -1
"""Of a question, among the chunks of its file, which count from 0."""
WORDS, LETTERS, TEST_LINES = 4, 20, 4
"""Fewest words of documentation, letters and digits of a body, and lines of a test that are worth a question."""

_FUNCTION = re.compile("function|method|constructor")
_AROUND = ("decorated_definition", "export_statement", "template_declaration")
"""What a function's own node may be the end of."""
_BETWEEN = ("attribute_item",)
"""What may stand between a function and its documentation."""
_STRING = re.compile(r"""[A-Za-z]{0,2}(\"{3}|'{3}|"|')(.*)\1""", re.S)
_MARKS = re.compile(r"^[ \t]*(?:/\*\*?!?|\*/|\*(?!/)|//[/!]?|#+|--)?[ \t]?", re.M)
_TAGS = {"GO": "go", "C#": "csharp", "C++": "cpp", "Shell": "bash"}

Kind = Literal["body", "test", "explain"]


class Question(NamedTuple):
    """What is asked about a file, and the answer that stands in it."""

    kind: Kind
    text: str
    answer: str


@dataclass(frozen=True)
class Asking:
    """How many of the sequences are questions, and how they are put."""

    rate: float
    """Their share, as far as files give so many."""
    seed: int
    template: ChatTemplate
    max_length: int

    def chunks(self, tokenizer: CodeTokenizer, document: TokenizedFile, beside: int) -> Iterator[Chunk]:
        """The questions about a file that gave so many sequences `beside` them. One that is too long is not asked."""
        name = f"{self.seed}:{document.sha256}:questions".encode()
        generator = random.Random(int.from_bytes(hashlib.sha256(name).digest()[:8]))
        wanted = int(beside * self.rate / (1 - self.rate) + generator.random())
        if not wanted:
            return
        try:
            found = questions(document.language, document.path, decode_bytes(tokenizer, document.ids))
        except Unreadable:
            return
        generator.shuffle(found)
        for question in found:
            if not wanted:
                break
            if chunk := self._put(tokenizer, question):
                wanted -= 1
                yield chunk

    def _put(self, tokenizer: CodeTokenizer, question: Question) -> Chunk | None:
        try:
            prompt = self.template.ask(tokenizer, question.text)
            answer = [*encode(tokenizer, question.answer), *self.template.ends(tokenizer)]
        except Unrepresentable:
            return None
        if len(prompt) + len(answer) > self.max_length:
            return None
        return Chunk([*prompt, *answer], [0] * len(prompt) + [1] * len(answer), (f"question: {question.kind}",))


class _Function(NamedTuple):
    """A function with its documentation, in bytes of the file."""

    start: int
    """Where it begins, documentation before it not included."""
    body: int
    """Where its body begins, its brace included; of Python behind the docstring."""
    end: int
    is_test: bool
    doc_start: int
    doc_end: int
    """Both 0 where it has none."""
    doc: str


def questions(language: str, path: str, source: bytes) -> list[Question]:
    """All questions about a file, in the order of its functions.

    Raises:
        Unreadable: as `tasks.tokenization.syntax.read`.
    """
    root = read(language, path, source)
    name = "Go" if language == "GO" else language
    fenced = partial(_fenced, _TAGS.get(language, language.lower()))
    found = []
    for one in _functions(root, source, language):
        cut = partial(_cut, source, one.start)
        if one.doc:
            # what of it comes first: the documentation, or in Python the signature
            shown = cut(min(one.start, one.doc_start), one.body)
            answer = cut(one.body, one.end)
            if sum(map(str.isalnum, answer)) >= LETTERS:
                text = f"Write the body of this {name} function from {path}:\n\n{fenced(shown)}"
                found.append(Question("body", text, fenced(answer)))
                bare = cut(one.start, one.end)
                if one.doc_start > one.start:
                    bare = cut(one.start, one.doc_start) + "\n" + answer
                text = f"Explain what this {name} function does:\n\n{fenced(bare)}"
                found.append(Question("explain", text, one.doc))
        if one.is_test:
            lines = cut(one.start, one.end).split("\n")
            if len(lines) > TEST_LINES:
                half = (len(lines) + 1) // 2
                shown, answer = "\n".join(lines[:half]), "\n".join(lines[half:])
                text = f"Complete this {name} test from {path}:\n\n{fenced(shown)}"
                if sum(map(str.isalnum, answer)) >= LETTERS:
                    found.append(Question("test", text, fenced(answer)))
    return found


def _functions(root: Node, source: bytes, language: str) -> Iterator[_Function]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        waiting.extend(reversed([child for child in node.named_children if child.child_count]))
        body = node.child_by_field_name("body")
        if body is None or node.has_error or not _FUNCTION.search(node.type) or not body.child_count:
            continue
        parent = node.parent
        whole = parent if parent is not None and parent.type in _AROUND else node
        called = node.child_by_field_name("name") or node.child_by_field_name("declarator") or node
        is_test = source.startswith((b"test", b"Test"), called.start_byte, called.end_byte)
        opening = body.start_byte + (source[body.start_byte : body.start_byte + 1] == b"{")
        if language == "Python":
            found = _docstring(body, source)
            start, end, doc = found or (0, 0, "")
            yield _Function(whole.start_byte, end or opening, whole.end_byte, is_test, start, end, doc)
        else:
            start, doc = _comment(whole, source)
            yield _Function(whole.start_byte, opening, whole.end_byte, is_test, start, whole.start_byte, doc)


def _docstring(body: Node, source: bytes) -> tuple[int, int, str] | None:
    first = body.named_children[0] if body.named_children else None
    string = (
        first.named_children[0] if first and first.type == "expression_statement" and first.named_children else first
    )
    if string is None or string.type != "string":
        return None
    match = _STRING.fullmatch(source[string.start_byte : string.end_byte].decode())
    doc = cleandoc(match[2]) if match else ""
    return (string.start_byte, string.end_byte, doc) if len(doc.split()) >= WORDS else None


def _comment(whole: Node, source: bytes) -> tuple[int, str]:
    """Where the comment begins that stands right before a function, and its text; nothing where none does."""
    start, texts, below = 0, [], whole
    while (above := below.prev_named_sibling) and above.end_point.row >= below.start_point.row - 1:
        before = above.prev_sibling
        # a line comment may take the line break along
        if before and before.end_point.row == above.start_point.row and before.end_point.column:
            break  # it belongs to the code on its line
        if "comment" in above.type and above.end_byte > above.start_byte:
            start = above.start_byte
            texts.append(source[start : above.end_byte].decode().rstrip("\n"))
        elif above.type not in _BETWEEN:
            break
        below = above
    text = "\n".join(reversed(texts)).replace("*/", "")
    doc = cleandoc(_MARKS.sub("", text)).strip()
    return (start, doc) if len(doc.split()) >= WORDS else (0, "")


def _cut(source: bytes, function: int, start: int, end: int) -> str:
    """A stretch of a function as whole lines, without the indentation that the function itself has."""
    line = source.rfind(b"\n", 0, function) + 1
    indentation = source[line:function] if not source[line:function].strip() else b""
    text = source[start:end].decode().rstrip()
    shared = indentation.decode()
    lines = text.split("\n")
    rest = [one.removeprefix(shared) for one in lines[1:]]
    if not lines[0].strip() and rest:  # begins behind the end of a line
        return "\n".join(rest)
    return "\n".join([lines[0], *rest])


def _fenced(tag: str, code: str) -> str:
    fence = "```"
    while fence in code:
        fence += "`"
    return f"{fence}{tag}\n{code}\n{fence}"
