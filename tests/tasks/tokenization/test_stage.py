"""The stage on small samples: contents, bytes, memory, bad input."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts import digest
from artifacts.errors import InputError
from artifacts.presentation import Figure, Table
from artifacts.progress import SILENT, Progress, Tick
from tasks.models.base_model import ModelReference
from tasks.models.vocabulary import load_tokenizer
from tasks.tokenization import STAGE, TokenizationConfig, check_tokenization, run_tokenization, stage
from tasks.tokenization.chunks import decode_chunks
from tasks.tokenization.view import sections
from tests.memory import peak
from tests.tasks.families.models import LLAMA2
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference, write_sample

TEXTS = [text * (1 + number % 7) + f"# {number} ▁ 日本\r\n" for number, text in enumerate(toys.CORPUS * 30)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    folder = toys.code_llama(tmp_path_factory.mktemp("toy"))
    (folder / "chat_template.jinja").write_text(LLAMA2)
    return reference(folder)


def by_file(path: Path) -> dict[str, list[dict[str, Any]]]:
    files: dict[str, list[dict[str, Any]]] = {}
    for row in pq.read_table(path).to_pylist():
        files.setdefault(row["path"], []).append(row)
    return files


@pytest.mark.parametrize("form", ["causal", "fim", "instruct"])
def test_every_file_comes_back(tmp_path: Path, model: ModelReference, form: Any) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS)
    config = TokenizationConfig(format=form, max_length=96)
    handle = run_tokenization(config, sample=sample, model=model, workdir=tmp_path, progress=SILENT)
    files = by_file(tmp_path / "train.parquet")
    tokenizer = load_tokenizer(model.metadata)
    assert [decode_chunks(tokenizer, rows).decode() for rows in files.values()] == TEXTS
    assert all([row["chunk"] for row in rows] == list(range(len(rows))) for rows in files.values())
    tokens = sum(len(row["input_ids"]) for rows in files.values() for row in rows)
    assert (handle.train.tokens, handle.train.files) == (tokens, len(TEXTS))
    assert handle.train.padding == handle.train.chunks * 96 - tokens
    assert handle.train.text_bytes == sum(len(text.encode()) for text in TEXTS)


def test_provenance_and_types(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS[:3])
    run_tokenization(TokenizationConfig(format="instruct"), sample=sample, model=model, workdir=tmp_path)
    source = pq.read_table(sample.path / "train.parquet").to_pylist()[1]
    table = pq.read_table(tmp_path / "train.parquet")
    row = next(row for row in table.to_pylist() if row["path"] == source["path"])
    assert [row[name] for name in ("repo", "sha256", "language")] == ["train", source["sha256"], "Python"]
    assert str(table.schema.field("input_ids").type) == "list<element: int32>"
    assert len(row["completion_mask"]) == len(row["input_ids"])


@pytest.mark.parametrize("form", ["fim", "instruct"])
def test_held_out_text_is_causal(tmp_path: Path, model: ModelReference, form: Any) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS[:3], held_out=TEXTS[:9])
    config = TokenizationConfig(format=form, fim_rate=1.0)
    run_tokenization(config, sample=sample, model=model, workdir=tmp_path)
    rows = pq.read_table(tmp_path / "held_out.parquet").to_pylist()
    assert "completion_mask" not in rows[0] and not any(32007 in row["input_ids"] for row in rows)
    assert any(32007 in row["input_ids"] for row in pq.read_table(tmp_path / "train.parquet").to_pylist()) == (
        form == "fim"
    )


def test_same_bytes_whatever_the_batches(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS)
    digests = set()
    for size in (1, 1000, 1 << 20):
        folder = tmp_path / str(size)
        folder.mkdir()
        run_tokenization(TokenizationConfig(format="fim", batch_bytes=size), sample=sample, model=model, workdir=folder)
        digests.add(digest.of_files(folder, ("train.parquet", "held_out.parquet")))
    assert len(digests) == 1


def test_files_without_tokens_are_counted(
    tmp_path: Path, model: ModelReference, caplog: pytest.LogCaptureFixture
) -> None:
    sample = write_sample(tmp_path / "sample", ["", *TEXTS[:2], ""])
    handle = run_tokenization(TokenizationConfig(), sample=sample, model=model, workdir=tmp_path)
    assert handle.train.dropped == {"empty": 2} and handle.train.files == 2
    assert any({"2", "empty"} <= set(record.getMessage().split()) for record in caplog.records)


@pytest.fixture
def without_bytes(tmp_path: Path) -> ModelReference:
    """A model whose vocabulary has no bytes for the characters that it does not know."""
    folder = toys.code_llama(tmp_path / "model")
    description = json.loads((folder / "tokenizer.json").read_text())
    description["model"]["byte_fallback"] = False
    (folder / "tokenizer.json").write_text(json.dumps(description))
    return reference(folder)


def test_files_that_no_tokens_give_back_are_counted(tmp_path: Path, without_bytes: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", ["for", "日本", "", *["for item"] * 8], held_out=["for"])
    handle = run_tokenization(TokenizationConfig(), sample=sample, model=without_bytes, workdir=tmp_path)
    assert handle.train.dropped == {"cannot be tokenized exactly": 1, "empty": 1} and handle.train.files == 9
    assert {*by_file(tmp_path / "train.parquet")} == {"src/file0.py", *(f"src/file{n}.py" for n in range(3, 11))}


@pytest.mark.parametrize("side", ["train", "held_out"])
def test_a_tokenizer_that_fails_on_many_files_is_refused(
    side: str, tmp_path: Path, without_bytes: ModelReference
) -> None:
    texts = {"train": ["for"] * 8, "held_out": ["for"] * 8} | {side: ["", *["for"] * 8, "日本"]}
    sample = write_sample(tmp_path / "sample", texts["train"], held_out=texts["held_out"])
    with pytest.raises(InputError, match=r"give 1 of 9 files back \(11%\), such as \S+/src/file9\.py") as caught:
        run_tokenization(TokenizationConfig(), sample=sample, model=without_bytes, workdir=tmp_path)
    assert caught.value.field == "model.name"


def test_a_sample_without_any_text(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", [""])
    with pytest.raises(InputError, match="1 files: empty"):
        run_tokenization(TokenizationConfig(), sample=sample, model=model, workdir=tmp_path)


def test_memory_does_not_grow_with_the_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = reference(toys.byte_level(tmp_path / "model"))  # reading a large vocabulary would be the peak
    monkeypatch.setattr(stage, "GROUP_ROWS", 100)
    peaks = []
    for files in (60, 60, 480):  # the first run warms up imports
        sample = write_sample(tmp_path / "sample", (f"# {n}\n" + toys.CORPUS[n % 3] * 60 for n in range(files)))
        config = TokenizationConfig(batch_bytes=1 << 14)
        peaks.append(peak(partial(run_tokenization, config, sample=sample, model=small, workdir=tmp_path)))
    assert peaks[2] < 1.3 * peaks[1], peaks


def test_progress_reaches_the_end(tmp_path: Path, model: ModelReference) -> None:
    ticks: list[Tick] = []
    sample = write_sample(tmp_path / "sample", TEXTS[:20])
    progress = Progress(ticks.append)
    made = run_tokenization(TokenizationConfig(), sample=sample, model=model, workdir=tmp_path, progress=progress)
    last = [tick for tick in ticks if tick.title == "tokenizing train"][-1]
    assert last.fraction == 1.0 and last.details == {"tokens": made.train.tokens}


def test_sections_show_sizes_and_lengths(tmp_path: Path, model: ModelReference) -> None:
    sample = write_sample(tmp_path / "sample", TEXTS)
    handle = run_tokenization(TokenizationConfig(max_length=40), sample=sample, model=model, workdir=tmp_path)
    (section,) = sections(handle)
    table, figure = section.blocks
    assert isinstance(table, Table) and table.rows[0][1] == str(len(TEXTS)) and table.rows[0][5].endswith("%")
    assert isinstance(figure, Figure) and figure.image.startswith(b"<?xml") and sections(handle)[0] == section
    assert STAGE.sections is sections


@pytest.mark.parametrize(
    ("form", "length", "field"),
    [
        ("causal", 2049, "max_length"),
        ("instruct", 32, "max_length"),
        ("instruct", 256, "format"),
        ("fim", 256, "format"),
    ],
)
def test_what_does_not_fit_the_model(tmp_path: Path, form: Any, length: int, field: str) -> None:
    without_fim = reference(toys.code_llama(tmp_path / "model", fim=False))
    with pytest.raises(InputError) as caught:
        check_tokenization(form, length, without_fim)
    assert caught.value.field == f"tokenization.{field}" and caught.value.remedy
    check_tokenization("causal", 2048, without_fim)


def test_key_holds_only_what_the_format_uses() -> None:
    assert TokenizationConfig(seed=1).keyed() == TokenizationConfig(seed=2, batch_bytes=5).keyed()
    assert TokenizationConfig().keyed().keys().isdisjoint({"fim_rate", "spm_rate", "seed"})
    fim = TokenizationConfig(format="fim", seed=1)
    assert fim.keyed() != fim.model_copy(update={"seed": 2}).keyed()
