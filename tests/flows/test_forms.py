"""The dashboard's form, as it reaches a run: on a real server, with runs of real deployments."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.flow_engine import run_flow
from prefect.utilities.names import generate_slug

from artifacts.errors import InputError
from flows import forms
from flows.config import PipelineConfig, build

DEMO = build("demo").model_dump(mode="json")


@flow(name="form", flow_run_name=forms.name_after(lambda parameters: parameters["config"].recipe))
def form(config: PipelineConfig) -> dict[str, Any]:
    return forms.as_chosen(config).model_dump(mode="json")


@pytest.fixture
def client(prefect_server: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def submitted(client: SyncPrefectClient, config: dict[str, Any], **more: Any) -> tuple[dict[str, Any], Any]:
    """What runs, and the run as it is shown then."""
    deployment = client.create_deployment(client.create_flow(form), name="demo", parameters={"config": DEMO})
    run = client.create_flow_run_from_deployment(deployment, parameters={"config": config}, **more)
    what: Any = run_flow(form, flow_run=run, parameters=run.parameters)
    shown = client.read_flow_run(run.id)
    client.delete_deployment(deployment)
    return what, shown


def changed(**settings: Any) -> dict[str, Any]:
    """The form with some settings changed, written `stage__setting`."""
    config = deepcopy(DEMO)
    for name, value in settings.items():
        *stages, last = name.split("__")
        inner = config
        for stage in stages:
            inner = inner[stage]
        inner[last] = value
    return config


def test_a_recipe_that_is_chosen_in_the_form_is_what_runs(client: SyncPrefectClient) -> None:
    what, shown = submitted(client, changed(recipe="codellama-7b-t4", training__max_steps=70))
    assert what == build("codellama-7b-t4", ["training.max_steps=70"]).model_dump(mode="json")
    assert (shown.parameters["config"], shown.name) == (what, "codellama-7b-t4")


def test_a_source_that_is_changed_besides_is_taken_whole(client: SyncPrefectClient) -> None:
    what, _ = submitted(client, changed(recipe="codellama-7b-t4-stock", sampling__source__exclude=["x/*"]))
    assert what["sampling"]["source"] == {**DEMO["sampling"]["source"], "exclude": ["x/*"]}


def test_a_setting_that_does_not_go_with_the_recipe_is_said(client: SyncPrefectClient) -> None:
    with pytest.raises(InputError, match="warmup_steps"):
        submitted(client, changed(recipe="codellama-7b-t4", training__max_steps=7))


@pytest.mark.parametrize(
    "config",
    [
        DEMO,
        changed(training__max_steps=9),
        {"recipe": "codellama-7b-t4"},
        {"recipe": "codellama-7b-t4", "tokenization": {"max_length": 128}},
    ],
    ids=["as shown", "one setting", "a recipe alone", "a recipe and a setting that is the other's, too"],
)
def test_what_says_what_it_means_runs_as_it_is(client: SyncPrefectClient, config: dict[str, Any]) -> None:
    what, shown = submitted(client, config)
    assert what == PipelineConfig.model_validate(config).model_dump(mode="json")
    assert (shown.parameters["config"], shown.name) == (config, config["recipe"])


def test_names_and_tags_that_people_give_stay(client: SyncPrefectClient) -> None:
    _, shown = submitted(client, DEMO, name="Friday's try", tags=["mine"])
    assert shown.name == "Friday's try" and "mine" in shown.tags


def test_a_made_up_name_is_told_from_a_given_one() -> None:
    assert all(forms.is_generated(generate_slug(2)) for _ in range(500))
    assert not any(map(forms.is_generated, ("demo", "codellama-7b-t4", "my-run", "nightly", "v3", "a-b", "")))
