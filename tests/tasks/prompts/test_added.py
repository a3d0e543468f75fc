"""Lines that were added later: nothing else of their files is asked for, and nothing else counts."""

from __future__ import annotations

import tracemalloc
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from artifacts.rows import read_rows
from artifacts.schema import PromptSet
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.prompts.files import AddedLines, HeldOutFile
from tasks.prompts.sequences import choose_added
from tests.conftest import SMALL_MODEL
from tests.tasks.generation.world import NAMES, build, source

ADDED = "    gantry = Sprocket.émeu(7)\n    return gantry.ossuary(gantry, 19)\n"
TEXTS = {name: source(name) + "def pergola(self):\n" + ADDED + "\nlast = 'nothing that is asked'\n" for name in NAMES}


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> PromptSet:
    """Of each file two lines in its middle are asked for, with bytes of more than one in them and before them."""
    folder = tmp_path_factory.mktemp("added")
    world = build(folder, {name: "# é ü\n" + text for name, text in TEXTS.items()})
    table = pq.read_table(folder / "held_out.parquet")
    spans = [
        [{"start": place, "end": place + len(ADDED), "unit": f"{repo}/main.py"}]
        for repo, text in zip(table["repo"].to_pylist(), table["content"].to_pylist(), strict=True)
        for place in (text.index(ADDED),)
    ]
    kind = pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("unit", pa.string())]))
    pq.write_table(table.append_column("added", pa.array(spans, kind)), folder / "held_out.parquet")
    sample = world.sample.model_copy(update={"held_out_by": "release", "added_lines": 16, "path": folder})
    changed = type(world)(world.model, sample, world.tokens)
    return changed.ask(folder / "asked", max_chunks=100, line_prompts=100, fim_prompts=100, block_prompts=100)


def suite(asked: PromptSet, name: str) -> list[dict[str, Any]]:
    return read_rows(asked.path / "suites" / f"{name}.parquet")


def test_lines_and_blocks_are_those_that_were_added(asked: PromptSet) -> None:
    first, second = ADDED.splitlines()
    for name in ("line", "fim"):
        rows = suite(asked, name)
        assert {row["truth"] for row in rows} == {first, second} and len(rows) == 2 * len(NAMES)
        assert {row["repo"] for row in rows} == {f"{name}/main.py" for name in NAMES}
    assert {row["truth"] for row in suite(asked, "block")} == {f"{first}\n{second}"}
    assert all(row["prompt"].endswith("def pergola(self):\n") for row in suite(asked, "block"))


def test_the_loss_counts_tokens_of_added_lines_and_no_others(asked: PromptSet) -> None:
    tokenizer = load_tokenizer(SMALL_MODEL)
    counted: dict[str, bytes] = defaultdict(bytes)
    for row in read_rows(asked.path / "losses.parquet"):
        pairs = zip(row["input_ids"], row["counts"], strict=True)
        counted[row["repo"]] += b"".join(tokenizer.pieces[index] for index, counts in pairs if counts)
        assert row["path"] == "main.py" and len(row["input_ids"]) <= 64
    assert {name: text.decode() for name, text in counted.items()} == {f"{name}/main.py": ADDED for name in NAMES}


def test_how_it_was_held_out_is_passed_on(asked: PromptSet) -> None:
    assert asked.held_out_by == "release"


def test_what_is_not_asked_is_not_held_in_memory(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(SMALL_MODEL)
    text = "".join(f"value_{number} = other_{number}(value_{number - 1})\n" for number in range(100))
    ids = encode(tokenizer, text)
    added = (AddedLines(0, len(text), ""),)
    files = [
        HeldOutFile("r", f"{number}.py", "Python", text, added=(replace(added[0], unit=str(number)),))
        for number in range(400)
    ]
    rows = [{"repo": "r", "path": file.path, "chunk": 0, "language": "Python", "input_ids": ids} for file in files]
    kind = pa.schema([("repo", pa.string()), ("path", pa.string()), ("chunk", pa.int32()), ("language", pa.string())])
    kind = kind.append(pa.field("input_ids", pa.list_(pa.int32())))
    pq.write_table(pa.Table.from_pylist(rows, kind), tmp_path / "chunks.parquet")
    tracemalloc.start()
    found = choose_added(tmp_path / "chunks.parquet", files, tokenizer, wanted=20, seed=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len({one.repo for one in found}) == 20 and all(one.tokens == len(ids) - 1 for one in found)
    assert peak < 400 * len(ids) * 10  # a list of them all takes forty bytes a token
