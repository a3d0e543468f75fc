"""`codetune models`, `codetune promote`, `codetune rollback`: versions, the champion, and moving it by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from rich.markup import escape

from artifacts import paths
from artifacts.errors import InputError
from flows.commands.options import Json, Model, StorePath, use_store
from flows.output import Console

if TYPE_CHECKING:
    from artifacts.registry import Registry
    from artifacts.store import Store
    from artifacts.verdicts import Candidate, Event

Reason = Annotated[str, Parameter(help="Why, in a sentence; kept with the change.")]


def models(
    *,
    show_all: Annotated[bool, Parameter(name="--all", help="Also the models that were held.", negative="")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """List the promoted models; the champion is the one to use."""
    opened, registry = _open(store, writes=False)
    promoted = {version.candidate.id for version in registry.versions().values()}
    rows = [row for row in _rows(opened, registry) if show_all or row["id"] in promoted]
    if as_json:
        champion = registry.champion()
        print(json.dumps({"champion": champion.number if champion else None, "models": rows}))
        return 0
    console = Console(highlight=False, soft_wrap=True)
    if not rows:
        held = len(registry.candidates())
        hint = f"; {held} held: `codetune models --all`" if held else ": `codetune run` makes and judges them"
        console.print(f"no model was promoted yet{hint}")
        return 0
    for row in rows:
        first, *others = map(escape, _lines(row))
        console.print(f"[bold]{first}[/]", *others, sep="\n")
    return 0


def promote(
    model: Model,
    *,
    reason: Reason,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Make a model the champion by hand, whatever the gate said."""
    from flows import naming

    opened, registry = _open(store)
    _check_reason(reason)
    candidate = registry.find(naming.known_as(model, opened))
    _check_complete(candidate, opened)
    _say(registry.promote(candidate, reason), registry, as_json)
    return 0


def rollback(
    version: Annotated[str | None, Parameter(help="The version to go back to. Default: the champion before.")] = None,
    *,
    reason: Reason,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Make an earlier version the champion again."""
    opened, registry = _open(store)
    _check_reason(reason)
    number = _number(version) if version is not None else None
    target = registry.rollback_target(number)
    _check_complete(target.candidate, opened)
    _say(registry.rollback(target.number, reason), registry, as_json)
    return 0


def _open(path: Path | None, *, writes: bool = True) -> tuple[Store, Registry]:
    use_store(path)
    from artifacts.registry import Registry
    from artifacts.store import Store

    store = Store.from_environment() if writes else Store.to_read()
    return store, Registry(store.registry)


def _check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError("a reason is needed", field="--reason", remedy="say in a sentence why; it is kept")


def _number(version: str) -> int:
    digits = version.removeprefix("v")
    if not digits.isdecimal() or len(digits) > 9:
        raise InputError(
            f"“{paths.shown(version)}” is no version",
            field="VERSION",
            remedy="write it as `codetune models` does, for example v3",
        )
    return int(digits)


def _check_complete(candidate: Candidate, store: Store) -> None:
    from artifacts.store import Damaged

    try:
        store.check(candidate.model)
    except Damaged as damage:
        raise InputError(
            f"the model {candidate.id} ({candidate.model}) cannot be used: {damage}",
            field="MODEL",
            remedy="repeat the `codetune run` that made it, which builds it again; the champion was not changed",
        ) from damage


def _rows(store: Store, registry: Registry) -> list[dict[str, Any]]:
    """A row per judgement, newest last."""
    champion = registry.champion()
    numbers = {one.candidate.fingerprint: one.number for one in registry.versions().values()}
    latest: dict[str, Event] = {event.candidate: event for event in registry.events()}
    rows = []
    for candidate in registry.candidates().values():
        event = latest.get(candidate.id)
        number = numbers.get(candidate.fingerprint)
        rows.append(
            {
                "version": number,
                "champion": bool(champion and champion.candidate.id == candidate.id),
                "id": candidate.id,
                "recorded": candidate.recorded,
                "recipe": candidate.recipe,
                "verdicts": {one.metric: one.verdict for one in candidate.decision.judgements if one.decides},
                "titles": {one.metric: one.title for one in candidate.decision.judgements if one.decides},
                "outcome": _outcome(event),
                "reasons": event.reasons if event else (),
                "path": str(store.place / candidate.model),
            }
        )
    return rows


def _outcome(event: Event | None) -> str:
    if event is None:
        return "not settled yet"
    what = {"promote": "promoted", "hold": "held", "rollback": "taken back"}[event.kind]
    return f"{what} by {'the gate' if event.by == 'gate' else 'hand'}"


def _lines(row: dict[str, Any]) -> list[str]:
    version = f"v{row['version']}" if row["version"] else "held"
    name = f"{version} (champion)" if row["champion"] else version
    verdicts = ", ".join(
        f"{row['titles'].get(metric, metric)}: {verdict}" for metric, verdict in row["verdicts"].items()
    )
    moment = row["recorded"][:16].replace("T", " ")
    return [
        f"{name}  {row['id']}  {moment}  {row['recipe']}",
        f"  verdicts  {verdicts or 'none'}",
        f"  {row['outcome']}: {' '.join(row['reasons'])}",
        f"  {row['path']}",
    ]


def _say(event: Event, registry: Registry, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"champion": event.version, "model": event.candidate, "event": event.model_dump()}))
        return
    champion = registry.champion()
    assert champion is not None
    Console(highlight=False, soft_wrap=True).print(f"champion is {champion.name}, model {champion.candidate.id}")
