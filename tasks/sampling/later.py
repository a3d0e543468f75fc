"""The lines that are asked for: what files have later and had not when they were learned from."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from artifacts.lines import lines_of
from artifacts.progress import Progress
from tasks.contamination import Documents, EvaluationText, TrainingText, bands, items_in, shingles
from tasks.sampling.candidates import NEAR_DUPLICATES, SourceFile, Tally
from tasks.sampling.config import SamplingConfig
from tasks.sampling.filtering import Filter
from tasks.sampling.history import RemovedFiles, Span, added
from tasks.sampling.local_source import Entry, OpenLocalSource
from tasks.sampling.pool import Pool
from tasks.sampling.secrets import PLACEHOLDER, cleaned

Place = tuple[int, int]
"""A span, by the numbers of its file and of itself there."""

_SLACK = 512
"""Files beyond the wanted ones that are kept before the surplus is thrown out."""


class Contents:
    """Contents of files, in a temporary file. Close it to remove it."""

    def __init__(self, folder: Path) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed on leaving

    def __enter__(self) -> Contents:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def keep(self, content: bytes) -> tuple[int, int]:
        """Where it is from now on."""
        place = self._file.seek(0, 2)
        return place, self._file.write(content)

    def at(self, place: tuple[int, int]) -> bytes:
        """What is there."""
        start, length = place
        self._file.seek(start)
        return self._file.read(length)


@dataclass(frozen=True)
class LaterFile:
    """A file as it is later; what is in it is read when it is asked for."""

    known: SourceFile
    """Without its contents."""
    place: tuple[int, int]
    contents: Contents
    added: tuple[Span, ...]

    @property
    def file(self) -> SourceFile:
        """All of it."""
        return replace(self.known, content=self.contents.at(self.place))

    @property
    def name(self) -> str:
        """What its lines are drawn with for an interval, if that is the file."""
        repo, path = self.known.row.repo, self.known.row.path
        return path if path.startswith(f"{repo}/") else f"{repo}/{path}"

    @property
    def content_text(self) -> str:
        return self.contents.at(self.place).decode()

    @property
    def texts(self) -> list[str]:
        """What was added, span by span."""
        content = self.content_text
        return [content[span.start : span.end] for span in self.added]

    @property
    def lines(self) -> int:
        """Lines that were added, empty ones left out."""
        return sum(bool(line.strip()) for text in self.texts for line in lines_of(text))


def later_files(
    config: SamplingConfig,
    source: OpenLocalSource,
    pool: Pool,
    tally: Tally,
    progress: Progress,
    contents: Contents,
    *,
    by_commit: bool = False,
) -> list[LaterFile]:
    """The files with lines that were added, at most as many as are learned from at most; in seeded order. What was only
    moved there, and stands in a training file, does not count as added; what was added to several files counts once.
    The units of the lines are their files, or `by_commit` what added them."""
    progress.begin("looking for added lines", len(source.later), "files")
    # they are near-duplicates of what they were
    compared_with_none = config.model_copy(update={"near_duplicates": None})
    filter_ = Filter(compared_with_none, check_licenses=source.states_licenses)
    before = _Before(source, config)
    found, surplus = list[tuple[bytes, LaterFile]](), 0
    for batch in source.later_batches():
        files, counts = filter_.sift(batch)
        tally.add(counts)
        for file, text in zip(files, before.texts(files), strict=True):
            spans = added(text, file.content.decode())
            if spans:
                rank = hashlib.sha256(f"{config.seed}:later:".encode() + file.sha256).digest()
                bare = replace(file, content=b"", bands=b"")
                found.append((rank, LaterFile(bare, contents.keep(file.content), contents, tuple(spans))))
            else:
                tally.drop("choice", "nothing was added later")
        progress.advance(len(batch.rows()))
        if len(found) > config.files + _SLACK:
            surplus += _trim(found, config.files)
    surplus += _trim(found, config.files)
    tally.drop("choice", "not among the first of the seeded order", surplus)
    chosen = [file for _, file in found]
    left = _without(_copies(pool, chosen), chosen)
    tally.drop("copies", "near-copy of a training file", len(chosen) - len(left))
    once = _without(_repeated(pool.folder, left, config), left)
    step = "duplicates" if config.near_duplicates is None else NEAR_DUPLICATES
    tally.drop(step, "what was added was added to another file", len(left) - len(once))
    left = once
    if by_commit:
        return _by_commit(source, left)
    return [replace(file, added=tuple(span._replace(unit=file.name) for span in file.added)) for file in left]


def _trim(found: list[tuple[bytes, LaterFile]], files: int) -> int:
    """Leave the first `files` in seeded order. Returns how many were too many."""
    found.sort(key=lambda one: (one[0], one[1].name))
    surplus = max(0, len(found) - files)
    del found[files:]
    return surplus


def _by_commit(source: OpenLocalSource, files: list[LaterFile]) -> list[LaterFile]:
    """The same lines in spans of one commit each, which is their unit. Where all is committed, a line that no commit
    added, since git tells otherwise what moved, goes with the one above, or is none that was added."""
    lines = {line.strip() for file in files for text in file.texts for line in lines_of(text)}
    commits = source.who_added(lines - {""})
    found = []
    for file in files:
        content, spans = file.content_text, list[Span]()
        committed = not file.known.row.revision.endswith("-dirty")
        for span in file.added:
            commit, place = "", span.start
            for line in lines_of(content[span.start : span.end]):
                start, place = place, place + len(line)
                if not line.strip():
                    continue
                # a line whose secret was replaced goes with the one above, too: no commit added it in these words
                goes_on = committed or PLACEHOLDER in line
                commit = commits.of(file.known.row, line.strip()) or (commit if goes_on else "")
                if spans and spans[-1].unit == commit and spans[-1].start >= span.start:
                    spans[-1] = spans[-1]._replace(end=place)
                else:
                    spans.append(Span(start, place, commit))
        none = f"{file.known.row.repo}: no commit"
        known = [one if one.unit else one._replace(unit=none) for one in spans if one.unit or not committed]
        if known:
            found.append(replace(file, added=tuple(known)))
    return found


class _Before:
    """What files were when they were learned from, under their names or under others."""

    def __init__(self, source: OpenLocalSource, config: SamplingConfig) -> None:
        self._source, self._max_bytes = source, config.quality.max_bytes
        self._without_secrets = config.secrets != "keep"
        self._before = source.before()
        names = {(row.repo, row.path) for row, _ in source.later}
        self._gone: dict[tuple[str, str | None], list[Entry]] = {}
        for name, entry in self._before.items():
            if name not in names:
                self._gone.setdefault((entry[0].repo, entry[0].language), []).append(entry)
        self._read: dict[tuple[str, str | None], RemovedFiles] = {}

    def texts(self, files: list[SourceFile]) -> Iterator[str]:
        """Of each file; empty for one that was not there."""
        entries = [self._before.get((file.row.repo, file.row.path)) for file in files]
        known = iter(self._contents([entry for entry in entries if entry]))
        for file, entry in zip(files, entries, strict=True):
            yield next(known) if entry else self._renamed(file)

    def _renamed(self, file: SourceFile) -> str:
        place = (file.row.repo, file.row.language)
        if place not in self._read:
            self._read[place] = RemovedFiles(self._contents(self._gone.get(place, [])))
        return self._read[place].renamed(file.content.decode()) or ""

    def _contents(self, entries: list[Entry]) -> list[str]:
        """As text; what is too large is not looked into."""
        small = [self._max_bytes is None or (row.size or 0) <= self._max_bytes for row, _ in entries]
        read = iter(self._source.read([entry for entry, fits in zip(entries, small, strict=True) if fits]))
        texts = [((next(read) if fits else None) or b"").decode("utf-8", "replace") for fits in small]
        return [cleaned(text).text for text in texts] if self._without_secrets else texts


def _without(spans: set[Place], files: list[LaterFile]) -> list[LaterFile]:
    """The files that have other spans, with those."""
    left = [
        replace(file, added=tuple(span for part, span in enumerate(file.added) if (number, part) not in spans))
        for number, file in enumerate(files)
    ]
    return [file for file in left if file.added]


def _repeated(folder: Path, files: list[LaterFile], config: SamplingConfig) -> set[Place]:
    """The spans that were added elsewhere as well, word for word or, with `near_duplicates`, nearly. One of each stays:
    as several parts of an interval they would count as so much more evidence. Short ones are not compared."""
    places, repeated = dict[bytes, Place](), set[Place]()
    with Pool(folder / ".later.sqlite", sum(len(file.added) for file in files), config.seed) as spans:
        for number, file in enumerate(files):
            for part, text in enumerate(file.texts):
                if not len(shingles(text)):
                    continue
                content = text.encode()
                sha256 = hashlib.sha256(content).digest()
                if places.setdefault(sha256, (number, part)) != (number, part):
                    repeated.add((number, part))
                elif config.near_duplicates is not None:
                    found = bands(text, config.near_duplicates)
                    spans.add(SourceFile(file.known.row, content, sha256, found))
        if config.near_duplicates is not None:
            spans.thin(config.near_duplicates)
            left = {span.sha256 for span in spans.files()}
            repeated.update(place for sha256, place in places.items() if sha256 not in left)
    return repeated


def _copies(pool: Pool, files: list[LaterFile]) -> set[Place]:
    """The spans that stand in a training file."""

    def training() -> Iterator[TrainingText]:
        for file in pool.files():
            yield TrainingText(file.sha256.hex(), file.content.decode())

    items = (
        EvaluationText(f"{number}:{part}", {"file": text})
        for number, file in enumerate(files)
        for part, text in enumerate(file.texts)
    )
    places = (item.split(":") for item in items_in(Documents(training), items, pool.folder))
    return {(int(number), int(part)) for number, part in places}
