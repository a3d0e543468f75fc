"""Suites: from held-out files to items. An item is a gap in a file, the prompt that leads to it, and the truth.

The gap is one whole line, indentation and line break included, as in HumanEval's single-line infilling (Bavarian et
al. 2022, https://arxiv.org/abs/2207.14255, and Fried et al. 2022). Prompts end after a line break and are built from
token ids: nothing in a file can become a special token, and the tokens are those that the model saw in training.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from artifacts.errors import InputError
from tasks.tokenization.vocabulary import CodeTokenizer, FimTokens, Unrepresentable, decode, encode, fim_prompt

if TYPE_CHECKING:
    from tasks.evaluation.settings import EvaluationConfig

SuiteName = Literal["line", "fim"]

CHARACTERS_PER_TOKEN = 16
"""Text taken for each token of context. Vocabularies have few longer tokens, and encoding whole files is slow."""
LETTERS = 6
"""Fewest letters and digits of a line worth asking for: `else:` and `)` say little about a model."""
LONGEST_LINE = 400
"""Longest line asked for, in characters; longer ones are data more often than code."""
FILES_PER_ITEM = 4
"""Files read for each item wanted, so that lines come from many files."""

_C_COMMENTS = ("//", "/*", "* ", "*/")
_HASH = ("#",)
_COMMENTS: dict[str, tuple[str, ...]] = {
    "Python": _HASH,
    "Shell": _HASH,
    "Ruby": _HASH,
    "Perl": _HASH,
    "Makefile": _HASH,
    "CMake": _HASH,
    "Dockerfile": _HASH,
    "PowerShell": _HASH,
    "Julia": _HASH,
    "SQL": ("--",),
    "Lua": ("--",),
    "Haskell": ("--",),
    "HTML": ("<!--",),
    "Markdown": ("<!--",),
    "TeX": ("%",),
    "Visual Basic": ("'",),
    "FORTRAN": ("!",),
    "Assembly": (";",),
    "Batchfile": ("::", "rem ", "REM "),
    "PHP": (*_HASH, *_C_COMMENTS),
}
_LINE = re.compile(r"[^\n]+")


@dataclass(frozen=True)
class SourceFile:
    """A held-out file."""

    repo: str
    path: str
    language: str
    content: str


@dataclass(frozen=True)
class Item:
    """One gap to fill."""

    suite: SuiteName
    repo: str
    path: str
    language: str
    line: int
    """Number of the line in the file, from 1."""
    prompt_ids: tuple[int, ...]
    prompt: str
    """The text before the gap, as far as the model sees it."""
    suffix: str
    """The text after the gap, as far as the model sees it; empty for next-line completion."""
    truth: str
    """The line, without its line break."""


@dataclass(frozen=True)
class _Gap:
    file: SourceFile
    start: int
    end: int


def read_files(path: Path) -> list[SourceFile]:
    """The held-out files of a sample.

    Raises:
        InputError: there are none.
    """
    import pyarrow.parquet as pq

    columns = ["repo", "path", "language", "content"]
    files = [SourceFile(**row) for row in pq.read_table(path, columns=columns).to_pylist()]
    if not files:
        raise InputError(
            "no file is held out, so nothing can be evaluated",
            field="sampling",
            remedy="take files of more repositories, or hold out a larger share of them",
        )
    return files


def line_items(files: Sequence[SourceFile], tokenizer: CodeTokenizer, config: EvaluationConfig) -> list[Item]:
    """Next-line completion: `BOS` and the text before a line, cut to the last `prompt_tokens`."""
    bos = _bos(tokenizer)

    def prompt(gap: _Gap) -> _Prompt:
        before = _before(gap, tokenizer, config.prompt_tokens - len(bos))
        return _Prompt([*bos, *before.ids], before.text, "")

    return _items("line", files, tokenizer, config, prompt)


def fim_items(files: Sequence[SourceFile], tokenizer: CodeTokenizer, config: EvaluationConfig) -> list[Item]:
    """Fill in a line: `BOS <PRE> prefix <SUF> suffix <MID>`. The suffix gets a third of the room, more where the
    prefix leaves some.

    Raises:
        InputError: the vocabulary has no fill-in-the-middle tokens.
    """
    fim = FimTokens.of(tokenizer)
    room = config.prompt_tokens - len(fim_prompt(fim, tokenizer.bos, [], []))

    def prompt(gap: _Gap) -> _Prompt:
        after = _after(gap, tokenizer, room)
        before = _before(gap, tokenizer, max(room - len(after), room - room // 3))
        suffix = after[: room - len(before.ids)]
        ids = fim_prompt(fim, tokenizer.bos, before.ids, suffix)
        return _Prompt(ids, before.text, decode(tokenizer, suffix, continues=True))

    return _items("fim", files, tokenizer, config, prompt)


def spread(clusters: Sequence[str], rng: random.Random) -> Iterator[int]:
    """Every index once, in seeded order, taking one of each cluster in turn.

    However few are taken, they cover as many clusters as they can, evenly: that is what an interval over clusters
    needs. A cluster's share therefore does not grow with its size.
    """
    members: dict[str, list[int]] = {}
    for index, cluster in enumerate(clusters):
        members.setdefault(cluster, []).append(index)
    queues = [members[cluster] for cluster in sorted(members)]
    for queue in queues:
        rng.shuffle(queue)
    rng.shuffle(queues)
    while queues:
        for queue in queues:
            yield queue.pop()
        queues = [queue for queue in queues if queue]


@dataclass(frozen=True)
class _Prompt:
    ids: list[int]
    before: str
    after: str


@dataclass(frozen=True)
class _Before:
    ids: list[int]
    text: str


def _items(
    suite: SuiteName,
    files: Sequence[SourceFile],
    tokenizer: CodeTokenizer,
    config: EvaluationConfig,
    prompt: Callable[[_Gap], _Prompt],
) -> list[Item]:
    wanted = {"line": config.line_prompts, "fim": config.fim_prompts}[suite]
    items: list[Item] = []
    for gap in _gaps(files, wanted, random.Random(f"{suite} {config.seed}")):
        if len(items) == wanted:
            break
        file, truth = gap.file, gap.file.content[gap.start : gap.end]
        try:
            # one token more for the line break that ends the answer
            if len(encode(tokenizer, truth, continues=True)) >= config.max_new_tokens:
                continue
            made = prompt(gap)
        except Unrepresentable:
            continue
        line = file.content.count("\n", 0, gap.start) + 1
        items.append(
            Item(suite, file.repo, file.path, file.language, line, tuple(made.ids), made.before, made.after, truth)
        )
    return items


def _gaps(files: Sequence[SourceFile], wanted: int, rng: random.Random) -> Iterator[_Gap]:
    """Lines worth asking for, one of each repository in turn."""
    order = list(spread([file.repo for file in files], rng))[: FILES_PER_ITEM * wanted]
    gaps = [_Gap(files[index], start, end) for index in order for start, end in _lines(files[index])]
    return (gaps[index] for index in spread([gap.file.repo for gap in gaps], rng))


def _lines(file: SourceFile) -> Iterator[tuple[int, int]]:
    """Start and end, without the line break, of lines that are neither trivial nor a comment nor the first text."""
    comments = _COMMENTS.get(file.language, _C_COMMENTS)
    seen_text = False
    for match in _LINE.finditer(file.content):
        line = match[0].strip()
        if not line:
            continue
        if (
            seen_text
            and len(line) <= LONGEST_LINE
            and sum(map(str.isalnum, line)) >= LETTERS
            and not line.startswith(comments)
        ):
            yield match.span()
        seen_text = True


def _before(gap: _Gap, tokenizer: CodeTokenizer, room: int) -> _Before:
    """The last tokens before the gap."""
    start = max(0, gap.start - room * CHARACTERS_PER_TOKEN)
    ids = encode(tokenizer, gap.file.content[start : gap.start], continues=start > 0)
    kept = ids[max(0, len(ids) - room) :]
    whole = start == 0 and len(kept) == len(ids)
    return _Before(kept, decode(tokenizer, kept, continues=not whole))


def _after(gap: _Gap, tokenizer: CodeTokenizer, room: int) -> list[int]:
    """The first tokens of the line after the gap and what follows it."""
    start = gap.end + 1
    return encode(tokenizer, gap.file.content[start : start + room * CHARACTERS_PER_TOKEN], continues=True)[:room]


def _bos(tokenizer: CodeTokenizer) -> list[int]:
    return [] if tokenizer.bos is None else [tokenizer.bos]
