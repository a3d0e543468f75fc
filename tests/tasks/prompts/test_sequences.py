"""What the loss is measured on, and which tokens count."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.models.base_model import ModelConfig, locate
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.prompts.sequences import choose
from tasks.tokenization import RETENTION, STAGE, Format, TokenizationConfig
from tests.conftest import BASE_MODEL
from tests.tasks.generation.world import World
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import write_sample


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def test_the_first_and_masked_tokens_do_not_count(tmp_path: Path) -> None:
    row = {"repo": "r", "path": "p", "chunk": 0, "input_ids": [1, 5, 6, 8, 7], "completion_mask": [1, 0, 1, 1, 1]}
    (found,) = choose([write(tmp_path / "t.parquet", [row])], 10, seed=0)
    assert found.counts == (False, False, True, True, True) and found.tokens == 3


def test_an_end_of_text_counts_where_it_begins_texts_too(tmp_path: Path) -> None:
    """StarCoder's and GPT-2's `<|endoftext|>` is BOS and EOS."""
    tokenizer = load_tokenizer(toys.byte_level(tmp_path / "toy", bos="<|endoftext|>", template=True))
    assert tokenizer.bos == tokenizer.eos is not None
    ids = [tokenizer.bos, *encode(tokenizer, toys.CORPUS[0]), tokenizer.eos]
    (found,) = choose([write(tmp_path / "t.parquet", [{"repo": "r", "path": "p", "chunk": 0, "input_ids": ids}])], 9, 0)
    assert found.counts == (False, *[True] * (len(ids) - 1))


def test_a_few_chunks_come_from_all_repositories(small_world: World) -> None:
    files = [small_world.tokens.path / "held_out.parquet"]
    found = choose(files, 8, seed=3)
    assert len({chunk.repo for chunk in found}) == 8
    assert found == choose(files, 8, seed=3) != choose(files, 8, seed=4)


@pytest.mark.parametrize("add_eos", [True, False])
@pytest.mark.parametrize("format", ["causal", "fim"])
def test_code_from_elsewhere_is_framed_as_held_out_code_is(add_eos: bool, format: Format, tmp_path: Path) -> None:  # noqa: A002
    """Whatever is trained on: a loss there is comparable to one here."""
    model, tokenizer = locate(ModelConfig(name=str(BASE_MODEL))), load_tokenizer(BASE_MODEL)
    texts = ["int main(void) { return 0; }\n" * number for number in (1, 9)]
    sample = write_sample(tmp_path, texts, texts)
    config = TokenizationConfig(format=format, max_length=64, add_eos=add_eos, fim_rate=1.0)
    places = {}
    for name, stage, settings in (("here", STAGE, config), ("elsewhere", RETENTION, config.held_out)):
        (tmp_path / name).mkdir()
        places[name] = stage.run(settings, sample=sample, model=model, workdir=tmp_path / name).path
    here = choose([places["here"] / "held_out.parquet"], 100, seed=0)
    both = [places["elsewhere"] / f"{side}.parquet" for side in ("held_out", "train")]
    elsewhere = choose(both, 100, seed=0, domain="retention")
    assert {one.domain for one in elsewhere} == {"retention"} and len(elsewhere) == 2 * len(here) > 4
    assert {one.input_ids for one in elsewhere} == {one.input_ids for one in here}
    ends = sum(one.input_ids[-1] == tokenizer.eos for one in here)
    assert ends == (len(texts) if add_eos else 0) and {one.input_ids[0] for one in here} == {tokenizer.bos}


def test_chunks_in_which_nothing_counts_are_left_out(tmp_path: Path) -> None:
    row = {"repo": "r", "path": "p", "chunk": 0, "input_ids": [1]}
    assert choose([write(tmp_path / "t.parquet", [row])], 10, seed=0) == []
