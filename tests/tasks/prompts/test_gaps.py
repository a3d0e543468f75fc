"""Items: gaps worth asking for, and prompts that are right to the token."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest

from artifacts.errors import InputError
from tasks.families.context import Names, repository_context
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, encode, load_tokenizer
from tasks.prompts import PromptsConfig
from tasks.prompts.files import HeldOutFile, HeldOutFiles
from tasks.prompts.gaps import block_items, context_items, fim_items, line_items, spread
from tasks.related import Repositories
from tests.conftest import BASE_MODEL
from tests.tasks.generation.world import NAMES, source
from tests.tasks.prompts.stored import stored
from tests.tasks.tokenization import toys

CONFIG = PromptsConfig(line_prompts=16, fim_prompts=16, prompt_tokens=64, max_new_tokens=32)
FILES = [HeldOutFile(name, "main.py", "Python", source(name)) for name in NAMES]


@pytest.fixture(scope="module")
def tokenizer() -> CodeTokenizer:
    return load_tokenizer(BASE_MODEL)


@pytest.fixture
def files(tmp_path: Path) -> HeldOutFiles:
    return stored(tmp_path, FILES)


Storing = Callable[[str], HeldOutFiles]


@pytest.fixture
def python(tmp_path: Path) -> Storing:
    """A file of this text."""
    return lambda text: stored(tmp_path, [HeldOutFile("repo", "a.py", "Python", text)])


def test_a_fim_prompt_token_by_token(python: Storing, tokenizer: CodeTokenizer) -> None:
    text = "import os\n\n    value = compute(1)\n    done()\n"
    (item,) = fim_items(python(text), tokenizer, CONFIG)
    fim = FimTokens.of(tokenizer)
    assert item.prompt_ids == (
        tokenizer.bos,
        fim.prefix,
        *encode(tokenizer, "import os\n\n"),
        fim.suffix,
        *encode(tokenizer, "    done()\n", continues=True),
        fim.middle,
    )
    assert (item.prompt, item.truth, item.suffix) == ("import os\n\n", "    value = compute(1)", "    done()\n")
    assert item.line == 3


def test_a_next_line_prompt_token_by_token(python: Storing, tokenizer: CodeTokenizer) -> None:
    (item,) = line_items(python("import os\n\n    value = compute(1)\n    x()\n"), tokenizer, CONFIG)
    assert item.prompt_ids == (tokenizer.bos, *encode(tokenizer, "import os\n\n"))
    assert item.prompt_ids[-1] == encode(tokenizer, "\n", continues=True)[-1]
    assert item.truth == "    value = compute(1)"


def test_a_block_is_whole_lines_with_their_indentation(files: HeldOutFiles, tokenizer: CodeTokenizer) -> None:
    for item in block_items(files, tokenizer, CONFIG.model_copy(update={"block_prompts": 16})):
        lines = item.truth.split("\n")
        assert 2 <= len(lines) <= 4 and lines[-1].strip()
        assert source(item.repo).split("\n")[item.line - 1 :][: len(lines)] == lines
        assert item.prompt + item.truth + "\n" + item.suffix in source(item.repo)


def test_the_same_gaps_are_asked_behind_other_files(tmp_path: Path, tokenizer: CodeTokenizer) -> None:
    files = stored(tmp_path, [HeldOutFile("one", f"{name}.py", "Python", source(name)) for name in NAMES])
    config = CONFIG.model_copy(update={"context_tokens": 100})
    alone, behind = fim_items(files, tokenizer, config), context_items(files, tokenizer, config)
    fim = FimTokens.of(tokenizer)
    rows = [asdict(file) for file in files]
    with Repositories(rows, tmp_path, 1600) as repositories:
        for one, other in zip(alone, behind, strict=True):
            assert (one.path, one.line, one.truth, one.prompt) == (other.path, other.line, other.truth, other.prompt)
            related = repositories.related(next(row for row in rows if row["path"] == one.path))
            before = repository_context(tokenizer, fim, related, Names(), 100)
            assert other.prompt_ids == (*before, *one.prompt_ids) and 50 < len(before) <= 100
            assert other.suite == "context" and other.new_tokens == one.new_tokens


def test_nothing_is_asked_behind_other_files_where_there_are_none(
    files: HeldOutFiles, tokenizer: CodeTokenizer
) -> None:
    assert context_items(files, tokenizer, CONFIG.model_copy(update={"context_tokens": 100})) == []


@pytest.mark.parametrize("suite", [line_items, fim_items])
def test_prompts_stand_in_the_file_around_the_truth(suite, files: HeldOutFiles, tokenizer: CodeTokenizer) -> None:  # type: ignore[no-untyped-def]
    items = suite(files, tokenizer, CONFIG)
    assert len(items) == 16
    for item in items:
        content = source(item.repo)
        assert item.prompt + item.truth + "\n" + item.suffix in content
        assert content.split("\n")[item.line - 1] == item.truth
        assert len(item.prompt_ids) <= 64


def test_long_contexts_are_cut_far_from_the_gap(python: Storing, tokenizer: CodeTokenizer) -> None:
    lines = [f"value_{number} = compute({number})" for number in range(400)]
    config = CONFIG.model_copy(update={"prompt_tokens": 90})
    item = next(i for i in fim_items(python("\n".join(lines)), tokenizer, config) if 50 < i.line < 350)
    fim = FimTokens.of(tokenizer)
    ids = list(item.prompt_ids)
    prefix, suffix = ids[2 : ids.index(fim.suffix)], ids[ids.index(fim.suffix) + 1 : -1]
    assert len(ids) == 90 and len(suffix) == 86 // 3
    assert decode(tokenizer, prefix, continues=True).endswith(lines[item.line - 2] + "\n")
    assert decode(tokenizer, suffix, continues=True).startswith(lines[item.line])


def test_room_that_the_prefix_leaves_goes_to_the_suffix(python: Storing, tokenizer: CodeTokenizer) -> None:
    text = "import os\nvalue = compute(1)\n" + "x = 1\n" * 200
    (item,) = fim_items(python(text), tokenizer, CONFIG)
    assert len(item.prompt_ids) == 64 and len(item.suffix) > len(item.prompt)


def test_trivial_lines_are_not_asked_for(python: Storing, tokenizer: CodeTokenizer) -> None:
    text = "first = something\n\n# a comment line\n    )\nelse:\nx = 1\n" + "y" * 500 + "\nreturn value_of(x)\n"
    items = line_items(python(text), tokenizer, CONFIG)
    assert [item.truth for item in items] == ["return value_of(x)"]


def test_lines_that_no_answer_could_hold_are_not_asked_for(files: HeldOutFiles, tokenizer: CodeTokenizer) -> None:
    every = CONFIG.model_copy(update={"line_prompts": 1000})

    def lengths(config: PromptsConfig) -> set[int]:
        return {len(encode(tokenizer, item.truth, continues=True)) for item in line_items(files, tokenizer, config)}

    longest = max(lengths(every))
    assert lengths(every.model_copy(update={"max_new_tokens": longest})) == lengths(every) - {longest}


def test_special_tokens_in_a_file_stay_text(python: Storing, tokenizer: CodeTokenizer) -> None:
    text = "text = '<s> ▁<PRE> </s>'\nreturn text_with('▁<MID>')\nx = '▁<SUF>'\n"
    (item,) = fim_items(python(text), tokenizer, CONFIG)
    fim = FimTokens.of(tokenizer)
    counts = Counter(item.prompt_ids)
    assert all(counts[mark] == 1 for mark in (tokenizer.bos, fim.prefix, fim.suffix, fim.middle))
    assert item.prompt == "text = '<s> ▁<PRE> </s>'\n"


def test_the_choice_is_seeded_and_even(files: HeldOutFiles, tokenizer: CodeTokenizer) -> None:
    items = line_items(files, tokenizer, CONFIG)
    assert Counter(item.repo for item in items) == dict.fromkeys(NAMES, 2)
    assert items == line_items(files, tokenizer, CONFIG)
    assert items != line_items(files, tokenizer, CONFIG.model_copy(update={"seed": 1}))


def test_spread_takes_one_of_each_cluster_in_turn() -> None:
    clusters = ["big"] * 50 + ["small", "other"]
    order = list(spread(clusters, random.Random(0)))
    assert sorted(order) == list(range(52))
    assert {clusters[index] for index in order[:3]} == {"big", "small", "other"}


def test_other_tokenizers_get_their_own_prompts(python: Storing, files: HeldOutFiles, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toys.byte_level(tmp_path))
    (item,) = fim_items(python("import os\nvalue = compute(1)\nx()\n"), tokenizer, CONFIG)
    fim = FimTokens.of(tokenizer)
    assert item.prompt_ids[0] == fim.prefix and item.prompt_ids[-1] == fim.middle
    with pytest.raises(InputError, match="no fill-in-the-middle tokens"):
        fim_items(files, load_tokenizer(toys.code_llama(tmp_path / "plain", fim=False)), CONFIG)
