"""Freeing space in a store: what no run that is kept, and no run at work, has any use for."""

from __future__ import annotations

from artifacts.ledger import RunRecord
from artifacts.registry import Registry
from artifacts.schema import Record
from artifacts.store import Store


class Pruned(Record):
    """What was removed, or would be."""

    runs: tuple[str, ...] = ()
    """Ids of runs that are no longer listed."""
    artifacts: tuple[str, ...] = ()
    """By place, `<stage>/<key>`."""
    attempts: tuple[str, ...] = ()
    """Work directories, by place."""
    bytes: int = 0
    """Freed by artifacts and work directories."""


def prune(store: Store, keep: int, *, dry_run: bool = False) -> Pruned:
    """Remove everything but what the newest `keep` runs, runs at work and the registry of models refer to.

    What no run refers to goes too. A held model stays, exported and findable, as a promoted one does, and so does the
    work directory from which an unfinished run that is kept would continue. With the ledger's gate held nobody can
    begin to use what is removed here.
    """
    with store.ledger.gate():
        runs = store.ledger.runs_at_gate()
        ended = [run for run in runs if run.state != "running"]
        kept, dropped = [run for run in runs if run.state == "running"] + ended[:keep], ended[keep:]
        needed = {place for run in kept for place in run.stages} | Registry(store.registry).places()
        artifacts = [place for place in store.places() if place not in needed and not store.busy(place)]
        attempts = [place for place in store.attempts() if place not in _continued(kept) and not store.busy(place)]
        found = Pruned(
            runs=tuple(run.id for run in dropped),
            artifacts=tuple(artifacts),
            attempts=tuple(attempts),
            bytes=sum(map(store.size, {*artifacts, *attempts})),
        )
        if not dry_run:
            _remove(store, found)
    if not dry_run:
        store.empty_trash()
    return found


def _continued(kept: list[RunRecord]) -> set[str]:
    """Work directories that are in use, or that running again would continue from."""
    return {
        place
        for run in kept
        for place, stage in run.stages.items()
        if run.state == "running" or (run.unfinished and stage.resumable)
    }


def _remove(store: Store, found: Pruned) -> None:
    for place in found.artifacts:
        store.discard(place)
    for place in found.attempts:
        store.discard_attempt(place)
    for run in found.runs:
        store.ledger.forget(run)
