"""Copies are found wherever they stand and however they are laid out; look-alikes are not."""

from __future__ import annotations

import random
import re
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.contamination import (
    Documents,
    EvaluationText,
    TrainingText,
    documents,
    documents_with,
    files,
    find,
    items_in,
    judged,
    overlap,
    shingles,
)
from tests.memory import peak

LIBRARY = Path(sysconfig.get_paths()["stdlib"])
TRAINING = [TrainingText(path.name, path.read_text()) for path in sorted(LIBRARY.glob("*.py"))[:60]]
PROMPT = '''def tidal_ranks(harbours, moon):
    """Sort harbours by how far the water falls between a high tide and the next low tide under that moon.

    >>> tidal_ranks({"Granville": 12.4, "Split": 0.3}, "new")
    ["Granville", "Split"]
    """
'''
SOLUTION = """    swing = {name: metres * (1.2 if moon in ("new", "full") else 0.8) for name, metres in harbours}
    ordered = sorted(swing, key=lambda name: (-swing[name], name))
    return [name for name in ordered if swing[name] > 0.05]
"""
ITEM = EvaluationText("tides/1", {"prompt": PROMPT, "solution": SOLUTION})


def inside(text: str) -> list[TrainingText]:
    """The training data with a text in the middle of one of its files."""
    host = TRAINING[20].text
    middle = host.index("\n", len(host) // 2)
    return [*TRAINING[:20], TrainingText("host.py", f"{host[:middle]}\n{text}\n{host[middle:]}"), *TRAINING[21:]]


def test_nothing_is_found_where_nothing_was_copied() -> None:
    assert find(TRAINING, [ITEM]) == []


@pytest.mark.parametrize("part", ["prompt", "solution"])
def test_a_copy_is_exact_however_it_is_indented(part: str) -> None:
    text = re.sub(r"(?m)^ *", "\t\t", ITEM.parts[part]).replace("\n", "\r\n\r\n")
    (found,) = find(inside(text), [ITEM])
    assert (found.item, found.part, found.kind, found.document, found.share) == ("tides/1", part, "exact", "host.py", 1)


def test_a_copy_with_changes_is_near() -> None:
    (found,) = find(inside(SOLUTION.replace("0.05", "0.07").replace("1.2", "1.3")), [ITEM])
    assert found.kind == "near" and 0.7 <= found.share < 1


def test_the_same_pieces_in_another_order_are_not_exact() -> None:
    lines = SOLUTION.splitlines()
    (found,) = find(inside("\n".join([*lines[1:], lines[0]])), [ITEM])
    assert found.kind == "near"


def test_another_solution_of_the_same_problem_is_no_copy() -> None:
    other = "def tidal_ranks(harbours, moon):\n    return sorted(harbours, key=harbours.get, reverse=True)\n"
    assert find(inside(other), [ITEM]) == []


def test_renaming_everything_escapes() -> None:
    """What shingles cannot see; said so that nobody relies on it."""
    renamed = re.sub(r"[a-z_]{4,}", lambda word: word[0][::-1], SOLUTION)
    assert find(inside(renamed), [ITEM]) == []


def test_the_worst_document_is_told() -> None:
    near = TrainingText("near.py", SOLUTION.replace("0.05", "0.07"))
    training = [near, TrainingText("exact.py", SOLUTION), TrainingText("later.py", SOLUTION)]
    for order in (training, training[::-1]):
        (found,) = find(order, [ITEM])
        assert found.kind == "exact" and found.document in ("exact.py", "later.py")


def test_items_come_in_their_order_whatever_the_order_of_the_training_data() -> None:
    items = [
        EvaluationText(document.id, {"file": document.text}) for document in TRAINING[:12] if len(document.text) > 2000
    ]
    shuffled = random.Random(1).sample(TRAINING, len(TRAINING))
    assert [found.item for found in find(shuffled, items)] == [item.id for item in items]


def test_what_is_too_short_is_not_judged() -> None:
    short = EvaluationText("short", {"solution": "    return number % 1.0\n"})
    assert not judged(short) and judged(ITEM)
    assert find([TrainingText("a", "return number % 1.0")], [short]) == find([], [ITEM]) == find(TRAINING, []) == []


def test_a_sample_is_read_as_it_lies_in_the_store(tmp_path: Path) -> None:
    rows = [{"repo": "ours", "path": "tides.py", "content": PROMPT + SOLUTION, "size": 1}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train.parquet")
    (found,) = find(documents(tmp_path / "train.parquet"), files(tmp_path / "train.parquet"))
    assert (found.item, found.document, found.part, found.kind) == ("ours/tides.py", "ours/tides.py", "file", "exact")


def test_so_many_items_at_a_time_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    items = [EvaluationText(text.id, {"file": text.text}) for text in TRAINING[::3]]
    reads = []

    def read() -> Iterator[TrainingText]:
        reads.append(1)
        yield from TRAINING[:30]

    at_once = find(Documents(read), items)
    monkeypatch.setattr(overlap, "AT_ONCE", 6)
    assert find(Documents(read), items) == at_once and len(at_once) == 10
    assert len(reads) > 3  # once, and then for each group


def test_of_two_groups_one_is_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [" ".join(f"w{number}_{place}" for place in range(500)) for number in range(8)]
    parts = [EvaluationText(str(number), {"file": text}) for number, text in enumerate(words)]

    monkeypatch.setattr(overlap, "AT_ONCE", 4)
    find(TRAINING[:3], parts)  # imports, and hashes of words
    assert peak(lambda: find(TRAINING[:3], parts)) < 1.5 * (1 << overlap._KNOWN_BITS)  # bytes of an index's table


def test_what_can_be_read_once_only_is_refused() -> None:
    with pytest.raises(AssertionError, match="Documents"):
        find(iter(TRAINING), [ITEM])


def edited(text: str, share: float, seed: int) -> str:
    """With so many of its words renamed, some of them again and again."""
    chosen, words = random.Random(seed), re.split(r"(\w+)", text)
    return "".join(f"{word}_{seed}" if n % 2 and chosen.random() < share else word for n, word in enumerate(words))


def test_the_pairs_are_those_of_an_exact_comparison_of_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_COMPACTED", 7)
    texts = [text for text in TRAINING if len(text.text) > 1000][:16]
    items = [
        EvaluationText(f"{text.id}:{part}", {"file": edited(text.text[:8000], part / 100, part)})
        for text in texts
        for part in range(3, 24, 4)  # around the threshold
    ]
    exact: dict[str, tuple[str, float]] = {}
    runs = {text.id: shingles(text.text) for text in texts}
    for item in items:
        mine = shingles(item.parts["file"])
        for name, others in runs.items():
            share = len(np.intersect1d(mine, others)) / len(mine)
            if share >= 0.7 and share > exact.get(item.id, ("", 0))[1]:
                exact[item.id] = (name, share)
    found = {one.item: (one.document, one.share) for one in find(texts, items)}
    assert found == exact and len(items) / 4 < len(exact) < len(items) * 3 / 4
    assert items_in(texts, items) == exact.keys()
    assert documents_with(texts, items) == {document for document, _ in exact.values()}


def spread(name: str, count: int = 60) -> str:
    return " ".join(f"{name}{number}" for number in range(count))


def test_what_only_shares_a_licence_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    compared, really = [], overlap._are_in
    monkeypatch.setattr(overlap, "_are_in", lambda *pair: compared.append(1) or really(*pair))
    licence = spread("licence")
    training = [TrainingText(str(n), f"{licence} {spread(f't{n}x')}") for n in range(100)]
    items = [EvaluationText(str(n), {"file": f"{licence} {spread(f'i{n}x')}"}) for n in range(50)]
    assert items_in(training, items) == set() and not compared
    items.append(EvaluationText("copy", {"file": f"{licence} {spread('t7x')} {spread('new', 30)}"}))
    assert items_in(training, items) == {"copy"} and documents_with(training, items) == {"7"}
    assert len(compared) == 2


@pytest.mark.parametrize("text", ["a " * 40, "a b " * 20, "\ud800 = '\udfff' " * 9, spread("w", 20)])
def test_few_different_runs_are_enough(text: str) -> None:
    training = [TrainingText("other", spread("o", 90)), TrainingText("copy", f"{spread('p')} {text} {spread('q')}")]
    (found,) = find(training, [EvaluationText("short", {"prompt": text})])
    assert (found.document, found.kind, found.share) == ("copy", "exact", 1)


def test_more_than_fits_in_memory_is_in_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlap, "_IN_MEMORY", 100)
    items = [EvaluationText(text.id, {"file": text.text}) for text in TRAINING[:9]]
    assert find(TRAINING, items, tmp_path) == find(TRAINING, items) and not list(tmp_path.iterdir())
    with pytest.raises(FileNotFoundError, match="gone"):
        find(TRAINING, items, tmp_path / "gone")
