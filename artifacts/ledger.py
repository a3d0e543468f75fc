"""The ledger: what each run of a store uses, and whether the run is still alive.

A run notes what it is about to use before it looks for it, with the gate held; whoever removes artifacts holds the gate
too. So nothing is removed that a run has found, and a run that starts meanwhile waits for the moment that takes. A live
run holds a lock that the kernel frees when it dies: a run that was killed is told from one at work by that alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import AwareDatetime, Field, ValidationError

from artifacts import durable, reading
from artifacts.errors import InputError, StageError
from artifacts.locks import MOMENT, Lock
from artifacts.redaction import redact
from artifacts.schema import Place, Record

log = logging.getLogger(__name__)

RunState = Literal["running", "completed", "failed", "cancelled", "killed"]
StageMark = Literal["started", "ran", "cached", "resumed"]


class StageRecord(Record):
    """One stage of a run."""

    state: StageMark = "started"
    """`started` in a run that has ended: it failed, or was ended, in this stage."""
    seconds: float | None = None
    resumable: bool = False
    """An unfinished attempt's work directory is worth keeping: the next attempt continues from it."""
    part: bool = False
    """No stage of the run, but a part of what one made."""
    of: str = ""
    """What it is of, where a run has the stage more than once: the form that is measured."""


class RunRecord(Record):
    """One run: what it was, what it used, what became of it."""

    id: str
    recipe: str
    started: AwareDatetime
    ended: AwareDatetime | None = None
    state: RunState = "running"
    problem: str = ""
    """Why it failed, for a person."""
    stages: dict[Place, StageRecord] = Field(default_factory=dict)
    """By place in the store (`<stage>/<key>`), in the order of use."""

    @property
    def unfinished(self) -> bool:
        return self.state != "completed"


class Ledger:
    """The records of all runs of one store, in one folder.

    Args:
        writes: to add to it. Who only reads takes no lock, and believes of a run that says it is running that it is.
    """

    def __init__(self, folder: Path, *, writes: bool = True) -> None:
        self.folder, self._writes = folder, writes

    @contextmanager
    def gate(self) -> Iterator[None]:
        """Hold the right to say what is used, or to remove what is not. For moments only.

        Raises:
            StageError: somebody else keeps it.
        """
        lock = Lock(self.folder / "gate.lock", "the list of runs")
        lock.acquire(MOMENT)
        try:
            yield
        finally:
            lock.release()

    def open(self, run: str, recipe: str) -> Entry:
        """Begin the record of a run, or go on with that of a run that is tried again."""
        return Entry(self, run, recipe)

    def runs(self) -> list[RunRecord]:
        """All runs, newest first. One that says it is running but holds no lock was killed."""
        with self.gate() if self._writes else nullcontext():
            return self.runs_at_gate()

    def runs_at_gate(self) -> list[RunRecord]:
        """As `runs`, for whoever holds the gate."""
        found = [record for path in self.folder.glob("*.json") if (record := self._seen(path))]
        return sorted(found, key=lambda record: (record.started, record.id), reverse=True)

    def forget(self, run: str) -> None:
        """Remove the record of a run that has ended. Call with the gate held."""
        self._file(run).unlink(missing_ok=True)
        self._lock_file(run).unlink(missing_ok=True)

    def read(self, run: str) -> RunRecord | None:
        """The record as it was last written."""
        try:
            record = RunRecord.model_validate_json(reading.read_text(self._file(run)))
        except (InputError, ValidationError):
            return None
        return record if record.id == run else None

    def write(self, record: RunRecord) -> None:
        """Replace a record, whole or not at all."""
        path = self._file(record.id)
        draft = path.with_suffix(f".{os.getpid()}.draft")
        durable.write(draft, record.model_dump_json(indent=1))
        draft.replace(path)

    def hold(self, run: str) -> Lock | None:
        """The lock that says a run is alive; None if another holds it."""
        lock = Lock(self._lock_file(run), f"the run {run}")
        return lock if lock.try_acquire() else None

    def _seen(self, path: Path) -> RunRecord | None:
        record = self.read(path.stem)
        if record is None:
            log.warning("the record %s cannot be read, and counts as none", path.name)
            return None
        if record.state == "running" and self._writes and (lock := self.hold(record.id)):
            lock.release()
            return record.model_copy(update={"state": "killed"})
        return record

    def _file(self, run: str) -> Path:
        return self.folder / f"{run}.json"

    def _lock_file(self, run: str) -> Path:
        return self.folder / f"{run}.lock"


class Entry:
    """The record of one run while it goes on."""

    def __init__(self, ledger: Ledger, run: str, recipe: str) -> None:
        self._ledger = ledger
        with ledger.gate():
            lock = ledger.hold(run)
            if lock is None:  # the same run in another process that is not dead yet
                run = f"{run}-{os.getpid()}"
                lock = ledger.hold(run)
            self._lock = lock
            before = ledger.read(run)
            began = RunRecord(id=run, recipe=recipe, started=datetime.now(UTC))
            self.record = before.model_copy(update={"state": "running", "ended": None}) if before else began
            ledger.write(self.record)
        self.before = dict(before.stages) if before else {}
        """The stages of earlier attempts of the same run."""

    def uses(self, place: str, *, resumable: bool = False, part: bool = False, of: str = "") -> None:
        """Note what is about to be looked for, before it is: from now on nobody removes it."""
        self._note(place, StageRecord(resumable=resumable, part=part, of=of))

    def became(self, place: str, state: StageMark, seconds: float) -> None:
        """Note what became of it."""
        stage = self.record.stages[place]
        self._note(place, stage.model_copy(update={"state": state, "seconds": round(seconds, 2)}))

    def end(self, state: RunState, problem: str = "") -> None:
        """Note how the run ended, and let go of it."""
        try:
            self._write(state=state, problem=redact(problem), ended=datetime.now(UTC))
        except (OSError, StageError) as error:  # a full disk must not hide what ended the run
            log.warning("the end of the run could not be recorded: %s", error)
        finally:
            if self._lock:
                self._lock.release()

    def _note(self, place: str, stage: StageRecord) -> None:
        self._write(stages={**self.record.stages, place: stage})

    def _write(self, **changes: object) -> None:
        self.record = self.record.model_copy(update=changes)
        with self._ledger.gate():
            self._ledger.write(self.record)
