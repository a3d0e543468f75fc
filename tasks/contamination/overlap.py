"""How much of an evaluation item stands in a training document.

An item is what a model is asked and what is right (a prompt, a solution, a held-out file). It counts as contaminated
when one of these parts stands in one training document: `exact`, all its tokens in a row, or `near`, at least 70 % of
its different runs of five tokens (BigCode's shingles and threshold, but of containment, not of Jaccard's similarity: a
short problem inside a long file has a similarity of nearly nothing). Tokens are words and signs of code, so indentation
and line breaks make no difference.

The shares are exact, and memory grows with neither items nor documents. Of each part a few of its rarest runs are
indexed: a document that holds most of the part holds one of these, all but surely. Only then are the two compared.
Where documents are compared with each other (`similar`), MinHash says which pairs are worth a look.
"""

from __future__ import annotations

import re
import tempfile
import zlib
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint32]
    Ids = npt.NDArray[np.uint64]
    Flags = npt.NDArray[np.bool_]

SHINGLE = 5
"""Tokens in a row."""
THRESHOLD = 0.7
"""Share of a part's shingles from which it counts as near."""
FEWEST_TOKENS = 20
"""Shorter parts are not judged: `return number % 1.0` stands in many files. From here on, none of HumanEval's prompts,
alone or with its solution, has 30 % of its shingles in one of the 668 files of a standard library."""

AT_ONCE = 1 << 17
"""Parts that are looked for at once, which bounds the index: 0.7 KB each. The documents are read once for these."""
INDEXED = 64
"""Runs of a part that are indexed."""
_RAREST = 0.4
"""Share of a part's runs from which these are chosen. A document that holds enough of it lacks at most 0.3 of its runs,
so it has a quarter of the rarest 0.4 or more: that it lacks all of 64, or all but one, has a probability of one in four
million. Common runs, such as a licence's, would point to half of all documents."""
_ALL = 16
"""Of so few runs all are indexed."""
_SKETCHED = 28
"""Of 64 of its runs by chance, a document with 0.7 of all has as many; fewer once in two hundred thousand times."""
_KNOWN_BITS, _COUNTED_BITS = 24, 22
"""Sizes of two tables by the last bits of a hash."""
_IN_MEMORY = 1 << 24
"""Bytes of the parts from which on they are kept in a file."""
_COMPACTED = 4096
"""Documents after which what needs no more looking for leaves the index."""

_LAST, _SHORT = (1 << 32) - 1, (1 << 16) - 1
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


def find(
    training: Iterable[TrainingText], items: Iterable[EvaluationText], folder: Path | None = None
) -> list[Contaminated]:
    """The contaminated items, in the order of `items`.

    Args:
        training: can be read more than once, see `Documents`.
        items: what is looked for.
        folder: for temporary files, where the system's is not meant: 4 bytes for each token of the items.
    """
    found = list[Contaminated]()
    for index in _indices(training, items, folder):
        worst: dict[int, Contaminated] = {}
        for document in training:
            for number, one in index.search(document):
                place = index.places[number]
                if place not in worst or _severity(one) > _severity(worst[place]):
                    worst[place] = one
                if one.kind == "exact":
                    index.retire(place)
        found += (worst[place] for place in sorted(worst))
    return found


def items_in(training: Iterable[TrainingText], items: Iterable[EvaluationText], folder: Path | None = None) -> set[str]:
    """The contaminated items alone, which takes less: each is looked for until it is found."""
    found = set[str]()
    for index in _indices(training, items, folder):
        for document in training:
            for number, one in index.search(document):
                found.add(one.item)
                index.retire(index.places[number])
    return found


def documents_with(
    training: Iterable[TrainingText], items: Iterable[EvaluationText], folder: Path | None = None
) -> set[str]:
    """The documents in which an item stands, all of them."""
    found = set[str]()
    for index in _indices(training, items, folder):
        for document in training:
            found.update(one.document for _, one in islice(index.search(document), 1))
    return found


def _indices(
    training: Iterable[TrainingText], items: Iterable[EvaluationText], folder: Path | None
) -> Iterator[_Index]:
    """Of so many items at a time."""
    assert iter(training) is not training, "what can be read once only is not enough: see `Documents`"
    left = iter(items)
    while True:
        with _Index(folder) as index:
            index.fill(left)
            if not index.places:
                return
            yield index


def judged(item: EvaluationText) -> bool:
    """Whether a part of it is long enough to say whether it was copied."""
    return any(len(tokens(text)) >= FEWEST_TOKENS for text in item.parts.values())


def tokens(text: str) -> list[str]:
    """Words and single signs, white space left out."""
    return _TOKEN.findall(text)


class _WordHashes(dict[str, int]):
    """A hash of each word, as long as there are not too many."""

    def __missing__(self, word: str) -> int:
        if len(self) >= 1 << 17:
            self.clear()
        found = self[word] = zlib.crc32(word.encode("utf-8", "surrogatepass"))
        return found


_hash_of = _WordHashes().__getitem__


def ids(words: Sequence[str]) -> Words:
    """A number for each token, the same in every process and on every machine."""
    import numpy as np

    return np.fromiter(map(_hash_of, words), np.uint32, len(words))


