"""The stage: from an open source to two Parquet files."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from functools import partial
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from artifacts import digest
from artifacts.errors import CodetuneError, InputError
from artifacts.progress import SILENT, Progress
from artifacts.schema import DatasetSample, RetentionSample
from artifacts.units import FEWEST, UNITS, HeldOutBy
from tasks.running.mapping import HERE, Mapper
from tasks.running.stage import Stage
from tasks.sampling import division, replay
from tasks.sampling.candidates import (
    NEAR_DUPLICATES,
    SECRETS,
    UNKNOWN_LANGUAGE,
    Indivisible,
    OpenSource,
    Tally,
    TooLittle,
)
from tasks.sampling.config import ChoiceConfig, GithubCodeSource, LocalSource, SamplingConfig, TableSource
from tasks.sampling.division import Division
from tasks.sampling.filtering import Filter
from tasks.sampling.history import MOST_COMMITS
from tasks.sampling.pool import Pool
from tasks.sampling.view import sections
from tasks.sampling.writing import SideWriter

if TYPE_CHECKING:
    from tasks.sampling.later import LaterFile
    from tasks.sampling.local_source import Listing, OpenLocalSource

log = logging.getLogger(__name__)

AUTO: tuple[HeldOutBy, ...] = ("release", "repository", "commit", "commit-date", "folder")
"""Releases first: taken for repositories, two of one project would be on both sides. Commits before files: what one
commit does to many files is one change."""
_OF_COMMITS: tuple[HeldOutBy, ...] = ("commit", "commit-date")


def source_fingerprint(config: SamplingConfig) -> str:
    """What would be read: contents of the files that count (no places), or data set and commit.

    Raises:
        InputError: the source does not exist or may not be read.
        TransientError: the hub does not answer.
    """
    own = _fingerprint(config)
    if config.replay is None:
        return own
    with _settings_of("sampling.replay"):
        return digest.of_json([own, open_source(config.replay.choice(config)).fingerprint()])


def _fingerprint(config: SamplingConfig) -> str:
    if config.held_out_by != "auto":
        return open_source(config, config.held_out_by, config.held_out).fingerprint()
    found, listing = [], _listing(config)
    for way in _ways(config):
        try:
            found.append(open_source(config, way, config.held_out, listing).fingerprint())
        except TooLittle as reason:
            found.append(reason.problem)
    return digest.of_json(found)


def run_sampling(
    config: SamplingConfig, *, workdir: Path, progress: Progress = SILENT, mapper: Mapper = HERE
) -> DatasetSample:
    """Choose files, decide what is held out and write `train.parquet` and `held_out.parquet`.

    `mapper` sifts the batches of the source. Files of this machine go to it as bytes, batches of the hub as what to
    fetch from there.

    Raises:
        InputError: the source does not exist, or too little of it survives the filters for two sides, or for an
            interval where one was asked for.
        TransientError: the hub does not deliver.
    """
    refused: dict[HeldOutBy, TooLittle] = {}
    listing = _listing(config)
    for way in _ways(config):
        for share in _shares(config, way):
            try:
                source = open_source(config, way, share, listing)
                sample = _sample(config, source, way, workdir, progress, mapper)
            except TooLittle as reason:
                if way in refused and refused[way].problem != reason.problem:
                    reason.problem += f" (sampling.held_out={config.held_out:g} was widened to {share:g})"
                refused[way] = reason
                continue
            for other, why in refused.items():
                log.info("not held out by %s: %s", other, why.problem)
            return _with_replay(config, sample, workdir, progress, mapper) if config.replay else sample
    if config.held_out_by != "auto":
        raise refused[config.held_out_by]
    raise _no_way(refused)


def _ways(config: SamplingConfig) -> tuple[HeldOutBy, ...]:
    """What may tell what is held out, the preferred first."""
    if config.held_out_by != "auto":
        return (config.held_out_by,)
    return AUTO if isinstance(config.source, LocalSource) else ("repository",)


def _listing(config: SamplingConfig) -> Listing | None:
    """The files of this machine, where several ways to hold some of them out are tried."""
    if config.held_out_by != "auto" or not isinstance(config.source, LocalSource):
        return None
    from tasks.sampling.local_source import Listing

    return Listing(config.source)


def _shares(config: SamplingConfig, way: HeldOutBy) -> list[float]:
    """How much to hold out, the preferred first. Too few commits may have been asked for: a test on older ones as well
    beats none."""
    if way not in _OF_COMMITS or config.held_out >= MOST_COMMITS:
        return [config.held_out]
    more = [config.held_out * factor for factor in (1, 2, 4, 8)]
    return [*(share for share in more if share < MOST_COMMITS), MOST_COMMITS]


def _no_way(refused: dict[HeldOutBy, TooLittle]) -> InputError:
    """What `auto` says where nothing gives an interval: each reason in a line of its own, after the ways it is of."""
    ways: dict[str, list[HeldOutBy]] = {}
    for way, reason in refused.items():
        ways.setdefault(reason.problem, []).append(way)
    lines = ";".join(f"\n    by {' and '.join(of)}: {problem}" for problem, of in ways.items())
    remedies = ["add a path with code of others or an older release (folders such as name-1.2 and name-1.3)"]
    remedies.append("clone with the history (`git fetch --unshallow`)")
    if not any(isinstance(reason, Indivisible) for reason in refused.values()):
        remedies.append("train without a verdict: sampling.held_out_by=repository")
    return InputError(
        f"nothing that could be held out gives an interval, and so no verdict:{lines}",
        field="sampling.held_out_by",
        remedy=f"{', '.join(remedies[:-1])}, or {remedies[-1]}",
    )


def _sample(
    config: SamplingConfig, source: OpenSource, way: HeldOutBy, workdir: Path, progress: Progress, mapper: Mapper
) -> DatasetSample:
    """The sample with what is held out told by one of the ways.

    Raises:
        TooLittle: that gives no interval, though one is needed.
    """
    if config.held_out_by == "auto" and way == "repository" and isinstance(config.source, LocalSource):
        _check_repositories(cast("OpenLocalSource", source))
    with _chosen(config, source, workdir, progress, mapper) as (pool, tally):
        _check(config, source, pool, tally)
        if UNITS[way].of_lines:
            from tasks.sampling.later import Contents, later_files

            local = cast("OpenLocalSource", source)
            with Contents(pool.folder) as contents:
                later = later_files(config, local, pool, tally, progress, contents, by_commit=way == "commit")
                sample = _write(config, source, pool, Division(frozenset()), tally, workdir, way, later)
        else:
            _check_several(config, pool, tally, way)
            fewest = 1 if config.held_out_by == "repository" else FEWEST
            sides = division.divide(pool, config.held_out, config.seed, progress, fewest)
            tally.drop("copies", "near-copy of a training file", len(sides.copies))
            sample = _write(config, source, pool, sides, tally, workdir, way)
        if too_little := lacking(sample):
            if config.held_out_by != "repository":
                raise too_little
            said = (too_little.problem, too_little.remedy)
            log.warning("the run will end without a verdict: %s. To change that: %s", *said)
        return sample


def _with_replay(
    config: SamplingConfig, sample: DatasetSample, workdir: Path, progress: Progress, mapper: Mapper
) -> DatasetSample:
    assert config.replay
    chosen = config.replay.choice(config)
    with _settings_of("sampling.replay"):
        source = open_source(chosen)
        with _chosen(chosen, source, workdir, progress, mapper) as (pool, tally):
            replay.keep_apart(pool, sample, tally)
            _check(chosen, source, pool, tally)
            return replay.appended(sample, pool, config.replay.share, source.describe())


def lacking(sample: DatasetSample) -> TooLittle | None:
    """Why no interval is possible on what a sample holds out, and what to do; None where one is."""
    unit, units = UNITS[sample.held_out_by], sample.units or 0
    if units >= FEWEST:
        return None
    if unit.of_lines:
        where = "by" if sample.held_out_by == "commit" else "to"
        problem = f"lines were added later {where} {unit.count(units)}, and an interval needs {FEWEST}"
        if not units:
            newest = "the newest release added no" if sample.held_out_by == "release" else "no later commit added"
            problem = f"{newest} lines of code"
        remedy = "take an older release or more commits (sampling.held_out), or more projects"
        if sample.held_out_by == "commit":
            remedy = "hold out by commit-date, whose interval is over files, or take more commits (sampling.held_out)"
    else:
        problem = f"{unit.count(units)} can be held out, and an interval needs {FEWEST}"
        remedy = "hold out lines that were added later (sampling.held_out_by: auto), or add code: about thirty"
        remedy += " repositories or folders, of which a fifth is held out"
    return TooLittle(problem, field="sampling.held_out_by", remedy=remedy)


@contextmanager
def _chosen(
    config: ChoiceConfig, source: OpenSource, workdir: Path, progress: Progress, mapper: Mapper
) -> Iterator[tuple[Pool, Tally]]:
    """The files that the seeded order chooses."""
    with Pool(workdir / ".pool.sqlite", config.files, config.seed) as pool:
        tally = _gather(config, source, pool, progress, mapper)
        chosen = pool.chosen()
        tally.drop("choice", "not among the first of the seeded order", pool.different - chosen)
        if config.near_duplicates is not None:
            reason = f"near-duplicate, similarity {config.near_duplicates:g} or more"
            tally.drop(NEAR_DUPLICATES, reason, pool.thin(config.near_duplicates, progress))
        yield pool, tally
        # after the rest, since one way of holding out may be tried after another
        if chosen < config.files:
            if source.samples:
                log.warning("the sample has %d files instead of %d: %s", chosen, config.files, tally.in_words())
            else:  # all of one's code, mostly
                log.info("all %d files that pass the filters are in the sample: %s", chosen, tally.in_words())
        if lost := tally.lost():
            words = ", ".join(f"{why} {count}" for why, count in lost.items())
            log.warning(
                "%d files of the source are lost, though no setting leaves them out: %s", sum(lost.values()), words
            )


def open_source(
    config: ChoiceConfig, way: HeldOutBy = "repository", share: float = 0.1, listing: Listing | None = None
) -> OpenSource:
    """The configured source, ready to be read for what is held out so; with a `listing` of its files, where there is
    one. What it needs is imported only when it is used."""
    source = config.source
    if isinstance(source, LocalSource):
        from tasks.sampling.local_source import OpenLocalSource

        return OpenLocalSource(source, config.languages, config.quality.max_bytes, way, share, listing)
    if isinstance(source, TableSource):
        from tasks.sampling.table_source import OpenTableSource

        return OpenTableSource(source)
    from tasks.sampling.hub_source import OpenHubSource

    return OpenHubSource(config, source.as_hub() if isinstance(source, GithubCodeSource) else source)


def _gather(config: ChoiceConfig, source: OpenSource, pool: Pool, progress: Progress, mapper: Mapper) -> Tally:
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


def _remedy(config: ChoiceConfig, tally: Tally) -> str:
    """What to do where nothing is left."""
    if max(tally.dropped, key=lambda step: tally.dropped[step].total(), default="") == SECRETS:
        return "choose another source, or keep what stands in this one (`secrets`)"
    (drops_most, _), *_ = tally.dropped["language"].most_common(1) or [("", 0)]
    if drops_most != UNKNOWN_LANGUAGE:
        return "widen what drops the most (`languages`, `licenses`, `quality`), or choose another source"
    if isinstance(config.source, LocalSource):
        return "name source code; a table of it (.jsonl, .parquet) is read with sampling.source.kind: table"
    return "set sampling.source.language, or sampling.source.columns.language or .path to the column that tells it"


def _check(config: ChoiceConfig, source: OpenSource, pool: Pool, tally: Tally) -> None:
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


def _check_several(config: ChoiceConfig, pool: Pool, tally: Tally, way: HeldOutBy = "repository") -> None:
    repositories = pool.repositories()
    if division.different_repositories(pool) == 1:
        if similar := tally.dropped[NEAR_DUPLICATES].total():
            raise Indivisible(
                f"{similar} of {similar + pool.chosen()} files are near-duplicates of the others, which are all of one"
                f" repository ({next(iter(repositories))}): nothing is left to hold out",
                field="sampling.near_duplicates",
                remedy="name other code besides, or set sampling.near_duplicates to null to learn from all of them",
            )
        remedy = "add a second source path"
        if isinstance(config.source, LocalSource):
            remedy = "set sampling.source.repositories to top-level or folder, or add a second path"
            if way == "folder":
                remedy = "hold out by commit, commit-date or release, or add a second path"
        elif not isinstance(config.source, GithubCodeSource) and config.source.columns.repo:
            remedy = "map sampling.source.columns.repo to a column that tells repositories apart"
        where = f"{UNITS[way].one} ({next(iter(repositories))})"
        left = f"all {pool.chosen():,} files are of one {where}, and it"
        if pool.chosen() == 1:
            left = f"one file is left ({tally.in_words()}), and it"
        # files of one folder may be of several repositories: modules side by side count as such
        raise (TooLittle if way == "folder" and pool.chosen() > 1 else Indivisible)(
            f"{left} cannot be divided into files to learn from and files held out",
            field="sampling.source",
            remedy=remedy,
        )


def _check_repositories(source: OpenLocalSource) -> None:
    if not source.tells_repositories:
        raise TooLittle("the source paths are one repository", field="sampling.source", remedy="add a second path")


def _write(
    config: ChoiceConfig,
    source: OpenSource,
    pool: Pool,
    sides: Division,
    tally: Tally,
    workdir: Path,
    way: HeldOutBy = "repository",
    later: Sequence[LaterFile] = (),
) -> DatasetSample:
    languages: Counter[str] = Counter()
    licenses: Counter[str] = Counter()
    secrets: Counter[str] = Counter()
    held_out = SideWriter(workdir / "held_out.parquet", lines=UNITS[way].of_lines)
    with SideWriter(workdir / "train.parquet") as train, held_out as aside:
        for file in pool.files():
            if file.sha256 in sides.copies:
                continue
            (aside if file.row.repo in sides.held_out else train).write(file)
            languages[file.row.language or "unknown"] += 1
            licenses[file.row.license] += 1
            secrets.update(file.secrets)
        for one in later:
            aside.write(one.file, one.added)
            languages[one.known.row.language or "unknown"] += 1
            licenses[one.known.row.license] += 1
            secrets.update(one.known.secrets)
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
        held_out_by=way,
        units=len({span.unit for one in later for span in one.added}) if later else aside.size().repositories,
        added_lines=sum(one.lines for one in later),
    )


STAGE = Stage(
    name="sampling",
    needs_gpu=False,
    version=10,
    run=run_sampling,
    produces=DatasetSample,
    sections=sections,
    identify=source_fingerprint,
    parallel=True,
)


def run_retention(
    config: ChoiceConfig,
    *,
    sample: DatasetSample,
    workdir: Path,
    progress: Progress = SILENT,
    mapper: Mapper = HERE,
) -> RetentionSample:
    """As `run_sampling`, without what stands in the training files of `sample`. Nothing is learned from either side."""
    with (
        _settings_of("retention"),
        nullcontext(open_source(config)) as source,
        _chosen(config, source, workdir, progress, mapper) as (pool, tally),
    ):
        replay.keep_out(pool, sample, tally)
        copies = division.standing_in(pool, sample.path / "train.parquet")
        tally.drop("copies", "near-copy of a training file", len(copies))
        pool.remove(copies)
        _check(config, source, pool, tally)
        _check_several(config, pool, tally)
        sides = division.divide_by_repository(pool, config.held_out, config.seed)
        written = RetentionSample(**dict(_write(config, source, pool, sides, tally, workdir)))
        found = RetentionSample(**{**dict(written), "units": written.size.repositories})
        if (found.units or 0) < FEWEST:
            log.warning(
                "code from elsewhere is of %s, and an interval needs %d: whether the model keeps what it could do will"
                " not be known. To change that, add paths to retention.source",
                UNITS["repository"].count(found.units or 0),
                FEWEST,
            )
        return found


def retention_fingerprint(config: ChoiceConfig) -> str:
    """As `source_fingerprint`."""
    with _settings_of("retention"):
        return open_source(config).fingerprint()


@contextmanager
def _settings_of(name: str) -> Iterator[None]:
    """Errors name the setting that was written: retention and replay have those of `sampling` under their own name."""
    try:
        yield
    except CodetuneError as error:
        if error.field and error.field.split(".")[0] == "sampling":
            error.field = name + error.field.removeprefix("sampling")
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
