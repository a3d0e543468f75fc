"""Gaps: from held-out files to items. An item is a gap in a file, the prompt that leads to it, and the truth.

The gap is one whole line, or a few, indentation included, as in HumanEval's single-line and multi-line infilling
(Bavarian et al. 2022, https://arxiv.org/abs/2207.14255, and Fried et al. 2022). Prompts end after a line break and are
built from token ids: nothing in a file can become a special token, and the tokens are those that the model saw in
training.
"""

from __future__ import annotations

import random
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import Literal

from artifacts.schema import Domain
from tasks.families.context import Names, repository_context
from tasks.families.marks import FimTokens
from tasks.families.prompting import CHARACTERS_PER_TOKEN, Prompt, gap_prompt, text_before
from tasks.models.healing import healed
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, encode
from tasks.prompts.config import PromptsConfig
from tasks.prompts.files import HeldOutFile, HeldOutFiles
from tasks.related import Repositories

SuiteName = Literal["line", "fim", "block", "context"]

LETTERS = 6
"""Fewest letters and digits of a line worth asking for: `else:` and `)` say little about a model."""
LONGEST_LINE = 400
"""Longest line asked for, in characters; longer ones are data more often than code."""
BLOCK_LINES = (2, 4)
"""Fewest and most lines of a block."""
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
_LINE = re.compile(r"[^\r\n]+")
_LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True)
class Item:
    """One gap to fill, or one problem to solve."""

    suite: str
    repo: str
    path: str
    language: str
    line: int
    """Number of the gap's first line in the file, from 1."""
    prompt_ids: tuple[int, ...]
    prompt: str
    """The text before the gap, as far as the model sees it."""
    suffix: str
    """The text after the gap, as far as the model sees it; empty for next-line completion."""
    truth: str
    """The line or lines, without the last line break."""
    new_tokens: int
    """Most tokens of the answer."""
    domain: Domain = "held_out"
    start: bytes = b""
    """What an answer has to begin with and is no part of: see `healing`."""


@dataclass(frozen=True)
class _Gap:
    file: HeldOutFile
    start: int
    end: int
    unit: str = ""
    """What it is drawn with."""


def line_items(files: HeldOutFiles, tokenizer: CodeTokenizer, config: PromptsConfig) -> list[Item]:
    """Next-line completion: `BOS` and the text before a line, cut to the last `prompt_tokens`."""
    bos = _bos(tokenizer)

    def prompt(gap: _Gap) -> Prompt:
        before = text_before(gap.file.content, gap.start, tokenizer, config.prompt_tokens - len(bos))
        ids, start = healed(tokenizer, [*bos, *before.ids])
        return Prompt(ids, before.text, "", start)

    return _items("line", files, tokenizer, config, prompt)


def block_items(files: HeldOutFiles, tokenizer: CodeTokenizer, config: PromptsConfig) -> list[Item]:
    """As `fim_items`, with a gap of two to four lines."""
    return fim_items(files, tokenizer, config, "block")


def fim_items(
    files: HeldOutFiles, tokenizer: CodeTokenizer, config: PromptsConfig, suite: SuiteName = "fim"
) -> list[Item]:
    """Fill in a line: `BOS <PRE> prefix <SUF> suffix <MID>`. The suffix gets a third of the room, more where the
    prefix leaves some.

    Raises:
        InputError: the vocabulary has no fill-in-the-middle tokens.
    """
    fim = FimTokens.of(tokenizer)

    def prompt(gap: _Gap) -> Prompt:
        # the suffix begins with the line after the gap
        after = _next_line(gap.file.content, gap.end)
        return gap_prompt(gap.file.content, gap.start, after, tokenizer, fim, config.prompt_tokens)

    return _items(suite, files, tokenizer, config, prompt)


def context_items(files: HeldOutFiles, tokenizer: CodeTokenizer, config: PromptsConfig) -> list[Item]:
    """The gaps of `fim_items`, behind other files of their repository, where it has any that are related. None at all
    where no repository has. Raises as `fim_items`."""
    fim, behind = FimTokens.of(tokenizer), 0
    rows = map(asdict, files)
    with Repositories(rows, files.folder, config.context_tokens * CHARACTERS_PER_TOKEN) as repositories:

        def prompt(gap: _Gap) -> Prompt:
            nonlocal behind
            after = _next_line(gap.file.content, gap.end)
            made = gap_prompt(gap.file.content, gap.start, after, tokenizer, fim, config.prompt_tokens)
            related = repositories.related(asdict(gap.file))
            before = repository_context(tokenizer, fim, related, Names(), config.context_tokens)
            behind += bool(before)
            return replace(made, ids=[*before, *made.ids])

        items = _items("context", files, tokenizer, config, prompt)
    return items if behind else []


