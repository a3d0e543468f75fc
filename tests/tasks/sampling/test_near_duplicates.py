"""Of files that nearly equal one another one is left, on whichever side: found while sampling."""

from __future__ import annotations

import hashlib
import random
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from artifacts.presentation import to_markdown
from tasks.contamination import bands, shingles, similarity
from tasks.sampling import RETENTION, STAGE, SamplingConfig
from tasks.sampling import pool as pool_module
from tasks.sampling.candidates import Row, SourceFile
from tasks.sampling.pool import Pool
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import Threads, bytes_of, dropped, everything, write_jsonl
from tests.tasks.sampling.test_division import program

COLUMNS = {"repo": "repo", "path": "path"}
REASON = "near-duplicate, similarity 0.7 or more"


def edited(text: str, seed: int) -> str:
    """The same with another line in its middle and another name."""
    lines = text.splitlines()
    lines.insert(len(lines) // 2, f"edited_{seed} = {seed}")
    return f"# {seed}\n" + "\n".join(lines) + "\n"


def records(families: int, of_each: int) -> list[dict[str, Any]]:
    """Files of which `of_each` at a time are edits of one, all over the repositories."""
    texts = [
        (f"{family}-{copy}.py", edited(program(f"family {family}"), copy) if copy else program(f"family {family}"))
        for family in range(families)
        for copy in range(of_each)
    ]
    return [{"content": text, "repo": f"r{n % 7}", "path": path} for n, (path, text) in enumerate(texts)]


def source(path: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"kind": "table", "paths": [write_jsonl(path, rows)], "columns": COLUMNS}


def test_one_of_each_family_is_left_and_the_others_are_counted(tmp_path: Path, sample: Sample) -> None:
    rows = records(families=20, of_each=3)
    result = sample(source=source(tmp_path / "t.jsonl", rows), near_duplicates=0.7, held_out=0.3)
    families = [row["path"].split("-")[0] for row in everything(result)]
    assert sorted(map(int, families)) == list(range(20)) and dropped(result, "near-duplicates") == {REASON: 40}
    assert result.train.files + result.held_out.files == 20 == result.funnel[-1].kept and result.held_out.files >= 3
    text = "\n".join(to_markdown(block) for section in STAGE.show(result) for block in section.blocks)
    assert "without near-duplicates" in text and f"{REASON} 40" in text


def test_no_pair_is_left_on_either_side_or_across(code: Path, sample: Sample) -> None:
    for seed, path in enumerate(sorted(code.rglob("*.py"))[:20]):
        path.with_name(f"copied_{path.name}").write_text(edited(path.read_text(), seed))
    for threshold in (0.6, 0.9):
        result = sample(source={"kind": "local", "paths": [str(code)]}, near_duplicates=threshold)
        texts = [shingles(row["content"]) for row in everything(result)]
        assert max(similarity(one, other) for one, other in combinations(texts, 2)) < threshold
        assert sum(dropped(result, "near-duplicates").values()) >= 10


def test_same_bytes_whatever_the_order_and_the_workers(tmp_path: Path, sample: Sample) -> None:
    rows = records(families=30, of_each=4)
    shuffled = random.Random(0).sample(rows, len(rows))
    results = [
        sample(mapper, source=source(tmp_path / f"{n}.jsonl", order), near_duplicates=0.7)
        for n, (mapper, order) in enumerate([(Threads(1), rows), (Threads(4), rows[::-1]), (Threads(3), shuffled)])
    ]
    assert len({bytes_of(result) for result in results}) == 1
    assert {str(dropped(result, "near-duplicates")) for result in results} == {str({REASON: 90})}


def test_without_the_setting_they_stay_and_nothing_is_said(tmp_path: Path, sample: Sample) -> None:
    result = sample(source=source(tmp_path / "t.jsonl", records(20, 2)), held_out=0.3)
    assert "near-duplicates" not in [step.name for step in result.funnel]
    assert result.train.files + result.held_out.files > 20


def thinned(folder: Path, monkeypatch: pytest.MonkeyPatch, bits: int) -> tuple[list[str], int]:
    """What is left of families of files with a table of so many bits, and how many bands were kept."""
    monkeypatch.setattr(pool_module, "_BITS", bits)
    with Pool(folder / f"pool{bits}", 1000, seed=3) as pool:
        for row in records(families=40, of_each=2) + records(families=400, of_each=1):
            content = row["content"].encode()
            sha256 = hashlib.sha256(content).digest()
            place = Row(row["repo"], row["path"], "mit", "Python", "")
            pool.add(SourceFile(place, content, sha256, bands(row["content"], 0.7)))
        dropped = pool.thin(0.7)
        (kept,) = pool._database.execute("SELECT count(*) FROM bands").fetchone()
        assert dropped == 40 and pool.chosen() == 400
        return [file.row.path for file in pool.files()], kept


def test_bands_of_one_file_alone_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left, kept = thinned(tmp_path, monkeypatch, 27)
    # in three bits every band is taken for another's, and all are kept
    assert thinned(tmp_path, monkeypatch, 3) == (left, 400 * 42) and 40 * 20 < kept < 400 * 42 / 4


def test_short_files_are_not_compared(tmp_path: Path, sample: Sample) -> None:
    rows = [{"content": f"from .a import b\nfrom .c import d{n}\n", "repo": f"r{n}", "path": "i.py"} for n in range(9)]
    assert len(everything(sample(source=source(tmp_path / "t.jsonl", rows), near_duplicates=0.5))) == 9


def test_when_all_nearly_equal_one_another_it_is_said(tmp_path: Path, sample: Sample) -> None:
    with pytest.raises(InputError, match="29 of 30 files are near-duplicates") as refusal:
        sample(source=source(tmp_path / "t.jsonl", records(1, 30)), near_duplicates=0.7)
    assert refusal.value.field == "sampling.near_duplicates" and "null" in str(refusal.value.remedy)


def test_the_retention_sample_has_the_same_setting(tmp_path: Path, sample: Sample) -> None:
    learned = sample(
        source=source(tmp_path / "l.jsonl", [row | {"content": program(str(n))} for n, row in enumerate(records(9, 1))])
    )
    settings = {"source": source(tmp_path / "t.jsonl", records(20, 2)), "near_duplicates": 0.7}
    (tmp_path / "retention").mkdir()
    found = RETENTION.run(SamplingConfig.model_validate(settings), sample=learned, workdir=tmp_path / "retention")
    assert dropped(found, "near-duplicates") == {REASON: 20} and len(everything(found)) == 20
