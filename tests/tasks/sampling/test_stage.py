"""The whole stage: determinism, the split, the funnel, what too little gives."""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import pytest
from pydantic import ValidationError

from artifacts.errors import InputError
from artifacts.presentation import to_markdown
from tasks.sampling import RETENTION, STAGE, SamplingConfig, source_fingerprint
from tasks.sampling.config import LocalSource
from tests.hub import Hub
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import bytes_of, everything, programs, rows, write_jsonl

COLUMNS = {"content": "content", "repo": "repo", "path": "path"}


def test_same_bytes_again_and_other_bytes_with_another_seed(sample: Sample, code: Path) -> None:
    source = {"kind": "local", "paths": [str(code)]}
    first, again, other = (sample(source=source, files=20, seed=seed) for seed in (3, 3, 4))
    assert bytes_of(first) == bytes_of(again) != bytes_of(other)


def test_order_of_files_and_rows_changes_nothing(sample: Sample, tmp_path: Path) -> None:
    records = programs(60)
    one, two = (write_jsonl(tmp_path / f"{n}.jsonl", records[n::2]) for n in range(2))
    back = write_jsonl(tmp_path / "back.jsonl", records[::-1])
    results = [
        sample(source={"kind": "table", "paths": paths, "columns": COLUMNS}, files=30)
        for paths in ([one, two], [two, one], [back])
    ]
    assert len({bytes_of(result) for result in results}) == 1


def test_no_repository_is_on_both_sides(sample: Sample, code: Path) -> None:
    result = sample(source={"kind": "local", "paths": [str(code)]}, held_out=0.3)
    train, aside = ({row["repo"] for row in rows(result, side)} for side in ("train", "held_out"))
    assert train and aside and not train & aside
    assert result.train.repositories == len(train) and result.held_out.repositories == len(aside)


def test_rows_say_where_they_come_from(sample: Sample, code: Path) -> None:
    result = sample(source={"kind": "local", "paths": [str(code)], "license": "PSF-2.0"})
    for row in everything(result):
        content = (code / row["path"]).read_bytes()
        assert row["content"].encode() == content and row["size"] == len(content)
        assert row["sha256"] == hashlib.sha256(content).hexdigest() and row["license"] == "PSF-2.0"
    assert result.licenses == {"PSF-2.0": len(everything(result))}


def test_of_equal_contents_one_stays_whatever_the_order(sample: Sample, tmp_path: Path) -> None:
    records = programs(20) + [{**record, "repo": "the copies"} for record in programs(20)]
    results = []
    for name, order in (("a", records), ("b", records[::-1])):
        path = write_jsonl(tmp_path / f"{name}.jsonl", order)
        results.append(sample(source={"kind": "table", "paths": [path], "columns": COLUMNS}))
    assert bytes_of(results[0]) == bytes_of(results[1])
    assert next(step for step in results[0].funnel if step.name == "duplicates").dropped == {"exact duplicate": 20}


def test_funnel_adds_up_and_is_shown(sample: Sample, code: Path) -> None:
    (code / "readme.md").write_text("# Words\n")
    (code / "empty.py").write_text("")
    result = sample(source={"kind": "local", "paths": [str(code)]}, files=10)
    kept = None
    for step in result.funnel:
        assert kept is None or step.kept == kept - sum(step.dropped.values())
        kept = step.kept
    assert kept == result.train.files + result.held_out.files == 10
    text = "\n".join(to_markdown(block) for section in STAGE.show(result) for block in section.blocks)
    assert "Markdown 1" in text and "empty 2" in text  # the standard library brings one of its own


