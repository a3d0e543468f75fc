"""However many files are held out, memory stays as it is, and what is asked stays what it was."""

from __future__ import annotations

import random
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts import digest
from artifacts.rows import read_rows
from artifacts.schema import DatasetSample, SplitSize
from tasks.contamination import overlap
from tasks.models.base_model import ModelConfig, ModelReference, locate
from tasks.prompts import PromptsConfig, run_prompts
from tasks.tokenization import RETENTION, TokenizationConfig, run_tokenization
from tests.conftest import SMALL_MODEL
from tests.memory import peak
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference

SPAN = pa.struct([("start", pa.int64()), ("end", pa.int64()), ("unit", pa.string())])
SIZE = SplitSize(files=0, repositories=0, bytes=0)
ASKED = {
    "max_chunks": 30,
    "line_prompts": 10,
    "fim_prompts": 8,
    "block_prompts": 6,
    "prompt_tokens": 96,
    "context_tokens": 80,
}
ANSWERS = {
    False: "e8a2693554e9d9770f8884da32b9044d711fb2bd88e0bbed27aef9e0944e58d3",
    True: "ee216e38ea9f5c91cb38fbad7ac6247fc65788b11b850bb6ee10412c71ad3fe3",
}
"""Over all rows that are asked, of whole files and of lines that were added."""


def text(number: int, lines: int) -> str:
    """A file that imports the one before it; each has words of its own."""
    choice = random.Random(f"file {number}")
    words = ["ombre", "plinth", "grackle", "tarn", "gadfly", "ossuary", "vortex", "émeu"]
    body = (
        f"    {choice.choice(words)}_{line} = {choice.choice(words)}({choice.randrange(500)}, {choice.choice(words)})\n"
        for line in range(lines)
    )
    return f"import module_{number - 1}\n\ndef quell_{number}(zeta):\n" + "".join(body)


def write(path: Path, numbers: range, repositories: int, *, lines: int, added: bool = False) -> None:
    """A side of a sample, in row groups of 32 files."""
    rows: list[dict[str, Any]] = []
    for number in numbers:
        content = text(number, lines)
        row = {"repo": f"r{number % repositories}", "path": f"src/module_{number}.py", "language": "Python"}
        row |= {"sha256": str(number), "content": content, "license": "mit"}
        ends = [place + 1 for place, letter in enumerate(content) if letter == "\n"]
        row["added"] = [
            {"start": ends[line], "end": ends[line + 3], "unit": f"{number % 40}"}
            for line in range(3 + number % 3, len(ends) - 3, 5)
        ]
        rows.append(row)
    names = ("repo", "path", "language", "sha256", "license")
    schema = pa.schema([*((name, pa.string()) for name in names), ("content", pa.large_string())])
    schema = schema.append(pa.field("added", pa.list_(SPAN))) if added else schema
    pq.write_table(pa.Table.from_pylist(rows, schema), path, row_group_size=32)


def inputs(folder: Path, model: ModelReference, files: int, *, added: bool, lines: int = 12) -> dict[str, Any]:
    """A sample with so many files held out; every tenth of the first fifty is a training file too."""
    places = {name: folder / name for name in ("own", "other", "tokens", "other-tokens", "asked")}
    for place in places.values():
        place.mkdir(parents=True)
    write(places["own"] / "train.parquet", range(0, 50, 10), 7, lines=lines)
    write(places["own"] / "held_out.parquet", range(files), 7, lines=lines, added=added)
    write(places["other"] / "train.parquet", range(10**6, 10**6 + files), 5, lines=lines)
    write(places["other"] / "held_out.parquet", range(2 * 10**6, 2 * 10**6 + files), 6, lines=lines)
    told: dict[str, Any] = {"source": "test", "train": SIZE, "held_out": SIZE, "languages": {}, "licenses": {}}
    sample, retention = (
        DatasetSample(**told, funnel=(), path=places[name], added_lines=added and name == "own")
        for name in ("own", "other")
    )
    config = TokenizationConfig(max_length=64)
    return {
        "model": model,
        "sample": sample,
        "tokens": run_tokenization(config, sample=sample, model=model, workdir=places["tokens"]),
        "retention": retention,
        "retention_tokens": RETENTION.run(config, sample=retention, model=model, workdir=places["other-tokens"]),
        "workdir": places["asked"],
    }


@pytest.mark.parametrize("added", [False, True])
def test_the_same_sample_is_asked_the_same_as_ever(added: bool, tmp_path: Path) -> None:
    given = inputs(tmp_path, locate(ModelConfig(name=str(SMALL_MODEL))), 150, added=added)
    asked = run_prompts(PromptsConfig(**ASKED), **given)
    assert {one.item for one in asked.contaminated if one.domain == "held_out"}
    assert asked.looked_at == {"held_out": 150, "retention": 300}
    rows = {file.name: read_rows(asked.path / file.file) for file in (asked.losses, *asked.suites)}
    assert {name: len(found) for name, found in rows.items()} == {
        "losses": 60,
        "line": 20,
        "fim": 16,
        "block": 12,
        "context": 16,
    }
    found = [[{**row, "start": row.get("start", b"").hex()} for row in rows[name]] for name in sorted(rows)]
    told = [one.model_dump() for one in asked.contaminated]
    assert digest.of_json([found, told]) == ANSWERS[added]


@pytest.mark.parametrize("added", [False, True])
def test_memory_does_not_grow_with_the_files(added: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = reference(toys.byte_level(tmp_path / "model"))  # reading a large vocabulary would be the peak
    monkeypatch.setattr(overlap, "AT_ONCE", 64)  # and so would tables that grow up to a bound
    monkeypatch.setattr(overlap, "_KNOWN_BITS", 12)
    monkeypatch.setattr(overlap, "_hash_of", lambda word: zlib.crc32(word.encode()))
    few = {"max_chunks": 8, "line_prompts": 4, "fim_prompts": 4, "block_prompts": 4, "context_tokens": 80}
    config, peaks = PromptsConfig(**few), []
    for number, files in enumerate((64, 64, 1280)):  # the first run warms up imports
        given = inputs(tmp_path / str(number), small, files, added=added, lines=10)
        peaks.append(peak(partial(run_prompts, config, **given)))
    longer = sum(len(text(number, 10)) for number in range(64, 1280))
    assert peaks[2] - peaks[1] < longer / 2, peaks
