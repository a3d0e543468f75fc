"""The loss is the model's negative log-likelihood of what counts, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from artifacts.errors import InputError, StageError
from tasks.backends.transformers.inference import Modules
from tasks.generation.losses import LOGIT_ROWS, HeldOutSequence, batches, choose, cut, measure
from tasks.generation.suites import HeldOutFile
from tasks.models.vocabulary import encode, load_tokenizer
from tests.conftest import BASE_MODEL
from tests.tasks.generation.world import World, toy
from tests.tasks.tokenization import toys


def chunk(ids: list[int], counts: list[bool] | None = None) -> HeldOutSequence:
    return HeldOutSequence("repo", "a.py", 0, tuple(ids), tuple(counts or [False] + [True] * (len(ids) - 1)))


def by_hand(ids: list[int], counted: list[int]) -> float:
    """Sum over positions in `counted`, in float64 from one chunk's logits."""
    with torch.inference_mode():
        logits = toy()(input_ids=torch.tensor([ids])).logits[0].double().numpy()
    logits -= logits.max(-1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    return float(-sum(np.log(probabilities[position - 1, ids[position]]) for position in counted))


def test_loss_is_the_cross_entropy_computed_by_hand() -> None:
    long, short = list(range(5, 45)), [7, 3, 9, 9]
    sums = measure(Modules(toy()), [chunk(short), chunk(long)], batch_size=2)
    assert sums[0] == pytest.approx(by_hand(short, [1, 2, 3]), rel=1e-5)
    assert sums[1] == pytest.approx(by_hand(long, list(range(1, 40))), rel=1e-5)


def test_only_what_counts_is_counted() -> None:
    ids = [1, 20, 30, 40, 50]
    sums = measure(Modules(toy()), [chunk(ids, [False, False, True, False, True])], batch_size=1)
    assert sums[0] == pytest.approx(by_hand(ids, [2, 4]), rel=1e-5)


def test_padding_and_batch_mates_change_nothing() -> None:
    chunks = [chunk(list(range(3, 3 + length))) for length in (4, 30, 9, 17, 30)]
    assert measure(Modules(toy()), chunks, batch_size=5) == pytest.approx(
        measure(Modules(toy()), chunks, batch_size=1), rel=1e-5
    )


def test_batches_hold_like_lengths_and_bounded_positions() -> None:
    lengths = [3, 900, 5, 2000, 4, 1000]
    found = batches(lengths, 3)
    assert sorted(index for batch in found for index in batch) == list(range(6))
    assert found[0] == [3, 5] and found[1] == [1, 2, 4]
    assert all(len(batch) * max(lengths[i] for i in batch) <= LOGIT_ROWS for batch in found)
    assert batches([2 * LOGIT_ROWS], 8) == [[0]]


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
    with pytest.raises(InputError, match="no held-out text"):
        choose(write(tmp_path / "t.parquet", [row]), 10, seed=0)


def test_a_loss_that_is_not_finite_names_the_chunk() -> None:
    model = toy()
    model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(StageError, match=r" 0 of repo/a\.py .*nan"):
        measure(Modules(model), [chunk([3, 4, 5])], batch_size=1)
