"""What the loss is measured on, and which tokens count."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.prompts.gaps import HeldOutFile
from tasks.prompts.sequences import choose, cut
from tests.conftest import BASE_MODEL
from tests.tasks.generation.world import World
from tests.tasks.tokenization import toys


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_first_and_masked_tokens_do_not_count(tmp_path: Path) -> None:
    row = {"repo": "r", "path": "p", "chunk": 0, "input_ids": [1, 5, 6, 8, 7], "completion_mask": [1, 0, 1, 1, 1]}
    (found,) = choose(write(tmp_path / "t.parquet", [row]), 10, seed=0)
    assert found.counts == (False, False, True, True, True) and found.tokens == 3


def test_an_end_of_text_counts_where_it_begins_texts_too(tmp_path: Path) -> None:
    """StarCoder's and GPT-2's `<|endoftext|>` is BOS and EOS."""
    tokenizer = load_tokenizer(toys.byte_level(tmp_path / "toy", bos="<|endoftext|>", template=True))
    assert tokenizer.bos == tokenizer.eos is not None
    (found,) = cut([HeldOutFile("r", "a.py", "Python", toys.CORPUS[0])], tokenizer, 9, 64, seed=0)
    assert found.input_ids[0] == found.input_ids[-1] == tokenizer.eos and found.counts[-1]
    row = {"repo": "r", "path": "p", "chunk": 0, "input_ids": list(found.input_ids)}
    (chosen,) = choose(write(tmp_path / "t.parquet", [row]), 10, seed=0)
    assert chosen.counts == found.counts


def test_a_few_chunks_come_from_all_repositories(small_world: World) -> None:
    path = small_world.tokens.path / "held_out.parquet"
    found = choose(path, 8, seed=3)
    assert len({chunk.repo for chunk in found}) == 8
    assert found == choose(path, 8, seed=3) != choose(path, 8, seed=4)


def test_files_of_the_kept_sample_begin_with_bos_and_end_with_eos() -> None:
    tokenizer = load_tokenizer(BASE_MODEL)
    files = [HeldOutFile(f"r{number}", "a.c", "C", "int main(void) { return 0; }\n" * number) for number in (1, 9)]
    short, *long = sorted(cut(files, tokenizer, 100, 64, seed=0), key=lambda chunk: (chunk.repo, chunk.chunk))
    assert len(long) > 1 and {one.repo for one in long} == {"r9"}
    assert [one.input_ids[-1] == tokenizer.eos for one in (short, *long)] == [True, *[False] * (len(long) - 1), True]
    assert all(
        one.input_ids[0] == tokenizer.bos and one.counts == (False, *[True] * (len(one.counts) - 1)) for one in long
    )
    assert short.tokens == len(encode(tokenizer, files[0].content)) + 1


def test_nothing_to_measure_is_said(tmp_path: Path) -> None:
    row = {"repo": "r", "path": "p", "chunk": 0, "input_ids": [1]}
    with pytest.raises(InputError) as refused:
        choose(write(tmp_path / "t.parquet", [row]), 10, seed=0)
    assert refused.value.field == "sampling"
