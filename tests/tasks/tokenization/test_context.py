"""Chunks behind other files of their repository."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts import digest
from artifacts.schema import DatasetSample, TokenizedDataset
from tasks.families.context import Names, repository_context
from tasks.families.marks import FimTokens
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import decode, load_tokenizer
from tasks.related import Repositories
from tasks.running.mapping import HERE, Mapper, in_order
from tasks.tokenization import TokenizationConfig, run_tokenization
from tasks.tokenization.chunks import decode_chunks
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference, write_sample

TEXTS = [f"from . import file{number + 3}\n" + toys.CORPUS[number % 3] * 9 for number in range(30)]
SETTINGS: dict[str, Any] = {
    "format": "fim",
    "fim_rate": 1.0,
    "spm_rate": 0.5,
    "max_length": 320,
    "context": {"share": 0.6, "max_tokens": 160},
}


@pytest.fixture(scope="module", params=["Code Llama", "Qwen2.5-Coder"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    folder = tmp_path_factory.mktemp("toy")
    if request.param == "Code Llama":
        return reference(toys.code_llama(folder))
    return reference(toys.byte_level(folder, names=toys.QWEN))


def two_repositories(folder: Path, texts: list[str] = TEXTS) -> DatasetSample:
    """Every third file is alone in a repository of its own."""
    sample = write_sample(folder / "sample", texts, texts[:4])
    path = sample.path / "train.parquet"
    table = pq.read_table(path)
    repos = [f"alone{number}" if number % 3 == 2 else "train" for number in range(table.num_rows)]
    pq.write_table(table.set_column(table.schema.get_field_index("repo"), "repo", pa.array(repos)), path)
    return sample


def run(
    folder: Path, sample: DatasetSample, model: ModelReference, mapper: Mapper = HERE, **changes: Any
) -> TokenizedDataset:
    folder.mkdir(parents=True, exist_ok=True)
    config = TokenizationConfig.model_validate(SETTINGS | changes)
    return run_tokenization(config, sample=sample, model=model, workdir=folder, mapper=mapper)


def test_every_file_comes_back_and_the_loss_counts_on_it_alone(tmp_path: Path, model: ModelReference) -> None:
    sample = two_repositories(tmp_path)
    made = run(tmp_path / "made", sample, model)
    tokenizer = load_tokenizer(model.metadata)
    fim = FimTokens.of(tokenizer)
    files: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(made.path / "train.parquet").to_pylist():
        files.setdefault(row["path"], []).append(row)
    assert [decode_chunks(tokenizer, rows).decode() for rows in files.values()] == TEXTS
    behind = [row for rows in files.values() for row in rows if 0 in row["completion_mask"]]
    for row in behind:
        first = row["completion_mask"].index(1)
        assert row["completion_mask"] == [0] * first + [1] * (len(row["input_ids"]) - first) and first <= 160
        assert row["input_ids"][first] == (fim.prefix if tokenizer.bos is None else tokenizer.bos)
        assert len(row["input_ids"]) <= 320 and not row["repo"].startswith("alone")
    assert made.train.made == {
        "behind files of its repository": len(behind),
        "not behind files of its repository: none is related": made.train.made[
            "not behind files of its repository: none is related"
        ],
    }
    assert made.held_out.made == {} and "completion_mask" not in pq.read_schema(made.path / "held_out.parquet").names
    assert sorted(path.name for path in made.path.iterdir()) == ["held_out.parquet", "train.parquet"]


def test_it_is_the_context_of_the_files_that_are_related(tmp_path: Path, model: ModelReference) -> None:
    sample = two_repositories(tmp_path)
    made = run(tmp_path / "made", sample, model)
    tokenizer = load_tokenizer(model.metadata)
    source = {row["path"]: row for row in pq.read_table(sample.path / "train.parquet").to_pylist()}
    with Repositories(source.values(), tmp_path, 160 * 16) as repositories:
        for row in pq.read_table(made.path / "train.parquet").to_pylist():
            before = row["input_ids"][: row["completion_mask"].index(1)]
            if not before:
                continue
            related = repositories.related(source[row["path"]])
            assert before == repository_context(tokenizer, FimTokens.of(tokenizer), related, Names(), 160)
            number = int(row["path"].removeprefix("src/file").removesuffix(".py"))
            imported = f"src/file{number + 3}.py"
            assert imported not in source or number % 3 == 2 or related[0].path == imported


class Elsewhere:
    """Parts several at once, each with all that it needs as a message."""

    workers = 2

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self.pool = pool

    def map(self, title: str, work: Any, items: Any, ahead: Any = None) -> Any:
        def arrived(message: bytes) -> Any:
            there, item = pickle.loads(message)
            return there(item)

        return in_order(lambda item: self.pool.submit(arrived, pickle.dumps((work, item))), items, lambda: 4)


def test_the_bytes_do_not_depend_on_who_computes_them(tmp_path: Path, model: ModelReference) -> None:
    sample = two_repositories(tmp_path)
    digests = set()
    with ThreadPoolExecutor(2) as pool:
        for name, mapper, size in (("a", HERE, 1), ("b", HERE, 1 << 20), ("c", Elsewhere(pool), 900)):
            made = run(tmp_path / name, sample, model, mapper, batch_bytes=size, syntax_rate=0.5)  # type: ignore[arg-type]
            digests.add((digest.of_files(made.path, ("train.parquet", "held_out.parquet")), str(made.train)))
    assert len(digests) == 1


def test_a_share_of_the_chunks_is_behind_other_files(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS * 3)
    shares = {}
    for share in (0.25, 1.0):
        made = run(tmp_path / str(share), sample, model, context={"share": share, "max_tokens": 160})
        shares[share] = made.train.made["behind files of its repository"] / made.train.chunks
    assert 0.15 < shares[0.25] < 0.4 and shares[1.0] > 0.9


def test_own_names_are_those_of_repository_and_file(tmp_path: Path) -> None:
    model = reference(toys.byte_level(tmp_path / "model", names=toys.QWEN))
    sample = write_sample(tmp_path / "sample", TEXTS)
    tokenizer = load_tokenizer(model.metadata)
    told = {}
    for names in ("own", "infill"):
        made = run(tmp_path / names, sample, model, context={"share": 1.0, "max_tokens": 160, "names": names})
        row = pq.read_table(made.path / "train.parquet").to_pylist()[0]
        told[names] = decode(tokenizer, row["input_ids"][: row["completion_mask"].index(1)])
    assert told["own"].startswith("train\nsrc/file3.py\n") and told["own"].endswith("\nsrc/file0.py\n")
    assert told["infill"].startswith("myproject\nsrc/file3.py\n") and told["infill"].endswith("\nfilename\n")


def test_the_file_gets_half_of_the_sequence_at_least(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS)
    made = run(tmp_path / "made", sample, model, context={"share": 1.0, "max_tokens": 5000})
    masks = [row["completion_mask"] for row in pq.read_table(made.path / "train.parquet").to_pylist()]
    assert 100 < max(mask.count(0) for mask in masks) <= 160
