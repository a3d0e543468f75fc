"""`codetune lineage`: where a model comes from, and whether that is true."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from artifacts.errors import InputError
from artifacts.presentation import counted
from flows.commands.options import Json, Model, StorePath, use_store
from flows.output import Console


def lineage(
    model: Model,
    *,
    check: Annotated[bool, Parameter(help="Recompute every hash, and follow it into the store.", negative="")] = False,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Say what a model was made of, and check whether that is true.

    Data and licences, settings, code, libraries, every fingerprint on the way.

    With --check the exit status is 1 when anything was altered. What the store does not hold any more is told."""
    from artifacts import lineage as lineages
    from artifacts.store import Store
    from flows import naming

    use_store(store)
    opened = Store.to_read()
    folder, told = lineages.read(naming.folder_of(model, opened, verify=False))
    if not check and as_json:
        print(json.dumps(told))
        return 0
    if not check:
        try:
            lines = _lines(told)
        except (LookupError, TypeError, AttributeError, ValueError) as error:
            raise InputError(
                f"{folder / lineages.LINEAGE} is no lineage of this version: a part is missing or malformed",
                field="MODEL",
                remedy=f"{lineages.REMEDY}; `--check` says what was altered",
            ) from error
        Console(highlight=False, soft_wrap=True, markup=False).print(*lines, sep="\n")
        return 0
    findings = lineages.check(folder, told, opened)
    faults = [one for one in findings if one.verdict == "fault"]
    if as_json:
        print(json.dumps({"ok": not faults, "findings": [one.model_dump() for one in findings]}))
    else:
        marks = {"ok": "✓", "fault": "✗", "not at hand": "?"}
        console = Console(highlight=False, soft_wrap=True, markup=False)
        for one in findings:
            console.print(f"{marks[one.verdict]} {one.what}" + (f": {one.detail}" if one.detail else ""))
        console.print(f"{len(faults)} faults" if faults else "everything that could be checked is as told")
    return 1 if faults else 0


def _lines(told: dict[str, Any]) -> list[str]:
    code, data = told["made_by"]["code"], told["data"]
    commit = f", commit {code['commit'][:12]}{' with changes' if code['modified'] else ''}" if code["commit"] else ""
    lines = [f"model         {told['model']['fingerprint'][:12]}…, {counted(len(told['model']['files']), 'file')}"]
    lines.append(f"code          codetune {code['version']}{commit}")
    lines.append("libraries     " + ", ".join(f"{name} {one}" for name, one in told["made_by"]["libraries"].items()))
    lines.append(
        f"data          {counted(sum(data['files'].values()), 'file')}: "
        + ", ".join(f"{n} {c}" for n, c in data["licenses"].items())
    )
    for name, one in told["inputs"].items():
        if "stage" in one:
            where = f"{one['stage']}/{one['key'][:12]}…"
        else:
            known = ((field, value) for field, value in one["value"].items() if field != "fingerprint")
            where = ", ".join(f"{field} {value}" for field, value in known if value is not None)
        lines.append(f"{name:<13} {one['fingerprint'][:12]}…  {where}")
    return lines
