"""The stage: from an open source to two Parquet files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from math import ceil
from pathlib import Path

from artifacts.errors import CodetuneError, InputError
from artifacts.progress import SILENT, Progress
from artifacts.schema import DatasetSample, RetentionSample
from tasks.running.mapping import HERE, Mapper
from tasks.running.stage import Stage
from tasks.sampling import division
from tasks.sampling.candidates import NEAR_DUPLICATES, SECRETS, UNKNOWN_LANGUAGE, OpenSource, Tally
from tasks.sampling.config import GithubCodeSource, LocalSource, SamplingConfig, TableSource
from tasks.sampling.division import Division
from tasks.sampling.filtering import Filter
from tasks.sampling.pool import Pool
from tasks.sampling.view import sections
from tasks.sampling.writing import SideWriter

log = logging.getLogger(__name__)


def source_fingerprint(config: SamplingConfig) -> str:
    """What would be read: contents of the files that count (no places), or data set and commit.

    Raises:
        InputError: the source does not exist or may not be read.
        TransientError: the hub does not answer.
    """
    return open_source(config).fingerprint()


def run_sampling(
    config: SamplingConfig, *, workdir: Path, progress: Progress = SILENT, mapper: Mapper = HERE
) -> DatasetSample:
    """Choose files, split them by repository and write `train.parquet` and `held_out.parquet`.

    `mapper` sifts the batches of the source. Files of this machine go to it as bytes, batches of the hub as what to
    fetch from there.

    Raises:
        InputError: the source does not exist, or too little of it survives the filters for two sides.
        TransientError: the hub does not deliver.
    """
    with _chosen(config, workdir, progress, mapper) as (source, pool, tally):
        _check(config, source, pool, tally)
        sides = division.divide(pool, config.held_out, config.seed, progress)
        tally.drop("copies", "near-copy of a training file", len(sides.copies))
        return _write(config, source, pool, sides, tally, workdir)


@contextmanager
def _chosen(
    config: SamplingConfig, workdir: Path, progress: Progress, mapper: Mapper
) -> Iterator[tuple[OpenSource, Pool, Tally]]:
    """The files that the seeded order chooses."""
    source = open_source(config)
    with Pool(workdir / ".pool.sqlite", config.files, config.seed) as pool:
        tally = _gather(config, source, pool, progress, mapper)
        chosen = pool.chosen()
        tally.drop("choice", "not among the first of the seeded order", pool.different - chosen)
        if 0 < chosen < config.files:
            log.warning("the sample has %d files instead of %d: %s", chosen, config.files, tally.in_words())
        if config.near_duplicates is not None:
            reason = f"near-duplicate, similarity {config.near_duplicates:g} or more"
            tally.drop(NEAR_DUPLICATES, reason, pool.thin(config.near_duplicates, progress))
        yield source, pool, tally


def open_source(config: SamplingConfig) -> OpenSource:
    """The configured source, ready to be read. What a source needs is imported only when it is used."""
    source = config.source
    if isinstance(source, LocalSource):
        from tasks.sampling.local_source import OpenLocalSource

        return OpenLocalSource(source, config.languages, config.quality.max_bytes)
    if isinstance(source, TableSource):
        from tasks.sampling.table_source import OpenTableSource

        return OpenTableSource(source)
    from tasks.sampling.hub_source import OpenHubSource

    return OpenHubSource(config, source.as_hub() if isinstance(source, GithubCodeSource) else source)


def _gather(config: SamplingConfig, source: OpenSource, pool: Pool, progress: Progress, mapper: Mapper) -> Tally:
    """Fill the pool: with everything, or from a source in seeded order until there is enough."""
    filter_ = Filter(config, check_licenses=source.states_licenses)
    limit = config.files if source.samples else None
    tally, batches = Tally(), 0
    progress.begin("choosing files", config.files if source.samples else None, "files")

    def ahead() -> int:
        """Portions worth reading ahead: not more than will be needed at the rate so far."""
        if limit is None:
            return mapper.workers
        rate = max(pool.different, 1) / max(batches, 1)
        return min(mapper.workers, max(1, ceil((limit - pool.different) / rate))) if batches else 1

    batches_read = (batch.portable(filter_.wants) for batch in source.batches())
    sifted = mapper.map("sifting part", partial(filter_.sift, limit=limit), batches_read, ahead)
    with closing(sifted):
        for files, counts in sifted:
            tally.add(counts)
            batches += 1
            tally.drop("duplicates", "exact duplicate", sum(not pool.add(file) for file in files))
            progress.update(pool.different, read=tally.rows)
            if limit is not None and pool.different >= limit:
                break
    return tally


def _remedy(config: SamplingConfig, tally: Tally) -> str:
    """What to do where nothing is left."""
    (drops_most, _), *_ = tally.dropped["language"].most_common(1) or [("", 0)]
    if drops_most != UNKNOWN_LANGUAGE:
        return "widen what drops the most (`languages`, `licenses`, `quality`), or choose another source"
    if isinstance(config.source, LocalSource):
        return "name source code; a table of it (.jsonl, .parquet) is read with sampling.source.kind: table"
    return "set sampling.source.language, or sampling.source.columns.language or .path to the column that tells it"


def _check(config: SamplingConfig, source: OpenSource, pool: Pool, tally: Tally) -> None:
    repositories = pool.repositories()
    if not tally.rows:
        raise InputError(
            f"the source holds no rows ({source.describe()})",
            field="sampling.source",
            remedy="name another file, or write rows into this one",
        )
    if not repositories:
        raise InputError(
            f"nothing of the source is left: {tally.in_words()}",
            field="sampling",
            remedy=_remedy(config, tally),
        )
    if division.different_repositories(pool) == 1:
        if similar := tally.dropped[NEAR_DUPLICATES].total():
            raise InputError(
                f"{similar} of {similar + pool.chosen()} files are near-duplicates of the others, which are all of one"
                f" repository ({next(iter(repositories))}): nothing is left to hold out",
                field="sampling.near_duplicates",
                remedy="name other code besides, or set sampling.near_duplicates to null to learn from all of them",
            )
        remedy = "add a second source path"
        if isinstance(config.source, LocalSource):
            remedy = "set sampling.source.repositories to top-level or folder, or add a second path"
        elif not isinstance(config.source, GithubCodeSource) and config.source.columns.repo:
            remedy = "map sampling.source.columns.repo to a column that tells repositories apart"
        raise InputError(
            f"all {pool.chosen()} files are of one repository ({next(iter(repositories))}), and it cannot"
            " be divided into files to learn from and files held out",
            field="sampling.source",
            remedy=remedy,
        )


def _write(
    config: SamplingConfig, source: OpenSource, pool: Pool, sides: Division, tally: Tally, workdir: Path
) -> DatasetSample:
    languages: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    secrets: Counter[str] = Counter()
    with SideWriter(workdir / "train.parquet") as train, SideWriter(workdir / "held_out.parquet") as aside:
        for file in pool.files():
            if file.sha256 in sides.copies:
                continue
            (aside if file.row.repo in sides.held_out else train).write(file)
            languages[file.row.language or "unknown"] += 1
            licenses[file.row.license] += 1
            secrets.update(file.secrets)
    used = {SECRETS: config.secrets != "keep", NEAR_DUPLICATES: config.near_duplicates is not None}
    unused = [step for step, was_used in used.items() if not was_used]
    return DatasetSample(
        path=workdir,
        source=source.describe(),
        train=train.size(),
        held_out=aside.size(),
        languages=dict(sorted(languages.items())),
        licenses=dict(sorted(licenses.items())),
        secrets=dict(secrets.most_common()),
        funnel=tally.funnel(unused),
    )


STAGE = Stage(
    name="sampling",
    needs_gpu=False,
    version=5,
    run=run_sampling,
    produces=DatasetSample,
    sections=sections,
    identify=source_fingerprint,
    parallel=True,
)


def run_retention(
    config: SamplingConfig,
    *,
    sample: DatasetSample,
    workdir: Path,
    progress: Progress = SILENT,
    mapper: Mapper = HERE,
) -> RetentionSample:
    """As `run_sampling`, without what stands in the training files of `sample`. Nothing is learned from either side."""
    with _settings_of_retention(), _chosen(config, workdir, progress, mapper) as (source, pool, tally):
        copies = division.standing_in(pool, sample.path / "train.parquet")
        tally.drop("copies", "near-copy of a training file", len(copies))
        pool.remove(copies)
        _check(config, source, pool, tally)
        sides = division.divide_by_repository(pool, config.held_out, config.seed)
        return RetentionSample(**dict(_write(config, source, pool, sides, tally, workdir)))


def retention_fingerprint(config: SamplingConfig) -> str:
    """As `source_fingerprint`."""
    with _settings_of_retention():
        return source_fingerprint(config)


@contextmanager
def _settings_of_retention() -> Iterator[None]:
    """Errors name the setting that was written: the retention set has those of `sampling` under its own name."""
    try:
        yield
    except CodetuneError as error:
        if error.field and error.field.split(".")[0] == "sampling":
            error.field = "retention" + error.field.removeprefix("sampling")
        raise


RETENTION = Stage(
    name="retention",
    needs_gpu=False,
    version=STAGE.version,
    run=run_retention,
    produces=RetentionSample,
    sections=sections,
    identify=retention_fingerprint,
    parallel=True,
)
"""The same for code from outside what is trained on."""