def test_all_of_ones_own_code_is_noted_once(sample: Sample, code: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    result = sample(source={"kind": "local", "paths": [str(code)]}, files=500)
    files = result.train.files + result.held_out.files
    (said,) = (one for one in caplog.records if f"all {files} files" in one.getMessage())
    assert said.levelno == logging.INFO and not [one for one in caplog.records if " 500" in one.getMessage()]


def test_what_is_lost_and_no_setting_leaves_out_is_a_warning(
    sample: Sample, code: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sample(source={"kind": "local", "paths": [str(code)]}, files=500)
    assert not [one for one in caplog.records if one.levelno >= logging.WARNING and "lost" in one.getMessage()]
    (code / "json" / "large.py").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")
    (code / "binary.py").write_bytes(b"\0")
    sample(source={"kind": "local", "paths": [str(code)]}, files=500)
    (said,) = (one for one in caplog.records if one.levelno >= logging.WARNING and "lost" in one.getMessage())
    assert said.args == (1, "pointer of Git LFS 1")


def test_lost_rows_of_a_table_are_a_warning(sample: Sample, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = Path(write_jsonl(tmp_path / "a.jsonl", [*programs(40), {"repo": "r", "path": "a.py", "content": None}]))
    path.write_text(path.read_text() + "[]\n{\n")
    result = sample(source={"kind": "table", "paths": [str(path)], "columns": COLUMNS})
    (said,) = (one for one in caplog.records if one.levelno >= logging.WARNING and "lost" in one.getMessage())
    assert said.args == (3, "not readable as a row 2, cannot be read 1") and result.funnel[0].kept == 41


def test_fewer_than_asked_of_a_data_set_is_a_warning(
    sample: Sample, hub: Hub, shards: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = sample(files=100_000)
    files = result.train.files + result.held_out.files
    (said,) = (one for one in caplog.records if f" {files} files instead of 100000" in one.getMessage())
    assert said.levelno == logging.WARNING


def test_nothing_left_tells_which_step_dropped_how_many(sample: Sample, code: Path) -> None:
    with pytest.raises(InputError, match=r"40.*language.* 40 \(Python 39,") as refusal:
        sample(source={"kind": "local", "paths": [str(code)]}, languages=["Rust"])
    assert refusal.value.field == "sampling" and "`languages`" in str(refusal.value.remedy)


def test_one_repository_cannot_be_divided(sample: Sample, code: Path) -> None:
    with pytest.raises(InputError, match="one repository") as refusal:
        sample(source={"kind": "local", "paths": [str(code)], "repositories": "path"})
    assert "repositories to top-level" in str(refusal.value)


def test_the_kept_sample_names_its_own_settings(tmp_path: Path, sample: Sample, code: Path) -> None:
    nowhere = SamplingConfig(source=LocalSource(paths=(str(tmp_path / "nowhere"),)))
    assert RETENTION.identify is not None
    with pytest.raises(InputError) as told:
        RETENTION.identify(nowhere)
    assert told.value.field == "retention.source.paths"
    with pytest.raises(InputError) as told:
        config = SamplingConfig(source=LocalSource(paths=(str(code),), repositories="path"))
        RETENTION.run(config, sample=sample(source={"kind": "local", "paths": [str(code)]}), workdir=tmp_path)
    assert told.value.field == "retention.source"


def test_fingerprint_follows_contents_not_places(tmp_path: Path, code: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return source_fingerprint(SamplingConfig.model_validate({"source": {"kind": "local", "paths": [str(folder)]}}))

    before = fingerprint(code)
    moved = code.rename(tmp_path / "elsewhere") and (tmp_path / "elsewhere").rename(tmp_path / "deep-code")
    (tmp_path / "x").mkdir()
    assert fingerprint(moved.rename(tmp_path / "x" / "code")) == before
    (tmp_path / "x" / "code" / "notes.txt").write_text("no code")
    noted = fingerprint(tmp_path / "x" / "code")
    assert noted != before, "a sample counts the files that it does not take, too"
    (tmp_path / "x" / "code" / "notes.txt").write_text("no code either")
    assert fingerprint(tmp_path / "x" / "code") == noted
    (tmp_path / "x" / "code" / "textwrap.py").write_text("changed = True\n")
    assert fingerprint(tmp_path / "x" / "code") != before
    assert "paths" not in str(SamplingConfig.model_validate({"source": {"kind": "local", "paths": ["x"]}}).keyed())


@pytest.mark.parametrize(
    ("settings", "field", "value"),
    [
        ({"languages": ["Pyhton"]}, "languages", "Python"),
        ({"source": {"kind": "locl"}}, "source", "github-code"),
        ({"source": {"kind": "local"}}, "source.local.paths", "required"),
        ({"held_out": 0.9}, "held_out", "0.5"),
        ({"files": 1}, "files", "2"),
        ({"quality": {"max_lines": 3}}, "quality.max_lines", "not permitted"),
    ],
)
def test_wrong_settings_are_explained(settings: dict[str, object], field: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        SamplingConfig.model_validate(settings)
    (wrong,) = caught.value.errors()
    assert ".".join(map(str, wrong["loc"])) == field and value in wrong["msg"]


def test_code_is_learned_as_it_is_whatever_looks_like_a_secret(sample: Sample, tmp_path: Path) -> None:
    """What is said is redacted, and not what is trained on."""
    lines = [
        "password = get_password()",
        "password = sesame",
        'run("docker login -u me -p sesame")',
        "TOKEN = 'sesame-1'",
    ]
    records = [
        {**one, "content": one["content"] + lines[n] if n < len(lines) else one["content"]}
        for n, one in enumerate(programs(20))
    ]
    path = write_jsonl(tmp_path / "code.jsonl", records)
    result = sample(source={"kind": "table", "paths": [path], "columns": COLUMNS})
    assert {row["content"] for row in everything(result)} == {record["content"] for record in records}
