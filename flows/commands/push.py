"""`codetune push`: an exported model, with its model card, to the hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from artifacts.presentation import counted
from flows.commands.options import Json, Model, StorePath, use_store
from flows.commands.store import in_words
from flows.output import Console

if TYPE_CHECKING:
    from artifacts.store import Store


def push(
    model: Model,
    repository: Annotated[str, Parameter(help="Where to: the name of a repository of models on the hub, owner/name.")],
    *,
    form: Annotated[
        list[str] | None,
        Parameter(
            help="Which form of the export: adapter, merged, … Repeatable. Default: all that it has.", negative=""
        ),
    ] = None,
    public: Annotated[bool, Parameter(help="Let everybody read it. Default: it is private.", negative="")] = False,
    dry_run: Annotated[bool, Parameter(help="Only say which files would be sent.", negative="")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Send an exported model and its model card to the hub.

    Nothing else is sent. Every file is verified first. A transfer that breaks is tried again; repeat the command to
    continue it.
    """
    use_store(store)
    from artifacts.progress import Progress, Tick
    from artifacts.store import Store
    from flows import naming
    from tasks import pushing

    pushing.check_name(repository)
    opened = Store.to_read()
    export, manifest = naming.exported(model, opened)
    naming.check_intact(export)
    files = pushing.uploads(export, manifest, form or [], _cards(f"exporting/{manifest.key}", opened))
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    if dry_run:
        for one in files:
            console.print(f"  {one.name}  {in_words(one.size)}")
        told = {"repository": repository, "url": None, "commit": None}
    else:

        def say(tick: Tick) -> None:
            if tick.completed:
                console.print(f"  {tick.title}  {in_words(int(tick.completed))}")

        done = pushing.push(
            repository,
            files,
            private=not public,
            message=f"Model {manifest.fingerprint[:12]} of codetune",
            progress=Progress(say),
        )
        told = {"repository": repository, "url": done.address, "commit": done.commit}
    if as_json:
        print(json.dumps({**told, "private": not public, "files": {one.name: one.size for one in files}}))
        return 0
    size = in_words(sum(one.size for one in files))
    console.print(f"{counted(len(files), 'file')}, {size}, {'public' if public else 'private'}")
    Console(soft_wrap=True, markup=False).print(told["url"] or f"{repository}: nothing was sent")
    return 0


def _cards(place: str, store: Store) -> Path | None:
    """The model cards with results, of the newest run that reported on an export."""
    for run in store.ledger.runs():
        reports = [other for other in run.stages if other.startswith("reporting/")]
        if place in run.stages and reports and (cards := store.place / reports[-1] / "cards").is_dir():
            return cards
    return None
