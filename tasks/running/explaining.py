"""Why a stage would run again: which part of its key differs from the nearest earlier artifact of that stage."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import ValidationError

from artifacts.schema import Record
from artifacts.store import Manifest
from tasks.running import provenance
from tasks.running.dry_run import DryRun, PlannedStage


class Change(Record):
    """A part of a stage's key that differs."""

    what: str
    """`training.lora.r`, `version of training`, `what sampling reads`, or the name of an input."""
    old: Any
    """None where there was nothing."""
    new: Any
    """None where there is nothing any more."""
    because: tuple[Change, ...] = ()
    """For an input: what differs at the stage that it comes from."""


class Explanation(Record):
    """Whether a stage would be reused, and if not, why."""

    stage: str
    state: Literal["reused", "changed", "unknown", "new", "damaged"]
    """`changed`: no artifact of this key, but others of the stage; `new`: none at all; `unknown`: other stages would
    have to run before the key is known."""
    key: str | None
    earlier: str | None = None
    """The key of the artifact that it was compared with."""
    finished: str | None = None
    """When that one, or the one that would be reused, was made."""
    changes: tuple[Change, ...] = ()
    damage: str | None = None
    waits_for: tuple[Explanation, ...] = ()
    """Why the stages would run that have to run before the key is known."""


def explain(walk: DryRun, name: str) -> Explanation:
    """What a run would do at the stage of this label, and why."""
    step = walk.steps[name]
    if step.job is None:
        waits = [explain(walk, stage) for stage in dict.fromkeys(_roots(walk, step))]
        return Explanation(stage=name, state="unknown", key=None, waits_for=tuple(waits))
    key = step.job.key
    if step.found:
        state: Literal["reused", "damaged"] = "damaged" if step.damage else "reused"
        mine = [one for one in walk.store.manifests(step.stage.name) if one.key == key]
        return Explanation(stage=name, state=state, key=key, damage=step.damage, finished=_finished(mine))
    compared = [(one, changes_since(one, step)) for one in walk.store.manifests(step.stage.name)]
    if not compared:
        return Explanation(stage=name, state="new", key=key)
    earlier, changes = min(compared, key=lambda pair: len(pair[1]))  # of equally near ones the newest
    return Explanation(
        stage=name,
        state="changed",
        key=key,
        earlier=earlier.key,
        finished=_finished([earlier]),
        changes=tuple(_traced(walk, change) for change in changes),
    )


def _roots(walk: DryRun, step: PlannedStage) -> Iterator[str]:
    """The stages of known key that have to run first."""
    for name in step.waits_for:
        before = walk.steps[name]
        if before.job is None:
            yield from _roots(walk, before)
        else:
            yield name


def changes_since(earlier: Manifest, step: PlannedStage) -> list[Change]:
    """What differs between the key of an earlier artifact and the one that is wanted now."""
    assert step.job
    name = step.stage.name
    before, now = earlier.provenance.get("key_parts", {}), step.job.parts
    changes = list(_differences(f"{name}.", before.get("config"), now["config"]))
    changes += [
        Change(what=what, old=before.get(part), new=now[part])
        for part, what in (("version", f"version of {name}"), ("outside", f"what {name} reads"))
        if before.get(part) != now[part]
    ]
    told = earlier.provenance.get("inputs", {})
    given = {label: provenance.described(value) for label, value in step.job.inputs.items()}
    was, is_now = before.get("inputs", {}), now["inputs"]
    for label in sorted({*was, *is_now}):
        if was.get(label) != is_now.get(label):
            inside = list(_differences(f"{label}.", told.get(label), given.get(label)))
            of_record = label in told and label in given and "place" not in given[label]
            inside = [one for one in inside if one.what != f"{label}.fingerprint"] if of_record else []
            changes += inside or [Change(what=label, old=was.get(label), new=is_now.get(label))]
    return changes


def _traced(walk: DryRun, change: Change) -> Change:
    """A change of an input with what caused it: how the artifact that had the old fingerprint differs from today's.
    Settings are lists and mappings, too; those come from no artifact."""
    if not isinstance(change.old, str):
        return change
    for step in walk.steps.values():
        if step.job is None:
            continue
        for earlier in walk.store.manifests(step.stage.name):
            if change.old in _known_by(step, earlier) and earlier.key != step.job.key:
                causes = tuple(_traced(walk, cause) for cause in changes_since(earlier, step))
                return change.model_copy(update={"because": causes})
    return change


def _known_by(step: PlannedStage, manifest: Manifest) -> frozenset[str]:
    try:
        known: frozenset[str] = step.stage.produces.model_validate(manifest.handle).known_by
    except ValidationError:
        return frozenset({manifest.fingerprint})
    return known


def _differences(prefix: str, old: Any, new: Any) -> Iterator[Change]:
    """Leaves of two JSON values that differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for name in sorted({*old, *new}):
            yield from _differences(f"{prefix}{name}.", old.get(name), new.get(name))
    elif old != new:
        yield Change(what=prefix.removesuffix("."), old=old, new=new)


def _finished(manifests: list[Manifest]) -> str | None:
    return next((str(one.provenance.get("finished")) for one in manifests), None)