def spread(clusters: Iterable[str | None], rng: random.Random) -> Iterator[int]:
    """Every index once, in seeded order, taking one of each cluster in turn. What is of none (None) is left out.

    However few are taken, they cover as many clusters as they can, evenly: that is what an interval over clusters
    needs. A cluster's share therefore does not grow with its size.
    """
    members: dict[str, array[int]] = {}  # four bytes an index: there may be millions
    for index, cluster in enumerate(clusters):
        if cluster is not None:
            members.setdefault(cluster, array("I")).append(index)
    queues = [members[cluster] for cluster in sorted(members)]
    for queue in queues:
        rng.shuffle(queue)
    rng.shuffle(queues)
    while queues:
        for queue in queues:
            yield queue.pop()
        queues = [queue for queue in queues if queue]


def _items(
    suite: SuiteName,
    files: HeldOutFiles,
    tokenizer: CodeTokenizer,
    config: PromptsConfig,
    prompt: Callable[[_Gap], Prompt],
) -> list[Item]:
    wanted = wanted_of(suite, config)
    items: list[Item] = []
    drawn = "fim" if suite == "context" else suite  # the same gaps
    for gap in _gaps(files, wanted, random.Random(f"{drawn} {config.seed}"), blocks=suite == "block"):
        if len(items) == wanted:
            break
        file, truth = gap.file, gap.file.content[gap.start : gap.end]
        try:
            # one token more for the line break that ends the answer
            if len(encode(tokenizer, truth, continues=True)) >= answer_tokens(suite, config):
                continue
            made = prompt(gap)
        except Unrepresentable:
            continue
        line = len(_LINE_END.findall(file.content, 0, gap.start)) + 1
        items.append(
            Item(
                suite,
                gap.unit,
                file.path,
                file.language,
                line,
                tuple(made.ids),
                made.before,
                made.after,
                truth,
                answer_tokens(suite, config),
                file.domain,
                made.start,
            )
        )
    return items


def wanted_of(suite: SuiteName, config: PromptsConfig) -> int:
    """Prompts asked for."""
    context = config.fim_prompts if config.context_tokens else 0
    wanted = {"line": config.line_prompts, "fim": config.fim_prompts, "block": config.block_prompts, "context": context}
    return wanted[suite]


def answer_tokens(suite: SuiteName, config: PromptsConfig) -> int:
    """Most tokens of an answer."""
    return config.max_new_tokens * (2 if suite == "block" else 1)


def _gaps(files: HeldOutFiles, wanted: int, rng: random.Random, *, blocks: bool = False) -> Iterator[_Gap]:
    """Lines worth asking for, or blocks that begin with one, one of each repository in turn; of files with lines that
    were added, of each of their units."""
    order = list(islice(spread(files.repositories(), rng), FILES_PER_ITEM * wanted))
    drawn = files.at(order)
    gaps = [_Gap(drawn[number], start, end) for number in order for start, end in _lines(drawn[number])]
    if blocks:
        gaps = [block for gap in gaps if (block := _block(gap, rng.randint(*BLOCK_LINES)))]
    gaps = [replace(gap, unit=unit) for gap in gaps if (unit := gap.file.unit_of(gap.start, gap.end)) is not None]
    return (gaps[index] for index in spread([gap.unit for gap in gaps], rng))


def _lines(file: HeldOutFile) -> Iterator[tuple[int, int]]:
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


def _block(gap: _Gap, lines: int) -> _Gap | None:
    """The gap with the lines after it; None where the file ends before, or the last of them is empty."""
    content, last, end = gap.file.content, gap.start, gap.end
    for _ in range(lines - 1):
        last = _next_line(content, end)
        found = _LINE_END.search(content, last)
        if not found:
            return None
        end = found.start()
    return _Gap(gap.file, gap.start, end) if content[last:end].strip() else None


def _next_line(content: str, end: int) -> int:
    """Where the line begins that follows the one which ends there."""
    found = _LINE_END.match(content, end)
    return found.end() if found else end


def _bos(tokenizer: CodeTokenizer) -> list[int]:
    return [] if tokenizer.bos is None else [tokenizer.bos]
