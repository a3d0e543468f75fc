"""`codetune why`: whether a stage would be reused, and which part of its key differs if not."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from artifacts.errors import InputError
from flows.commands.options import Budget, Changes, Json, Recipe, StorePath, configure, say_what_is_looked_at
from flows.stages import STAGES

if TYPE_CHECKING:
    from tasks.running.explaining import Change, Explanation


def _is_stage(_: Any, value: str) -> None:
    """Asked before the recipe is: who forgets the stage has given that in its place.

    Raises:
        InputError: names the stages.
    """
    if value not in STAGES:
        raise InputError(
            f"there is no stage “{value}”",
            field="STAGE",
            remedy=f"ask `codetune why STAGE RECIPE`, with one of {', '.join(STAGES)}",
        )


def why(
    stage: Annotated[str, Parameter(validator=_is_stage, help=f"One of {', '.join(STAGES)}.")],
    recipe: Recipe,
    *,
    changes: Changes = None,
    budget: Budget = None,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Say whether a stage would be reused and, if not, what differs.

    Runs nothing but preflight, which takes a moment. A stage whose inputs would have to be made first has no key yet:
    then it says why those would run."""
    config = configure(recipe, changes, store, budget)
    from artifacts.store import Store
    from flows.finetune import pipeline
    from tasks.models.base_model import locate
    from tasks.running.dry_run import DryRun
    from tasks.running.explaining import explain

    say_what_is_looked_at(f"the model {config.model.name}")
    walk = DryRun(Store.to_read())
    pipeline(walk, config, locate(config.model))
    found = [label for label, step in walk.steps.items() if step.stage.name == stage]
    if not found:
        there = ", ".join(dict.fromkeys(step.stage.name for step in walk.steps.values()))
        raise InputError(f"this recipe runs without {stage}", field="STAGE", remedy=f"ask for {there}")
    # of several forms the first that would run
    explanation = explain(walk, min(found, key=lambda label: walk.steps[label].reused))
    if as_json:
        print(json.dumps(explanation.model_dump(mode="json")))
        return 0
    from flows.output import Console

    console = Console(highlight=False, soft_wrap=True, markup=False)
    for line in told(explanation):
        console.print(line)
    return 0


def told(explanation: Explanation) -> list[str]:
    """An explanation in lines."""
    stage, finished = explanation.stage, explanation.finished
    made = f"made {finished[:16].replace('T', ' ')} UTC" if finished else "made some time"
    match explanation.state:
        case "reused":
            return [f"{stage} would be reused: {_short(explanation.key)}, {made}"]
        case "damaged":
            return [f"{stage} would run again: {_short(explanation.key)} is there, but {explanation.damage}"]
        case "new":
            return [f"{stage} would run: the store has no result of it yet"]
        case "changed":
            earlier = f"the nearest earlier result is {_short(explanation.earlier)}, {made}; since then"
            return [f"{stage} would run: {earlier}", *_lines(explanation.changes, 1)]
    names = " and ".join(one.stage for one in explanation.waits_for)
    head = f"{stage} is unknown until {names} {'have' if ' and ' in names else 'has'} run again, because"
    return [head, *(f"  {line}" for one in explanation.waits_for for line in told(one))]


def _lines(changes: tuple[Change, ...], depth: int) -> list[str]:
    lines: list[str] = []
    for change in changes:
        line = f"{'  ' * depth}{change.what}: {_value(change.old)} → {_value(change.new)}"
        lines.append(f"{line}, because" if change.because else line)
        lines += _lines(change.because, depth + 1)
    return lines


def _value(value: Any) -> str:
    if value is None:
        return "nothing"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return _short(text) if len(text) == 64 and set(text) <= set("0123456789abcdef") else text


def _short(digest: str | None) -> str:
    return f"{(digest or '')[:12]}…"
