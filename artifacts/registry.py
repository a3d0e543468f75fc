"""The registry of models: every model that was judged, the versions of those that were promoted, and the champion.

A folder of the store: `candidates/<id>/` (`candidate.json` and `results.parquet`, what the model did on each item), and
`events/<number>.json`. Both only ever grow, each by one rename, and everything else follows from the events read in
order: versions, the champion, its predecessors. So a process may be killed at any moment, and the champion moves with
the same rename that records why. Who writes holds a lock that the kernel frees when its holder dies; a promotion
compares with the champion and moves it under one lock, so that of two at once the second sees the first's.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import ValidationError

from artifacts import durable, reading
from artifacts.errors import InputError, StageError
from artifacts.locks import MOMENT, Lock
from artifacts.paths import shown
from artifacts.redaction import redact
from artifacts.verdicts import Candidate, Event, Ruling, Version

RESULTS = "results.parquet"
_CANDIDATE = "candidate.json"

R = TypeVar("R", Candidate, Event)

Judge = Callable[[Version | None], tuple[Ruling, tuple[str, ...]]]
"""From the present champion to what shall become of a candidate, and why."""


class Registry:
    """Models by candidate and version under one folder.

    Raises:
        StageError: a record cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._candidates, self._events = root / "candidates", root / "events"

    # --- reading

    def candidates(self) -> dict[str, Candidate]:
        """All models that were judged, by id, oldest first."""
        found = []
        for folder in self._candidates.glob("[!.]*"):
            found.append(_read(folder / _CANDIDATE, Candidate))
            if found[-1].id != folder.name:
                raise _unusable(folder / _CANDIDATE, f"is of another candidate, {shown(found[-1].id)}")
        return {one.id: one for one in sorted(found, key=lambda one: (one.recorded, one.id))}

    def events(self) -> list[Event]:
        """Everything that happened, in order."""
        return [_read(path, Event) for path in sorted(self._events.glob("[0-9]*.json"))]

    def versions(self) -> dict[int, Version]:
        """The promoted models, by number."""
        candidates = self.candidates()
        found: dict[int, Version] = {}
        for event in self.events():
            if event.candidate not in candidates:
                raise _unusable(self._candidates / event.candidate / _CANDIDATE, "is missing, and an event names it")
            if event.kind != "hold" and event.version is not None and event.version not in found:
                found[event.version] = Version(
                    number=event.version, candidate=candidates[event.candidate], promoted=event
                )
        return found

    def champion(self) -> Version | None:
        """The version to use."""
        line = self._line()
        return self.versions()[line[-1]] if line else None

    def results(self, candidate: Candidate) -> Path:
        """What a candidate did on each item (`GateDecision` says in which columns)."""
        return self._candidates / candidate.id / RESULTS

    def places(self) -> frozenset[str]:
        """What the registry refers to in the store, `<stage>/<key>` each: exports and reports, held ones too."""
        candidates = self.candidates().values()
        return frozenset(place for one in candidates for place in (one.model, one.report) if place)

    def find(self, name: str) -> Candidate:
        """The candidate that a version (`v3`, `3`), `champion`, an id, a place or the beginning of a key names.

        Raises:
            InputError: none, or more than one.
        """
        if name == "champion" and (champion := self.champion()):
            return champion.candidate
        number = name.removeprefix("v")
        if number.isdecimal() and len(number) < 10 and (version := self.versions().get(int(number))):
            return version.candidate
        matching = [
            one
            for one in self.candidates().values()
            if len(name) >= 4
            and (
                one.id.startswith(name)
                or one.model.partition("/")[2].startswith(name)
                or name in (one.model, one.fingerprint)
            )
        ]
        if len({one.fingerprint for one in matching}) == 1:
            return matching[-1]  # the latest judgement of one model
        if matching:
            raise InputError(
                f"“{name}” is the beginning of {len(matching)} models",
                field="MODEL",
                remedy="give more of the id: `codetune models --all` lists them",
            )
        raise InputError(
            f"there is no model or version “{shown(name)}” in this store",
            field="MODEL",
            remedy="give a version (v3), an id from `codetune models --all`, the recipe of a finished run, or a folder",
        )

    # --- writing

    def add(self, candidate: Candidate, results: Path) -> None:
        """Record a candidate, whole or not at all; one that is there stays as it is."""
        final = self._candidates / candidate.id
        with self._locked():
            if final.exists():
                return
            building = self._candidates / f".{uuid.uuid4().hex}"
            building.mkdir()
            shutil.copyfile(results, building / RESULTS)
            durable.sync(building / RESULTS)
            durable.write(building / _CANDIDATE, candidate.model_dump_json(indent=1))
            durable.sync(building)
            building.rename(final)
            durable.sync(self._candidates)

    def settle(self, candidate: Candidate, judge: Judge) -> Event:
        """Let the gate decide about a candidate, once: what was settled before stays, whoever runs it again."""
        with self._locked():
            events = self.events()
            for event in events:
                if event.candidate == candidate.id and event.by == "gate":
                    return event
            if version := self._version_of(candidate):
                same = (f"This model is version {version} already.",)
                return self._append("hold", candidate, version, "gate", same)
            ruling, reasons = judge(self.champion())
            number = self._next_version() if ruling == "promote" else None
            return self._append(ruling, candidate, number, "gate", reasons)

    def promote(self, candidate: Candidate, reason: str) -> Event:
        """Make a candidate the champion by hand."""
        with self._locked():
            version = self._version_of(candidate)
            champion = self.champion()
            if version and champion and champion.number == version:
                raise InputError(f"v{version} is the champion already", field="MODEL", remedy="there is nothing to do")
            return self._append("promote", candidate, version or self._next_version(), "hand", (reason,))

    def rollback(self, number: int | None, reason: str) -> Event:
        """Go back to an earlier version; without a number, to the champion before the present one."""
        with self._locked():
            target = self.rollback_target(number)
            return self._append("rollback", target.candidate, target.number, "hand", (reason,))

    def rollback_target(self, number: int | None) -> Version:
        """The version that `rollback` would go back to.

        Raises:
            InputError: there is none.
        """
        line, versions = self._line(), self.versions()
        target = number if number is not None else (line[-2] if len(line) > 1 else None)
        if target is None or target not in versions:
            problem = f"there is no version {number}" if number is not None else "no champion came before this one"
            raise InputError(problem, field="VERSION", remedy="`codetune models` lists the versions")
        if target == line[-1]:
            raise InputError(f"v{target} is the champion already", field="VERSION", remedy="there is nothing to do")
        return versions[target]

    def _line(self) -> list[int]:
        """The champions up to the present one; going back takes away what came after."""
        line: list[int] = []
        for event in self.events():
            if event.kind == "hold" or event.version is None:
                continue
            if event.kind == "rollback" and event.version in line:
                del line[line.index(event.version) :]
            line.append(event.version)
        return line

    def _version_of(self, candidate: Candidate) -> int | None:
        versions = self.versions().values()
        return next((one.number for one in versions if one.candidate.fingerprint == candidate.fingerprint), None)

    def _next_version(self) -> int:
        return max(self.versions(), default=0) + 1

    def _append(
        self,
        kind: Literal["promote", "hold", "rollback"],
        candidate: Candidate,
        version: int | None,
        by: Literal["gate", "hand"],
        reasons: tuple[str, ...],
    ) -> Event:
        number = max((event.number for event in self.events()), default=0) + 1
        said = tuple(map(redact, reasons))  # what somebody wrote for everybody who shares the store, and for good
        event = Event(number=number, at=now(), kind=kind, candidate=candidate.id, version=version, by=by, reasons=said)
        building = self._events / f".{uuid.uuid4().hex}"
        durable.write(building, event.model_dump_json(indent=1))
        building.rename(self._events / f"{number:08d}.json")
        durable.sync(self._events)
        return event

    @contextmanager
    def _locked(self) -> Iterator[None]:
        for folder in (self._root, self._candidates, self._events):
            durable.closed_folder(folder)
        lock = Lock(self._root / "lock", "the registry of models")
        lock.acquire(MOMENT)
        try:
            for folder in (self._candidates, self._events):
                for left in folder.glob(".*"):  # by a writer that was killed
                    shutil.rmtree(left) if left.is_dir() else left.unlink()
            yield
        finally:
            lock.release()


def now() -> str:
    """The present moment, as records write it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _read(path: Path, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(reading.read_text(path))
    except (InputError, ValidationError) as error:
        raise _unusable(path, "cannot be read as a record of this version of codetune") from error


def _unusable(path: Path, problem: str) -> StageError:
    return StageError(
        f"{path} {problem}",
        field="store",
        remedy="restore the file, or move the registry's folder away to start a new one",
    )
