"""Rearranged chunks token by token, and what decides them."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, encode, load_tokenizer
from tasks.tokenization import infilling
from tasks.tokenization.chunks import Framing, TokenizedFile
from tasks.tokenization.infilling import Infilling, draw_span
from tests.tasks.tokenization import toys

TEXT = "".join(toys.CORPUS)
BOS, PRE, SUF, MID, EOT = 1, 32007, 32008, 32009, 32010


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CodeTokenizer:
    return load_tokenizer(toys.code_llama(tmp_path_factory.mktemp("toy")))


def chunks(
    tokenizer: CodeTokenizer, *, sha: str = "a", rate: float = 1.0, spm: float = 0.5, seed: int = 1, length: int = 64
) -> list[list[int]]:
    document = TokenizedFile("repo", "a.py", sha, "Python", encode(tokenizer, TEXT))
    made = Infilling(FimTokens.of(tokenizer), rate, spm, seed)
    return [chunk.ids for chunk in made.chunks(tokenizer, document, Framing.of(tokenizer, length, add_eos=True))]


def test_prefix_first(tokenizer: CodeTokenizer) -> None:
    ids = chunks(tokenizer, spm=0.0, length=2048)[0]
    at_suffix, at_middle = ids.index(SUF), ids.index(MID)
    prefix, suffix, middle = ids[2:at_suffix], ids[at_suffix + 1 : at_middle], ids[at_middle + 1 : -1]
    assert (ids[:2], ids[-1], [*map(ids.count, (BOS, PRE, SUF, MID, EOT, 2))]) == ([BOS, PRE], EOT, [1, 1, 1, 1, 1, 0])
    before, between = decode(tokenizer, prefix), decode(tokenizer, middle, continues=True)
    after = decode(tokenizer, suffix, continues=True)
    assert before + between + after == TEXT and between
    assert prefix == encode(tokenizer, before) and suffix == encode(tokenizer, after, continues=True)


def test_suffix_first(tokenizer: CodeTokenizer) -> None:
    ids = chunks(tokenizer, spm=1.0, length=2048)[0]
    at_middle = ids.index(MID)
    assert ids[:3] == [BOS, PRE, SUF] and ids[-1] == EOT
    joined, after = decode(tokenizer, ids[at_middle + 1 : -1]), decode(tokenizer, ids[3:at_middle], continues=True)
    assert joined + after == TEXT
    assert ids[at_middle + 1 : -1] == encode(tokenizer, joined)  # prefix and middle as one, without a seam


def test_shares_are_as_asked_for(tokenizer: CodeTokenizer) -> None:
    kinds: Counter[str] = Counter()
    for sha in map(str, range(1000)):
        ids = chunks(tokenizer, sha=sha, rate=0.4, spm=0.25)[0]  # begins the file, so that its prefix is never empty
        kinds["causal" if PRE not in ids else "spm" if ids[2] == SUF else "psm"] += 1
    rearranged = kinds["spm"] + kinds["psm"]
    assert 0.35 < rearranged / kinds.total() < 0.45
    assert 0.18 < kinds["spm"] / rearranged < 0.32


def test_draws_depend_on_seed_file_and_chunk_only(tokenizer: CodeTokenizer) -> None:
    first = chunks(tokenizer)
    random.seed(99)
    assert chunks(tokenizer) == first
    assert chunks(tokenizer, seed=2) != first and chunks(tokenizer, sha="b") != first


def test_a_good_part_of_the_middles_is_whole_lines() -> None:
    generator = random.Random(5)
    lines = {line.strip() for line in TEXT.split("\n")}
    spans = [draw_span(TEXT, generator) for _ in range(1000)]
    middles = [TEXT[span[0] : span[1]] for span in spans if span]
    assert len(middles) > 990 and all(middles) and min(span for span in spans if span)[0] == 0
    assert 0.3 < sum(middle.strip() in lines for middle in middles) / 1000 < 0.7
    assert sum("\n" in middle.strip() for middle in middles) > 100


def test_only_a_later_chunk_may_begin_with_its_middle(tokenizer: CodeTokenizer) -> None:
    """An empty prefix means: the suffix comes first."""
    made = [chunks(tokenizer, sha=str(n), spm=0.0) for n in range(60)]
    assert all(each[0][:2] == [BOS, PRE] and each[0][2] != SUF for each in made)
    assert any(chunk[:3] == [BOS, PRE, SUF] for each in made for chunk in each[1:])


@pytest.mark.parametrize("drawing", [each for each, _ in infilling._DRAWINGS], ids=lambda each: each.__name__)
def test_kinds_of_middles(drawing: infilling.Drawing) -> None:
    text = "\n\n    if x:\n        y = 1\n\n\tz\n  last"
    lines = infilling._filled_lines(text)
    assert [text[start:end] for start, end in lines] == ["    if x:", "        y = 1", "\tz", "  last"]
    generator = random.Random(3)
    drawn = {drawing(text, lines, generator) for _ in range(2000)}
    assert all(0 <= start <= end <= len(text) for start, end in drawn)
    middles = {text[start:end] for start, end in drawn}
    whole = {text[start:end] for start, end in lines}
    match drawing.__name__:
        case "_whole_line":
            newlines = {f"{line}\n" for line in whole if line != "  last"}
            assert middles == {*whole, *newlines, *(line.lstrip() for line in (*whole, *newlines))}
        case "_end_of_line":
            assert middles == {line.strip()[n:] for line in whole for n in range(len(line.strip()))}
        case "_within_line":
            assert middles == {
                line[a:b] for line in whole for a in range(len(line) + 1) for b in range(a, len(line) + 1)
            }
        case "_block":
            assert "last" in {middle.strip() for middle in middles} and text.lstrip("\n") in middles
            assert {middle.splitlines()[0] for middle in middles} == whole
        case _:
            assert {start for start, _ in drawn} >= {0} and {end for _, end in drawn} >= {len(text)}


def test_nothing_to_rearrange() -> None:
    assert draw_span("", random.Random(1)) is None
    assert draw_span("x", random.Random(1), least=1) is None
