"""How much of an evaluation item stands in a training document.

An item is what a model is asked and what is right (a prompt, a solution, a held-out file). It counts as contaminated
when one of these parts stands in one training document: `exact`, all its tokens in a row, or `near`, at least 70 % of
its different runs of five tokens (BigCode's shingles and threshold, but of containment, not of Jaccard's similarity: a
short problem inside a long file has a similarity of nearly nothing). Tokens are words and signs of code, so indentation
and line breaks make no difference.

The shares are exact: an index of some items' shingles fits in memory, whatever the size of the training data. Where
documents are compared with each other (`similar`), there is no such index: MinHash says which pairs are worth a look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ids = npt.NDArray[np.uint64]

SHINGLE = 5
"""Tokens in a row."""
THRESHOLD = 0.7
"""Share of a part's shingles from which it counts as near."""
FEWEST_TOKENS = 20
"""Shorter parts are not judged: `return number % 1.0` stands in many files. From here on, none of HumanEval's prompts,
alone or with its solution, has 30 % of its shingles in one of the 668 files of a standard library."""

AT_ONCE = 1 << 25
"""Characters of the items that are looked for at once, which bounds the index: some five thousand files."""

_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class TrainingText:
    """A text that a model was trained on."""

    id: str
    text: str


@dataclass(frozen=True)
class Documents:
    """Training texts that are too many for memory: read from the start whenever they are iterated."""

    read: Callable[[], Iterator[TrainingText]]

    def __iter__(self) -> Iterator[TrainingText]:
        return self.read()


@dataclass(frozen=True)
class EvaluationText:
    """Something that a model is asked."""

    id: str
    parts: Mapping[str, str]
    """Texts by what they are: `prompt`, `solution`, `file`."""


@dataclass(frozen=True)
class Contaminated:
    """An item that stands in the training data; by its part and the document with the largest share."""

    item: str
    part: str
    kind: Literal["exact", "near"]
    document: str
    share: float
    """Of the part's shingles, in the document."""


def find(training: Iterable[TrainingText], items: Iterable[EvaluationText]) -> list[Contaminated]:
    """The contaminated items, in the order of `items`.

    Memory grows with neither: so many items are looked for at once, and the training data is read once for these.
    """
    assert iter(training) is not training, "what can be read once only is not enough: see `Documents`"
    return [found for group in _groups(items) for found in _find(training, group)]


def _groups(items: Iterable[EvaluationText]) -> Iterator[list[EvaluationText]]:
    group: list[EvaluationText] = []
    size = 0
    for item in items:
        group.append(item)
        size += sum(map(len, item.parts.values()))
        if size >= AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _find(training: Iterable[TrainingText], items: Sequence[EvaluationText]) -> list[Contaminated]:
    index = _Index(items)
    if not index.parts:
        return []
    worst: dict[int, Contaminated] = {}
    for document in training:
        for place, found in index.search(document):
            before = worst.get(place)
            if before is None or _severity(found) > _severity(before):
                worst[place] = found
    return [worst[place] for place in sorted(worst)]


def judged(item: EvaluationText) -> bool:
    """Whether a part of it is long enough to say whether it was copied."""
    return any(len(tokens(text)) >= FEWEST_TOKENS for text in item.parts.values())


def tokens(text: str) -> list[str]:
    """Words and single signs, white space left out."""
    return _TOKEN.findall(text)


@dataclass(frozen=True)
class _Part:
    place: int
    """Of the item."""
    name: str
    ids: Ids
    shingles: int
    """Different ones."""


class _Index:
    """The shingles of all items, and which parts each belongs to."""

    def __init__(self, items: Sequence[EvaluationText]) -> None:
        import numpy as np

        self._items = items
        self._vocabulary: dict[str, int] = {}
        self.parts: list[_Part] = []
        hashes: list[Ids] = []
        for place, item in enumerate(items):
            for name, text in item.parts.items():
                words = tokens(text)
                if len(words) >= FEWEST_TOKENS:
                    ids = np.array([self._vocabulary.setdefault(word, len(self._vocabulary) + 1) for word in words])
                    hashes.append(runs(ids.astype(np.uint64)))
                    self.parts.append(_Part(place, name, ids.astype(np.uint64), len(hashes[-1])))
        if not hashes:
            return
        self._shingles = np.array([part.shingles for part in self.parts])
        owners = np.repeat(np.arange(len(hashes)), [len(one) for one in hashes])
        flat = np.concatenate(hashes)
        order = np.argsort(flat, kind="stable")
        self._owners = owners[order]
        self._hashes, self._starts = np.unique(flat[order], return_index=True)
        self._ends = np.append(self._starts[1:], len(flat))

    def search(self, document: TrainingText) -> Iterable[tuple[int, Contaminated]]:
        """The parts of which a document holds enough, each with the place of its item."""
        import numpy as np

        words = tokens(document.text)
        get = self._vocabulary.get
        ids = np.array([get(word, 0) for word in words], np.uint64)
        hashes = runs(ids)
        near = np.searchsorted(self._hashes, hashes).clip(max=len(self._hashes) - 1)
        present = near[self._hashes[near] == hashes]
        if not len(present):
            return
        held = np.concatenate([self._owners[self._starts[one] : self._ends[one]] for one in present])
        numbers, counts = np.unique(held, return_counts=True)  # few parts share anything with a document
        shares = counts / self._shingles[numbers]
        enough = shares >= THRESHOLD
        for number, share in zip(numbers[enough].tolist(), shares[enough].tolist(), strict=True):
            part = self.parts[number]
            kind: Literal["exact", "near"] = "exact" if share == 1 and _stands_in(part.ids, ids) else "near"
            yield part.place, Contaminated(self._items[part.place].id, part.name, kind, document.id, share)


def runs(ids: Ids) -> Ids:
    """The different hashes of runs of `SHINGLE` tokens, sorted; runs with a token that no item has (0) left out."""
    import numpy as np

    count = len(ids) - SHINGLE + 1
    if count < 1:
        return np.empty(0, np.uint64)
    hashes = np.zeros(count, np.uint64)
    known = np.ones(count, bool)
    for offset in range(SHINGLE):
        piece = ids[offset : offset + count]
        hashes = (hashes + piece) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
        known &= piece > 0
    return np.unique(hashes[known])


def _stands_in(part: Ids, document: Ids) -> bool:
    """Whether one sequence is a run of the other."""
    text, wanted = document.tobytes(), part.tobytes()
    start = text.find(wanted)
    while start >= 0 and start % part.itemsize:
        start = text.find(wanted, start + 1)
    return start >= 0


def _severity(found: Contaminated) -> tuple[bool, float]:
    return found.kind == "exact", found.share