class _Index:
    """Some runs of each part, and which parts each belongs to. The parts themselves are in a temporary file."""

    def __init__(self, folder: Path | None) -> None:
        place = str(folder) if folder else None
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=place)  # noqa: SIM115 - closed on leaving
        self._ends = array("q", [0])
        """Of the parts in the file, in tokens."""
        self.places = array("q")
        """Of each part, the number of its item."""
        self._names: list[tuple[str, str]] = []
        """Of each part, its item and what it is."""

    def __enter__(self) -> _Index:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        vars(self).clear()  # while the next one is filled, the caller's variable still keeps this

    def fill(self, items: Iterator[EvaluationText]) -> None:
        """Take in items until there are enough."""
        import numpy as np

        for place, item in enumerate(items):
            for name, text in item.parts.items():
                words = tokens(text)
                if len(words) >= FEWEST_TOKENS:
                    self._file.write(ids(words).tobytes())
                    self._ends.append(self._ends[-1] + len(words))
                    self.places.append(place)
                    self._names.append((item.id, name))
            if len(self.places) >= AT_ONCE:
                break
        # how many parts have a run: of different ones in a place of the table the sum
        bits = np.uint64(2 ** min(_COUNTED_BITS, max(10, self._ends[-1].bit_length())) - 1)
        counts = np.zeros(int(bits) + 1, np.uint32)
        for number in range(len(self.places)):
            counts[runs(self._part(number)) & bits] += 1
        entries = np.empty(INDEXED * len(self.places), np.uint64)
        size = 0
        self._sketches = np.empty((len(self.places), INDEXED), np.uint16)
        for number in range(len(self.places)):
            hashes = runs(self._part(number))
            self._sketches[number] = hashes[np.linspace(0, len(hashes) - 1, INDEXED).astype(int)] & _SHORT
            rarest = np.argsort(counts[hashes & bits], kind="stable")[: max(_ALL, ceil(_RAREST * len(hashes)))]
            chosen = np.sort(hashes[rarest])[:INDEXED]  # by hash, which is as good as by chance
            chosen = np.resize(chosen, max(2, len(chosen)))  # a single run counts twice
            entries[size : size + len(chosen)] = chosen << np.uint64(32) | np.uint64(number)
            size += len(chosen)
        self._entries = entries[:size]
        self._entries.sort()
        """The last half of a hash, and the number of a part."""
        self._known = np.zeros(1 << _KNOWN_BITS, bool)
        self._known[self._entries >> np.uint64(32) & np.uint64(len(self._known) - 1)] = True
        self._wanted = np.ones(self.places[-1] + 1 if self.places else 0, bool)
        """Of each item, whether it is still looked for."""
        self._numbers = np.array(self.places)
        self._searched, self._retired = 0, False

    def retire(self, place: int) -> None:
        """Look for an item no more."""
        self._wanted[place] = False
        self._retired = True

    def search(self, document: TrainingText) -> Iterator[tuple[int, Contaminated]]:
        """The parts of which a document holds enough, by their numbers."""
        import numpy as np

        self._searched += 1
        if self._retired and self._searched % _COMPACTED == 0:
            self._entries = self._entries[self._wanted[self._numbers[self._entries & _LAST]]]
            self._retired = False
        words = ids(tokens(document.text))
        hashes = runs(words)
        for number in self._alike(hashes).tolist():
            if not self._wanted[self.places[number]]:
                continue
            part = self._part(number)
            wanted = runs(part)
            share = np.count_nonzero(_are_in(wanted, hashes)) / len(wanted)
            if share >= THRESHOLD:
                kind: Literal["exact", "near"] = "exact" if share == 1 and _stands_in(part, words) else "near"
                item, name = self._names[number]
                yield number, Contaminated(item, name, kind, document.id, share)

    def _alike(self, hashes: Ids) -> Ids:
        """The numbers of the parts with which a document of these runs is worth comparing."""
        import numpy as np

        known = hashes[self._known[hashes & np.uint64(len(self._known) - 1)]] << np.uint64(32)
        starts = np.searchsorted(self._entries, known)
        counts = np.searchsorted(self._entries, known | _LAST, "right") - starts
        before = np.cumsum(counts) - counts
        numbers = np.sort(self._entries[np.repeat(starts - before, counts) + np.arange(counts.sum())] & _LAST)
        numbers = np.unique(numbers[1:][numbers[1:] == numbers[:-1]])
        if len(numbers):
            here = np.zeros(_SHORT + 1, bool)
            here[hashes & _SHORT] = True
            numbers = numbers[here[self._sketches[numbers]].sum(axis=1) >= _SKETCHED]
        return numbers

    def _part(self, number: int) -> Words:
        """A part's tokens."""
        import numpy as np

        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(4 * start)
        return np.frombuffer(self._file.read(4 * (end - start)), np.uint32)


def _are_in(some: Ids, others: Ids) -> Flags:
    """Of each of some sorted hashes, whether it is among other sorted ones."""
    import numpy as np

    if not len(others):
        return np.zeros(len(some), bool)
    found: Flags = others[np.searchsorted(others, some).clip(max=len(others) - 1)] == some
    return found


def runs(words: Words) -> Ids:
    """The different hashes of runs of `SHINGLE` tokens, sorted."""
    import numpy as np

    count = len(words) - SHINGLE + 1
    if count < 1:
        return np.empty(0, np.uint64)
    pieces = words.astype(np.uint64) + np.uint64(1)
    hashes = np.zeros(count, np.uint64)
    for offset in range(SHINGLE):
        hashes += pieces[offset : offset + count]
        hashes *= np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    hashes.sort()
    different = np.ones(count, bool)
    np.not_equal(hashes[1:], hashes[:-1], out=different[1:])
    return hashes[different]


def _stands_in(part: Words, document: Words) -> bool:
    """Whether one sequence is a run of the other."""
    text, wanted = document.tobytes(), part.tobytes()
    start = text.find(wanted)
    while start >= 0 and start % part.itemsize:
        start = text.find(wanted, start + 1)
    return start >= 0


def _severity(found: Contaminated) -> tuple[bool, float]:
    return found.kind == "exact", found.share
