"""MinHash finds the pairs that an exact comparison of all with all finds."""

from __future__ import annotations

import random
import sysconfig
from itertools import combinations
from pathlib import Path

import pytest

from tasks.contamination import bands, shingles, similarity
from tasks.contamination.similar import PERMUTATIONS, rows_of_a_band

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
WORDS = [f"word{number}" for number in range(3000)]


def in_bands(text: str, threshold: float = 0.7) -> set[bytes]:
    found = bands(text, threshold)
    return {found[at : at + 8] for at in range(0, len(found), 8)}


def pair(seed: int, share: float) -> tuple[str, str]:
    """Two documents of which this share of all different runs of five tokens is in both."""
    words = random.Random(seed).sample(WORDS, 604)
    common = round(share * 600)  # a word more is a run more
    alone = (600 - common) // 2
    first, second = words[: common + 4], [f"other{seed}x{n}" for n in range(2 * alone)]
    return " ".join(first + second[:alone]), " ".join(first + second[alone:])


def test_similarity_is_jaccards() -> None:
    one, other = (shingles(" ".join(words)) for words in (WORDS[:104], WORDS[20:124]))
    assert len(one) == len(other) == 100 and similarity(one, other) == 80 / 120
    assert similarity(one, one) == 1 and similarity(one, shingles("of no more than a few words")) == 0


def test_spaces_and_line_breaks_make_no_difference_and_order_does() -> None:
    text = (LIBRARY / "textwrap.py").read_text()
    assert similarity(shingles(text), shingles(text.replace("    ", "\t").replace("\n", "\r\n\r\n"))) == 1
    assert similarity(shingles(text), shingles(" ".join(reversed(text.split())))) < 0.3


@pytest.mark.parametrize(("threshold", "rows"), [(0.5, 3), (0.7, 6), (0.9, 14), (1.0, PERMUTATIONS)])
def test_bands_are_as_long_as_still_find_99_of_100(threshold: float, rows: int) -> None:
    assert rows_of_a_band(threshold) == rows
    assert 1 - (1 - threshold**rows) ** (PERMUTATIONS // rows) >= 0.99


def test_pairs_at_the_threshold_share_a_band_and_others_hardly() -> None:
    found = {}
    for share in (0.2, 0.7):
        pairs = [pair(seed, share) for seed in range(100)]
        assert all(abs(similarity(*map(shingles, both)) - share) < 0.01 for both in pairs)
        found[share] = sum(bool(in_bands(one) & in_bands(other)) for one, other in pairs)
    assert found[0.7] >= 97 and found[0.2] <= 3


def test_on_real_code_hardly_a_pair_is_missed() -> None:
    texts = [path.read_text() for path in sorted((LIBRARY / "encodings").glob("cp*.py"))[:30]]
    texts += [path.read_text() for path in sorted(LIBRARY.glob("*.py"))[:10]]
    exact = [shingles(text) for text in texts]
    shared = [in_bands(text) for text in texts]
    similar = {(a, b) for a, b in combinations(range(len(texts)), 2) if similarity(exact[a], exact[b]) >= 0.7}
    found = {(a, b) for a, b in similar if shared[a] & shared[b]}
    assert len(similar) > 10 and len(found) >= 0.96 * len(similar)


def test_what_is_too_short_has_no_bands() -> None:
    assert bands("import os\n" * 9, 0.7) == b"" and bands("import os\n" * 10, 0.7) != b""


def test_bands_are_the_same_on_every_machine() -> None:
    found = bands(" ".join(WORDS), 0.7)
    assert len(found) == 8 * 42 and found[:8].hex() == "c29f25f980866ec1"
