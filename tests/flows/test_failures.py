"""How failures reach a person: the sentence of a state, no traceback in a terminal, no record beside the store."""

from __future__ import annotations

import io
import logging
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.flow_engine import run_flow
from prefect.settings import PREFECT_LOCAL_STORAGE_PATH, temporary_settings

from artifacts.errors import InputError
from flows.config import build
from flows.failures import told
from flows.finetune import finetune
from flows.sentences import Sentences


@pytest.mark.parametrize("error", [InputError("no such word", field="a.b", remedy="take another"), KeyError("word")])
def test_a_flow_that_fails_says_so_and_writes_no_record(prefect_server: None, tmp_path: Path, error: Exception) -> None:
    def fail() -> None:
        raise error

    @flow(name="failing", persist_result=False)
    def failing() -> Any:
        return told(fail)

    with temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "records"}):
        state: Any = failing(return_state=True)
        with pytest.raises(type(error)):
            state.result()
    with get_client(sync_client=True) as client:
        shown = client.read_flow_run(state.state_details.flow_run_id).state
    assert shown is not None and shown.is_failed() and shown.data is None and str(error) in str(shown.message)
    assert not (tmp_path / "records").exists()


@pytest.mark.parametrize(
    ("parameters", "field"),
    [
        ({"config": {"recipe": "demo", "training": {"max_steps": -1}}}, "training.max_steps"),
        ({"config": {"recipe": "demo", "trainning": {}}}, "trainning"),
        ({"config": {"recipe": "nosuch"}}, "recipe"),
        ({"config": []}, "configuration"),
        ({"config": {"recipe": "demo"}, "refresh": ["cooking"]}, "refresh"),
    ],
)
def test_parameters_that_cannot_be_used_are_said_as_on_the_command_line(
    prefect_server: None, tmp_path: Path, parameters: dict[str, Any], field: str
) -> None:
    with get_client(sync_client=True) as client, temporary_settings({PREFECT_LOCAL_STORAGE_PATH: tmp_path / "records"}):
        run = client.create_flow_run(finetune, parameters=parameters)
        state: Any = run_flow(finetune, flow_run=run, parameters=run.parameters, return_type="state")
    error = state.data.result
    assert state.is_failed() and isinstance(error, InputError) and error.field == field
    assert str(error) in state.message
    assert not (tmp_path / "records").exists()


def test_a_configuration_that_was_built_is_taken_as_it_is() -> None:
    assert finetune.should_validate_parameters is False and build("demo").recipe == "demo"


def test_a_terminal_gets_sentences() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("terminal-of-sentences")
    logger.addHandler(handler := Sentences(stream))
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    try:
        raise ValueError("the cause") from KeyError("deeper")
    except ValueError:
        logger.exception("it failed")
    said = stream.getvalue()
    assert said.count("\n") == 1 and "ValueError: the cause" in said and "Traceback" not in said


def test_a_terminal_gets_no_whole_event_with_what_went_wrong() -> None:
    stream = io.StringIO()
    logger = logging.getLogger("terminal-of-sentences")
    logger.handlers = [Sentences(stream)]
    try:
        raise ConnectionError("nobody answers")
    except ConnectionError:
        logger.exception("Service 'EventsWorker' failed to process item Event(%s)\nhandle: <Handle>", "x=1, " * 1000)
    said = stream.getvalue()
    assert said.count("\n") == 1 and len(said) < 400 and "EventsWorker" in said and "nobody answers" in said
