"""Other files of a repository in front of a gap, token for token as llama.cpp's server puts its `input_extra` there.

    <repository> myproject ⏎  <file> path ⏎ text  <file> path ⏎ text …  <file> filename ⏎   then BOS and the prompt

Without a mark for files, a line `--- snippet ---` stands before each text and nothing else names it. The marks are
those that llama.cpp knows (`tasks.families.table.Marks`). Every part is tokenized as a text of its own, and BOS, where
the model has one, stands behind all of it. Source: `format_prompt_infill` in tools/server/server-common.cpp.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.families.marks import FimTokens
from tasks.families.prompting import CHARACTERS_PER_TOKEN
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode, encode
from tasks.related import RelatedFile

REPOSITORY, FILE = "myproject", "filename"
"""What llama.cpp's server calls every repository, and the file with the gap."""
SNIPPET = "\n\n--- snippet ---\n\n"
LEAST = 16
"""Tokens of a text below which it says too little."""


class Names(NamedTuple):
    """What the repository and the file with the gap are called."""

    repository: str = REPOSITORY
    file: str = FILE


def repository_context(
    tokenizer: CodeTokenizer, fim: FimTokens, files: Sequence[RelatedFile], names: Names, room: int
) -> list[int]:
    """The ids in front of a gap, of at most `room` tokens; empty where no file has a place in them.

    No file takes more than half of what there is for all, so that several are seen; a text is cut after a line.

    Raises:
        Unrepresentable: the vocabulary cannot write the names.
    """
    start = [] if fim.repository is None else [fim.repository, *encode(tokenizer, names.repository + "\n")]
    end = [] if fim.file is None else [fim.file, *encode(tokenizer, names.file + "\n")]
    left = room - len(start) - len(end)
    most = max(left // 2, LEAST)
    found: list[int] = []
    for file in files:
        try:
            mark = encode(tokenizer, SNIPPET) if fim.file is None else [fim.file, *encode(tokenizer, file.path + "\n")]
            text = _beginning(tokenizer, file.text, min(most, left) - len(mark))
        except Unrepresentable:
            continue
        if text:
            found += [*mark, *text]
            left -= len(mark) + len(text)
    return [*start, *found, *end] if found else []


def _beginning(tokenizer: CodeTokenizer, text: str, room: int) -> list[int]:
    """The tokens of the whole lines that a text begins with, as many as there is room for; none if they are few."""
    if room < LEAST or not text.strip():
        return []
    text = text[: room * CHARACTERS_PER_TOKEN]
    ids = encode(tokenizer, text)
    while len(ids) > room:
        shorter = decode(tokenizer, ids[:room])
        lines = shorter.rpartition("\n")
        shorter = lines[0] + lines[1]
        if not shorter or len(shorter) >= len(text) or not text.startswith(shorter):
            return []
        text = shorter
        ids = encode(tokenizer, text)
    return ids
