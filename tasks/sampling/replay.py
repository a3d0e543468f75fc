"""Replay: general code among what is learned from, so that the model keeps what it could do.

Its files are rows of `train.parquet` behind all others, of repositories whose names begin with `replay:`. So all that
is kept apart from the training data is kept apart from them. Sampling takes more of them than will be needed: which
part makes the share is known when they are tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from artifacts.schema import REPLAY, DatasetSample, Replay, SplitSize
from tasks.contamination import Documents, TrainingText, documents_with, files
from tasks.sampling import division
from tasks.sampling.candidates import Tally
from tasks.sampling.pool import Pool
from tasks.sampling.split import same_repository
from tasks.sampling.writing import SideWriter

_SPARE = 2.0
"""Bytes taken for one that the share needs: general code may have fewer tokens to a byte, and shorter files."""


def keep_apart(pool: Pool, sample: DatasetSample, tally: Tally) -> None:
    """Take out of the pool what is of the sample's repositories, stands in its training files, or holds a file that is
    held out."""
    own = _repositories(sample.path / "train.parquet") | _repositories(sample.path / "held_out.parquet")
    known = {file.sha256 for file in pool.files() if same_repository(file.row.repo) in own}
    tally.drop("copies", "of a repository that is trained on or held out", len(known))
    pool.remove(known)
    copies = division.standing_in(pool, sample.path / "train.parquet")
    tally.drop("copies", "near-copy of a training file", len(copies))
    pool.remove(copies)
    general = Documents(partial(_documents, pool))
    holding = documents_with(general, files(sample.path / "held_out.parquet"), pool.folder)
    tally.drop("copies", "holds a held-out file", len(holding))
    pool.remove({bytes.fromhex(sha256) for sha256 in holding})


def appended(sample: DatasetSample, pool: Pool, share: float, source: str) -> DatasetSample:
    """The sample with files of the pool in seeded order behind its training files, as many as the share can need."""
    train = sample.path / "train.parquet"
    whole, wanted = train.with_suffix(".whole"), _SPARE * share / (1 - share) * sample.train.bytes
    languages, licenses, secrets = Counter(sample.languages), Counter(sample.licenses), Counter(sample.secrets)
    with SideWriter(whole) as writer:
        writer.copy(train)
        before = writer.size()
        names: set[str] = set()
        for file in pool.files():
            if writer.size().bytes - before.bytes >= wanted:
                break
            writer.write(replace(file, row=replace(file.row, repo=REPLAY + file.row.repo)))
            names.add(file.row.repo)
            languages[file.row.language or "unknown"] += 1
            licenses[file.row.license] += 1
            secrets.update(file.secrets)
    whole.replace(train)
    after = writer.size()
    size = SplitSize(files=after.files - before.files, repositories=len(names), bytes=after.bytes - before.bytes)
    replay = Replay(share=share, source=source, size=size)
    # a file, so that what is made of another share is not taken for what is made of this one
    (sample.path / "replay.json").write_text(replay.model_dump_json() + "\n", encoding="utf-8")
    counts = {"languages": dict(sorted(languages.items())), "licenses": dict(sorted(licenses.items()))}
    told = {**counts, "secrets": dict(secrets.most_common()), "train": after, "replay": replay}
    return DatasetSample(**{**dict(sample), **told})


def keep_out(pool: Pool, sample: DatasetSample, tally: Tally) -> None:
    """Take out of the pool what is of the repositories that the sample's replay is from."""
    if sample.replay:
        names = _repositories(sample.path / "train.parquet", of_replay=True)
        known = {file.sha256 for file in pool.files() if same_repository(file.row.repo) in names}
        tally.drop("copies", "of a repository of the replay", len(known))
        pool.remove(known)


def _repositories(side: Path, *, of_replay: bool = False) -> set[str]:
    """The repositories of a side, as `same_repository` has them."""
    import pyarrow.parquet as pq

    table = pq.read_table(side, columns=["repo"], read_dictionary=["repo"])
    names: list[str] = table["repo"].unique().to_pylist()
    return {same_repository(name.removeprefix(REPLAY)) for name in names if not of_replay or name.startswith(REPLAY)}


def _documents(pool: Pool) -> Iterator[TrainingText]:
    return (TrainingText(file.sha256.hex(), file.content.decode()) for file in pool.files())
