"""No held-out file stands in the training data, and no file of the retention sample: found while sampling."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import pytest

from artifacts.errors import InputError
from artifacts.schema import DatasetSample
from tasks.contamination import documents, files, find
from tasks.sampling import RETENTION, SamplingConfig
from tests.hub import Hub
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import dropped, everything, rows, write_jsonl


def program(name: str) -> str:
    """A program that has little in common with any other."""
    words = random.Random(name)
    lines = [f"{words.randbytes(4).hex()}x = f{words.randbytes(4).hex()}({n})" for n in range(20)]
    return "\n".join(lines) + "\n"


def tree(folder: Path, names: str) -> Path:
    folder.mkdir()
    for name in names:
        (folder / f"{name}.py").write_text(program(name))
    return folder


def edited(folder: Path, copy: Path) -> Path:
    """A copy that no name gives away and that equals the original in no file."""
    shutil.copytree(folder, copy)
    for path in copy.iterdir():
        path.write_text("# mine\n" + path.read_text() + "again = 1\n")
    return copy


def nothing_stands_in_training(sample: DatasetSample) -> bool:
    return not find(documents(sample.path / "train.parquet"), files(sample.path / "held_out.parquet"))


@pytest.mark.parametrize("seed", range(6))
def test_copies_without_a_repository_are_on_one_side(tmp_path: Path, sample: Sample, seed: int) -> None:
    mine = tree(tmp_path / "mine", "abcd")
    paths = [mine, edited(mine, tmp_path / "theirs"), tree(tmp_path / "one", "efgh"), tree(tmp_path / "two", "ijkl")]
    source = {"kind": "local", "paths": list(map(str, paths)), "repositories": "path"}
    result = sample(source=source, held_out=0.25, seed=seed)
    assert nothing_stands_in_training(result) and not dropped(result, "copies")
    assert {row["repo"] for row in rows(result, "held_out")} <= {"one", "two"} and len(everything(result)) == 16


def test_single_copies_are_dropped_and_counted(tmp_path: Path, sample: Sample) -> None:
    paths = [tree(tmp_path / "big", "abcdefgh"), tree(tmp_path / "small", "ijk")]
    (tmp_path / "small" / "vendored.py").write_text(program("a") + "x = 1\n")
    source = {"kind": "local", "paths": list(map(str, paths)), "repositories": "path"}
    result = sample(source=source, held_out=0.3)
    assert nothing_stands_in_training(result) and dropped(result, "copies") == {"near-copy of a training file": 1}
    assert result.held_out.files == 3 and sum(result.languages.values()) == 11 == result.funnel[-1].kept


def test_when_all_is_copied_it_is_said_before_any_work(tmp_path: Path, sample: Sample) -> None:
    mine = tree(tmp_path / "mine", "abcd")
    paths = [str(mine), str(edited(mine, tmp_path / "theirs"))]
    with pytest.raises(InputError) as refusal:
        sample(source={"kind": "local", "paths": paths, "repositories": "path"})
    assert refusal.value.field == "sampling.source" and "copies" in str(refusal.value.remedy)


def test_a_large_original_is_not_held_out_for_its_small_copies(tmp_path: Path, sample: Sample) -> None:
    big = tree(tmp_path / "big", "abcdefghij")
    small = edited(tree(tmp_path / "part", "ab"), tmp_path / "small")
    with pytest.raises(InputError, match="nearly"):
        sample(source={"kind": "local", "paths": [str(big), str(small)], "repositories": "path"})


RECORDS = [
    {"content": program(f"{repo}{n}") + end, "repo": name, "path": f"{n}.py"}
    for repo, name, end in (
        *(("a", "Owner/A", ""), ("a", "owner/a", "x = 1\n"), ("a", "https://host.org/fork/a.git", "x = 2\n")),
        *(("b", "b", ""), ("c", "c", ""), ("d", "git@host.org:o/D", ""), ("d", "ssh://host.org:22/o/d.git", "x = 1\n")),
    )
    for n in range(4)
]


@pytest.mark.parametrize("kind", ["table", "hub"])
@pytest.mark.parametrize("seed", range(3))
def test_rows_of_tables_too(
    kind: str, seed: int, tmp_path: Path, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write_jsonl(tmp_path / "t.jsonl", RECORDS)
    columns = {"repo": "repo", "path": "path"}
    if kind == "table":
        result = sample(source={"kind": "table", "paths": [str(table)], "columns": columns}, held_out=0.3, seed=seed)
    else:
        with Hub(datasets={"o/t": (tmp_path, "0" * 40)}) as hub:
            monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
            source = {"kind": "hub", "dataset": "o/t", "files": "*.jsonl", "columns": columns}
            result = sample(source=source, held_out=0.3, seed=seed)
    assert nothing_stands_in_training(result) and result.held_out.files
    for row in rows(result, "held_out"):
        assert row["repo"].lower() in ("b", "c") or "d" in row["repo"].lower().rpartition("/")[2]
    sides = [{row["repo"] for row in rows(result, side)} for side in ("train", "held_out")]
    assert all(len({"git@host.org:o/D", "ssh://host.org:22/o/d.git"} & side) in (0, 2) for side in sides)


def test_the_retention_sample_has_no_copies_of_training_files(tmp_path: Path, sample: Sample) -> None:
    one, two = tree(tmp_path / "one", "abcd"), tree(tmp_path / "two", "efgh")
    learned = sample(source={"kind": "local", "paths": [str(one), str(two)], "repositories": "path"}, held_out=0.5)
    other = tree(tmp_path / "other", "ijkl")
    paths = (str(edited(one, tmp_path / "1")), str(edited(two, tmp_path / "2")), str(other), str(two))
    config = SamplingConfig.model_validate({"source": {"kind": "local", "paths": paths, "repositories": "top-level"}})
    workdir = tmp_path / "retention"
    workdir.mkdir()
    found = RETENTION.run(config, sample=learned, workdir=workdir)
    training = learned.path / "train.parquet"
    assert not any(find(documents(training), files(workdir / f"{side}.parquet")) for side in ("train", "held_out"))
    assert sum(dropped(found, "copies").values()) >= 4 and len(everything(found)) >= 4


def test_a_retention_sample_of_nothing_but_copies_is_refused_under_its_name(tmp_path: Path, sample: Sample) -> None:
    one, two = tree(tmp_path / "one", "abcd"), tree(tmp_path / "two", "efgh")
    source = {"kind": "local", "paths": [str(one), str(two)], "repositories": "path"}
    learned = sample(source=source, held_out=0.5)
    aside = rows(learned, "train")[0]["repo"]
    (tmp_path / "retention").mkdir()
    config = SamplingConfig.model_validate({"source": {"kind": "local", "paths": [str(tmp_path / aside)]}})
    with pytest.raises(InputError, match=r"copies dropped 4 \(.* 4\)") as refusal:
        RETENTION.run(config, sample=learned, workdir=tmp_path / "retention")
    assert refusal.value.field == "retention"
