"""`codetune runs`, `codetune prune`: what is in the store, and freeing its space."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from artifacts.presentation import counted
from flows.commands.options import RUNS, Json, StorePath, use_store
from flows.output import Console

if TYPE_CHECKING:
    from artifacts.ledger import RunRecord
    from artifacts.store import Store

MARKS = {"ran": "✓", "resumed": "✓", "cached": "≡", "started": "✗"}


def runs(*, store: StorePath = None, as_json: Json = False) -> int:
    """List the runs of the store, with stages, sizes and verdicts.

    ✓ ran, ≡ reused, ✗ failed or ended there, … at work. A size counts what other runs share, too."""
    use_store(store)
    from artifacts.store import Store

    opened = Store.to_read()
    rows = [_row(opened, run) for run in opened.ledger.runs()]
    total = sum(map(opened.size, {*opened.places(), *opened.attempts()}))
    if as_json:
        print(json.dumps({"store": str(opened.place), "bytes": total, "runs": rows}))
        return 0
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for row in rows:
        console.print(*_lines(row), sep="\n")
    console.print(f"{counted(len(rows), 'run')}, {in_words(total)} in {opened.place}")
    return 0


def prune(
    *,
    keep: Annotated[int, Parameter(validator=RUNS, help="How many of the newest runs to keep, besides those at work.")],
    dry_run: Annotated[bool, Parameter(help="Only say what would be removed.", negative="")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Free space: remove what no run that is kept and no model uses.

    The newest runs are kept, runs at work, and every model in the registry.
    """
    use_store(store)
    from artifacts import pruning
    from artifacts.store import Store

    opened = Store.from_environment()
    if opened.caution:
        Console(stderr=True, highlight=False, soft_wrap=True, markup=False).print(opened.caution)
    done = pruning.prune(opened, keep, dry_run=dry_run)
    if as_json:
        print(json.dumps({"dry_run": dry_run, **done.model_dump(mode="json")}))
        return 0
    console = Console(highlight=False, soft_wrap=True, markup=False)
    for place in (*done.artifacts, *(f"unfinished {place}" for place in done.attempts)):
        console.print(f"  {place}")
    counts = ((len(done.runs), "run"), (len(done.artifacts), "result"), (len(done.attempts), "unfinished attempt"))
    what = ", ".join(counted(number, one) for number, one in counts)
    console.print(f"{'would free' if dry_run else 'freed'} {in_words(done.bytes)}: {what}")
    return 0


def in_words(size: int) -> str:
    """Bytes for people: `14.2 MB`."""
    amount = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} B" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def _lines(row: dict[str, Any]) -> list[str]:
    marks = MARKS | {"started": "…"} if row["state"] == "running" else MARKS
    started = row["started"][:16].replace("T", " ")
    lines = [f"{row['run'][:8]}  {row['recipe']}  {started}  {row['state']}  {in_words(row['bytes'])}"]
    stages = "  ".join(f"{marks[stage['state']]} {name}" for name, stage in row["stages"].items())
    told = (row["verdict"] or row["problem"]).splitlines()
    return [*lines, *(f"  {line}" for line in filter(None, [stages, *told]))]


def _row(store: Store, run: RunRecord) -> dict[str, Any]:
    stages: dict[str, dict[str, Any]] = {}
    for place, stage in run.stages.items():
        if not stage.part:
            name, _, key = place.partition("/")
            times = sum(other.partition(" ")[0] == name for other in stages)
            # records of older versions do not tell what a stage is of
            of = stage.of or (str(times + 1) if times else "")
            stages[f"{name} {of}".rstrip()] = {
                "key": key,
                **stage.model_dump(include={"state", "seconds"}),
            }
    report = stages.get("reporting", {}).get("key")
    verdicts = [one.handle.get("verdict", "") for one in store.manifests("reporting") if one.key == report]
    return {
        "run": run.id,
        "recipe": run.recipe,
        "started": run.started.isoformat(),
        "ended": run.ended.isoformat() if run.ended else None,
        "state": run.state,
        "problem": run.problem,
        "stages": stages,
        "bytes": sum(map(store.size, run.stages)),
        "verdict": str(verdicts[0]) if verdicts else "",
    }
