"""General code among what is learned from: an exact share, told apart from one's own and kept apart from the rest."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.errors import InputError
from artifacts.lineage import rows_of
from artifacts.presentation import to_markdown
from artifacts.schema import DatasetSample, TokenizedDataset
from tasks import tokenization
from tasks.models.base_model import ModelConfig, locate
from tasks.models.vocabulary import decode_bytes, load_tokenizer
from tasks.sampling import RETENTION, STAGE, RetentionConfig, SamplingConfig, source_fingerprint
from tasks.tokenization import TokenizationConfig, run_tokenization
from tests.conftest import BASE_MODEL
from tests.tasks.sampling.conftest import Sample
from tests.tasks.sampling.reading import Threads, dropped, rows, write_jsonl
from tests.tasks.sampling.test_division import program

COLUMNS = {"repo": "repo", "path": "path"}


def table(path: Path, texts: dict[str, str]) -> dict[str, Any]:
    """A source of files by `repository/path`."""
    records = [
        {"content": text, "repo": name.split("/")[0], "path": name.split("/")[1]} for name, text in texts.items()
    ]
    return {"kind": "table", "paths": [write_jsonl(path, records)], "columns": COLUMNS}


def bytes_of(sample: DatasetSample) -> str:
    names = sorted(path.name for path in sample.path.iterdir())
    assert names == ["held_out.parquet", "replay.json", "train.parquet"]
    return digest.of_files(sample.path, names)


def code(prefix: str, repositories: int, files: int = 6) -> dict[str, str]:
    return {f"{prefix}{r}/{n}.py": program(f"{prefix} {r} {n}") for r in range(repositories) for n in range(files)}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, Any]:
    return table(tmp_path / "own.jsonl", code("own", 10))


@pytest.fixture
def general(tmp_path: Path) -> dict[str, Any]:
    return table(tmp_path / "general.jsonl", code("general", 20))


def tokens(sample: DatasetSample, workdir: Path, **settings: Any) -> TokenizedDataset:
    workdir.mkdir()
    config = TokenizationConfig(max_length=64, batch_bytes=4000, **settings)
    model = locate(ModelConfig(name=str(BASE_MODEL)))
    return run_tokenization(config, sample=sample, model=model, workdir=workdir, mapper=Threads(3))


@pytest.mark.parametrize("share", [0.05, 0.3])
@pytest.mark.parametrize("form", ["causal", "fim"])
def test_the_share_of_the_training_chunks_is_exact(
    share: float, form: str, own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    alone = tokens(sample(source=own), tmp_path / "alone", format=form)
    found = tokens(sample(source=own, replay={"share": share, "source": general}), tmp_path / "with", format=form)
    assert found.train.replay == round(share / (1 - share) * alone.train.chunks) > 0
    assert found.train.chunks == alone.train.chunks + found.train.replay
    assert abs(found.train.replay / found.train.chunks - share) <= 0.5 / found.train.chunks
    repos = [row["repo"] for row in rows_of_tokens(found)]
    assert sum(name.startswith("replay:general") for name in repos) == found.train.replay
    assert rows_of_tokens(found)[: alone.train.chunks] == rows_of_tokens(alone)
    text = "\n".join(to_markdown(block) for one in tokenization.STAGE.show(found) for block in one.blocks)
    assert f"{found.train.replay:,} of the {found.train.chunks:,} training chunks" in text
    assert found.held_out == alone.held_out


def rows_of_tokens(found: TokenizedDataset) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    table: list[dict[str, Any]] = pq.read_table(found.path / "train.parquet").to_pylist()
    return table


def test_its_files_are_told_wherever_files_are(own: dict[str, Any], general: dict[str, Any], sample: Sample) -> None:
    without, found = sample(source=own), sample(source=own, replay={"share": 0.2, "source": general})
    files = rows(found, "train")
    assert files[: without.train.files] == rows(without, "train") and rows(found, "held_out") == rows(
        without, "held_out"
    )
    added = files[without.train.files :]
    assert added and all(row["repo"].startswith("replay:general") for row in added)
    assert found.replay and found.replay.size.files == len(added) == found.train.files - without.train.files
    assert found.own == without.own == without.train and found.summary.startswith(
        f"{without.train.files} files of {without.train.repositories} repositories to learn from beside {len(added)} of"
    )
    sides = STAGE.show(found)[0].blocks[2].rows  # type: ignore[union-attr]
    assert [row[1:3] for row in sides[:2]] == [
        (f"{size.files}", f"{size.repositories}") for size in (without.train, found.replay.size)
    ]
    assert found.replay.size.bytes >= 0.2 / 0.8 * without.train.bytes and without.replay is None
    assert sum(found.licenses.values()) == sum(1 for _ in rows_of(found.path)) == sum(found.languages.values())
    text = "\n".join(to_markdown(block) for section in STAGE.show(found) for block in section.blocks)
    assert "Replay: 20.00% of the training sequences" in text and "general.jsonl" in text


def test_another_share_or_source_is_another_sample(
    own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    def fingerprint(source: dict[str, Any]) -> str:
        replay = {"share": 0.1, "source": source}
        return source_fingerprint(SamplingConfig.model_validate({"source": own, "replay": replay}))

    assert fingerprint(general) == fingerprint(general) != fingerprint(table(tmp_path / "x.jsonl", code("x", 9)))
    found = [
        sample(mapper, source=own, replay={"share": share, "source": general})
        for mapper, share in ((Threads(1), 0.1), (Threads(4), 0.1), (Threads(1), 0.1001))
    ]
    assert bytes_of(found[0]) == bytes_of(found[1]) != bytes_of(found[2])


def test_what_is_learned_from_or_held_out_is_not_replayed(own: dict[str, Any], sample: Sample, tmp_path: Path) -> None:
    aside = rows(sample(source=own), "held_out")[0]
    learned = rows(sample(source=own), "train")[0]
    texts = {
        f"{learned['repo'].upper()}/other.py": program("of the same repository"),
        "fork/a.py": learned["content"] + "again = 1\n",
        "fork/b.py": "first = 1\n" + program("long") + aside["content"] + program("longer"),
        "fork/c.py": "second = 1\n" + program("long too") + aside["content"],
        **code("general", 3),
    }
    found = sample(source=own, replay={"share": 0.5, "source": table(tmp_path / "g.jsonl", texts)})
    assert {row["repo"] for row in rows(found, "train")} >= {f"replay:general{n}" for n in range(3)}
    assert not [row for row in rows(found, "train") if "fork" in row["repo"] or row["path"] == "other.py"]


def test_the_retention_set_has_none_of_its_repositories(
    own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    found = sample(source=own, replay={"share": 0.1, "source": general, "files": 5})
    replayed = {row["repo"].removeprefix("replay:") for row in rows(found, "train") if "general" in row["repo"]}
    (tmp_path / "retention").mkdir()
    config = RetentionConfig.model_validate({"source": general, "languages": ["Python"]})
    kept = RETENTION.run(config, sample=found, workdir=tmp_path / "retention")
    judged = {row["repo"] for side in ("train", "held_out") for row in rows(kept, side)}
    assert replayed and judged and not replayed & judged and len(replayed | judged) == 20
    assert dropped(kept, "copies") == {"of a repository of the replay": 6 * len(replayed)}


def test_the_retention_set_has_no_near_copy_of_its_files(
    own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    """Also under the name of another repository."""
    found = sample(source=own, replay={"share": 0.1, "source": general, "files": 5})
    replayed = [row for row in rows(found, "train") if row["repo"].startswith("replay:")]
    forks = {f"fork{n}/{n}.py": f"again = {n}\n{row['content']}" for n, row in enumerate(replayed)}
    source = table(tmp_path / "forked.jsonl", forks | code("other", 6))
    (tmp_path / "retention").mkdir()
    config = RetentionConfig.model_validate({"source": source, "languages": ["Python"]})
    kept = RETENTION.run(config, sample=found, workdir=tmp_path / "retention")
    judged = {row["repo"] for side in ("train", "held_out") for row in rows(kept, side)}
    assert judged == {f"other{n}" for n in range(6)}
    assert dropped(kept, "copies") == {"near-copy of a training file": len(replayed)}


def test_too_little_general_code_is_said_and_used(
    own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = tokens(sample(source=own, replay={"share": 0.4, "source": general, "files": 2}), tmp_path / "tokens")
    assert 0 < found.train.replay < 0.1 * found.train.chunks
    (said,) = (one.getMessage() for one in caplog.records if "replay is" in one.getMessage())
    assert "instead of 40%" in said and "sampling.replay.files" in said and one_is(logging.WARNING, caplog, said)


def one_is(level: int, caplog: pytest.LogCaptureFixture, said: str) -> bool:
    return any(record.levelno == level and record.getMessage() == said for record in caplog.records)


def test_faults_of_its_source_are_told_under_its_name(own: dict[str, Any], sample: Sample, tmp_path: Path) -> None:
    with pytest.raises(InputError) as refusal:
        sample(source=own, replay={"share": 0.1, "source": {"kind": "local", "paths": [str(tmp_path / "nowhere")]}})
    assert refusal.value.field == "sampling.replay.source.paths"
    with pytest.raises(InputError, match="of a repository that is trained on or held out 60") as refusal:
        sample(source=own, replay={"share": 0.1, "source": own})
    assert refusal.value.field == "sampling.replay"


def test_its_repositories_have_their_own_names_in_sequences(
    own: dict[str, Any], general: dict[str, Any], sample: Sample, tmp_path: Path
) -> None:
    context = {"share": 1.0, "names": "own", "max_tokens": 64}
    found = sample(source=own, replay={"share": 0.3, "source": general})
    sequences = tokens(found, tmp_path / "tokens", format="fim", fim_rate=1.0, context=context)
    tokenizer = load_tokenizer(BASE_MODEL)
    texts = [decode_bytes(tokenizer, row["input_ids"], continues=True) for row in rows_of_tokens(sequences)]
    assert sequences.train.replay and not [text for text in texts if b"replay" in text]
