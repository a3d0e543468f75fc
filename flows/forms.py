"""What a person says in the dashboard's form is what runs: the recipe that is chosen there, the name that is given.

The form of a deployment shows every setting of its recipe and submits them all. Who chooses another recipe there means
that recipe, with what else was changed, and not the settings of the one before under its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.exceptions import ObjectNotFound

from flows import recipes
from flows.config import PipelineConfig, of

log = logging.getLogger(__name__)
_NOTHING: Any = object()


def name_after(parameter: Callable[[dict[str, Any]], object]) -> Callable[[], str]:
    """A flow's `flow_run_name`: that of its parameters, unless a person gave the run another."""

    def name() -> str:
        given = runtime.flow_run.name
        if runtime.deployment.id and given and not is_generated(given):
            return str(given)
        return str(parameter(runtime.flow_run.parameters))

    return name


def is_generated(name: str) -> bool:
    """Whether Prefect made up the name of a run: two words of its list."""
    words = name.split("-")
    return len(words) == 2 and set(words) <= _words()


def recipe_of(config: PipelineConfig | dict[str, Any] | None) -> str | None:
    """The recipe of a flow's parameter."""
    return config.get("recipe") if isinstance(config, dict) else getattr(config, "recipe", None)


def as_chosen(given: PipelineConfig | dict[str, Any]) -> PipelineConfig:
    """The configuration that the person who filled in the form meant; the run's parameters are made to say so, too.

    Raises:
        InputError: what is given is none.
    """
    config = given if isinstance(given, PipelineConfig) else of(given)
    run, deployment = runtime.flow_run.id, runtime.deployment.id
    if not run or not deployment:
        return config
    with get_client(sync_client=True) as client:
        try:
            shown = client.read_deployment(deployment).parameters.get("config")
        except ObjectNotFound:  # deleted meanwhile
            return config
        flow_run = client.read_flow_run(run)
        submitted = flow_run.parameters.get("config")
        chosen = _chosen(shown, submitted)
        if chosen is None:
            return config
        config = of(chosen)
        log.info("the recipe %s was chosen in the form: its settings count, with what else was changed", config.recipe)
        parameters = {**flow_run.parameters, "config": config.model_dump(mode="json")}
        client.update_flow_run(run, parameters=parameters)
    return config


def _chosen(shown: Any, submitted: Any) -> dict[str, Any] | None:
    """The settings that a form means in which another recipe was chosen; None for what is no such form."""
    if not isinstance(shown, dict) or not isinstance(submitted, dict) or shown.keys() - submitted.keys():
        return None
    recipe = submitted.get("recipe")
    if not isinstance(recipe, str) or recipe == shown.get("recipe") or not shown.get("recipe"):
        return None
    return recipes.merge(_changed(shown, submitted), {"recipe": recipe})


def _changed(shown: dict[str, Any], submitted: dict[str, Any]) -> dict[str, Any]:
    """What of the form is not as it was shown."""
    found: dict[str, Any] = {}
    for name, value in submitted.items():
        before = shown.get(name, _NOTHING)
        if isinstance(value, dict) and isinstance(before, dict) and "kind" not in value:  # one with a kind is whole
            if inner := _changed(before, value):
                found[name] = inner
        elif value != before:
            found[name] = value
    return found


@cache
def _words() -> frozenset[str]:
    config = import_module("coolname.data").config
    return frozenset(word for one in config.values() for word in one.get("words", ()))
