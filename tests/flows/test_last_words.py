"""The last lines of `codetune run`: an example, and how to use it."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from artifacts.schema import Completion
from flows import cli
from flows.finetune import RunSummary, _example
from tasks.gguf import library

Capture = pytest.CaptureFixture[str]
SAMPLE = Completion(
    kind="line",
    repo="r",
    path="lang/fr.py",
    prompt='info = {\n    "monday": [\n\n',
    suffix="",
    truth='        "lundi",\n',
    base="\n    ]\x1b[2J",
    tuned='        "lundi",',
    chosen="best",
)


def said(capsys: Capture, again: tuple[str, ...] = ("demo", "--set=sampling.seed=2"), **told: Any) -> str:
    known = {"report": "r", "model": "store/exporting/m", "version": 1, "verdict": "promote", "reasons": ("Good.",)}
    summary = RunSummary(stages={}, verdicts={}, **{**known, **told})
    cli._say_where(summary, 1.0, SimpleNamespace(temporary=True), [*again])  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_an_example_is_shown_before_and_now(capsys: Capture) -> None:
    shown = said(capsys, example=SAMPLE)
    assert re.search(r'example +in lang/fr.py, after `"monday": \[`\n +before +]\\x1b\[2J\n +now +"lundi",\n', shown)
    assert "example" not in said(capsys)


def test_no_secret_of_the_code_is_shown(capsys: Capture) -> None:
    token = "hf_" + "aB3dEfGh" * 4
    assert token not in said(capsys, example=SAMPLE.model_copy(update={"tuned": f"key = '{token}'"}))


@pytest.mark.parametrize(("package", "forms"), [("llama_cpp", "gguf"), ("none", "gguf-f16")])
def test_two_commands_lead_to_the_server(
    package: str, forms: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: True if name == package else None)
    lines = said(capsys).splitlines()[-2:]
    assert f"codetune run demo --set=sampling.seed=2 '--set=exporting.forms=[merged, {forms}]'" in lines[0]
    assert lines[1].endswith("codetune serve")
    lines = said(capsys, forms=("adapter", "gguf-q8_0"), verdict="hold").splitlines()[-2:]
    assert lines[1].endswith("codetune serve store/exporting/m") and "codetune run" not in lines[0]


def test_they_are_for_the_same_budget_and_store(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Without the budget the model would be trained anew, and in another store there is none."""
    told: list[list[str]] = []
    monkeypatch.setattr(cli, "_say_where", lambda *given: told.append(given[-1]))
    monkeypatch.setattr(cli, "_run_flow", lambda *_: (None, ""))
    monkeypatch.setattr("flows.server.start", lambda: None)
    monkeypatch.setenv("CODETUNE_STORE", "")  # which --store sets
    given = ["demo", "--set", "sampling.seed=2", "--budget", "90s", "--store", str(tmp_path / "s p")]
    assert cli.guarded(["run", *given]) == 0
    monkeypatch.undo()
    store = f"--store={tmp_path / 's p'}"
    assert told == [["demo", "--set=sampling.seed=2", "--budget=90s", store]]
    again, serve = said(capsys, tuple(told[0])).splitlines()[-2:]
    assert {"--budget=90s", store} < set(shlex.split(again)) and shlex.split(serve)[-2:] == ["serve", store]


def test_the_last_line_asks_the_server_for_the_example(capsys: Capture) -> None:
    lines = said(capsys, forms=("gguf-f16",), example=SAMPLE.model_copy(update={"suffix": "    ],\n}\n"})).splitlines()
    assert lines[-2].endswith("codetune serve")
    curl, address, _, asked = shlex.split(lines[-1])
    assert curl == "curl" and address == "http://127.0.0.1:8012/infill"
    assert json.loads(asked) == {
        "input_prefix": SAMPLE.prompt,
        "input_suffix": "\n    ],",
        "n_predict": 16,
        "temperature": 0,
    }


def test_no_secret_is_asked_for(capsys: Capture) -> None:
    token = "hf_" + "aB3dEfGh" * 4
    sample = SAMPLE.model_copy(update={"prompt": f"key = '{token}'\n", "suffix": f"old = '{token}'\n"})
    assert token not in said(capsys, example=sample)


def test_only_a_gain_on_held_out_code_is_an_example() -> None:
    better = SAMPLE.model_copy(update={"tuned_score": 0.9})
    assert _example((SAMPLE, better)) == better and _example(()) is None
    for change in ({"chosen": "worst"}, {"domain": "retention"}, {"tuned_reason": "passed"}):
        assert _example((SAMPLE.model_copy(update=change),)) is None
