"""`codetune evaluate`: judge an exported model again, with other settings."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from artifacts.errors import InputError
from flows.commands.options import Changes, Json, Model, StorePath, use_store

if TYPE_CHECKING:
    from artifacts.store import Store
    from flows.config import PipelineConfig
    from flows.reevaluation import Reevaluation


def evaluate(
    model: Model,
    *,
    recipe: Annotated[
        str | None,
        Parameter(help="Whose settings to judge by. Default: those of its recipe, without its run's --set."),
    ] = None,
    suite: Annotated[
        list[str] | None,
        Parameter(
            help="Judge it by this functional suite: a name, such as humaneval or mbpp+ (an unknown name lists all), "
            "or a file of such problems. Repeatable. Default: those of the settings.",
            negative="",
        ),
    ] = None,
    changes: Changes = None,
    store: StorePath = None,
    as_json: Json = False,
) -> int:
    """Compare a model with its base again, by other settings.

    It trains nothing; another margin generates nothing either.
    """
    started = time.monotonic()
    use_store(store)
    from artifacts.store import Store
    from flows import naming, server
    from flows.config import build

    opened = Store.from_environment()
    made_by = build(model, () if recipe else changes or ()) if naming.is_recipe(model) else None
    place = naming.place_of(model, opened, made_by if changes else None)
    config = build(recipe, changes or ()) if recipe else made_by or build(_recipe_of(place, opened), changes or ())
    result = _run(str(opened.place / place), config, suite, server.start())
    if as_json:
        print(json.dumps({**result.model_dump(mode="json"), "seconds": round(time.monotonic() - started, 2)}))
    else:
        _show(result)
    return 0


def _recipe_of(place: str, store: Store) -> str:
    """The recipe of the run that made a model."""
    from artifacts.registry import Registry

    found = [one.recipe for one in Registry(store.registry).candidates().values() if one.model == place and one.recipe]
    if not found:
        raise InputError(
            f"it is not recorded which recipe {place} was made with", field="--recipe", remedy="name one with --recipe"
        )
    return found[-1]


def _run(model: str, config: PipelineConfig, suites: list[str] | None, server: Any) -> Reevaluation:
    from flows.reevaluation import reevaluate
    from flows.terminal import Terminal
    from tasks.running.run import OBSERVERS

    with server.ready(120 if server.temporary else 10), Terminal() as terminal:
        terminal.console.print(f"[dim]watch at {server.page('/runs')}[/]")
        OBSERVERS.set((terminal,))
        state: Any = reevaluate(model, config, suites, return_state=True)
        result: Reevaluation = state.result()
        return result


def _show(result: Reevaluation) -> None:
    """The questions' figures, and what the gate would say."""
    from rich.markdown import Markdown

    from artifacts.presentation import Figure, to_markdown
    from flows.output import Console
    from tasks.evaluation import STAGE
    from tasks.evaluation.forms import side_by_side

    console = Console(highlight=False)
    judged = result.report.model_copy(update={"path": Path(result.evaluation)})
    forms = [side_by_side(judged, result.shipped)] if result.shipped else []
    for section in (*STAGE.show(judged), *forms):
        if section.key in ("held-out", "specific", "retention", "functional", "reasons", "noise", "notes", "forms"):
            console.print(Markdown(f"## {section.title}"))
            for block in section.blocks:
                if not isinstance(block, Figure):
                    console.print(Markdown(to_markdown(block), hyperlinks=False))
    console.print(f"the gate would say: {result.verdict}. {' '.join(result.reasons)}", markup=False)
    console.print(f"  evaluation  {result.evaluation}", markup=False, soft_wrap=True)
