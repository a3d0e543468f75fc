"""Which of many documents nearly equal one another: by Jaccard's similarity of the shingles that `overlap` has.

MinHash says which pairs are worth a look: a document's signature (`rensa`, 256 permutations) is cut into bands, and two
documents that share a band are compared. That comparison is exact, so no document is called similar by an estimate, and
of similar ones at most one pair in a hundred is missed.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from tasks.contamination.overlap import FEWEST_TOKENS, ids, runs, tokens

if TYPE_CHECKING:
    from tasks.contamination.overlap import Ids

PERMUTATIONS = 256
_FOUND = 0.99
"""Least share of the pairs with exactly the threshold's similarity that have a band in common."""


def shingles(text: str) -> Ids:
    """The different runs of tokens of a document as hashes, sorted; none where it is too short to be judged."""
    import numpy as np

    words = tokens(text) if len(text) >= FEWEST_TOKENS else []
    if len(words) < FEWEST_TOKENS:
        return np.empty(0, np.uint64)
    return runs(ids(words))


def similarity(one: Ids, other: Ids) -> float:
    """Jaccard's, of two documents' shingles."""
    import numpy as np

    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / max(1, len(one) + len(other) - common)


@cache
def rows_of_a_band(threshold: float) -> int:
    """As many as find a pair of this similarity almost surely: the more, the fewer pairs are compared in vain."""
    return max(
        rows
        for rows in range(1, PERMUTATIONS + 1)
        if rows == 1 or 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= _FOUND
    )


def bands(text: str, threshold: float) -> bytes:
    """The bands of a document's signature, 8 bytes each; nothing where it is too short to be judged.

    The same in every process and on every machine.
    """
    import numpy as np
    from rensa import RMinHash

    hashes = shingles(text)
    if not len(hashes):
        return b""
    rows = rows_of_a_band(threshold)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, [0, len(hashes)], PERMUTATIONS, 0)
    signature = np.array(matrix.to_rows()[0], np.uint64)
    # the band's number is part of it: equal rows of different bands say nothing
    mixed = np.arange(1, PERMUTATIONS // rows + 1, dtype=np.uint64)
    for row in signature[: len(mixed) * rows].reshape(len(mixed), rows).T:
        mixed = (mixed + row) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed.astype("<u8").tobytes()
