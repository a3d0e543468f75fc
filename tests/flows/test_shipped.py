"""A run that measures two forms of its export beside the model as it was trained, with a functional suite."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.presentation import Table
from artifacts.schema import EvaluationReport
from artifacts.store import Store
from flows import cli, stages
from tasks.evaluation.forms import side_by_side
from tests.flows.test_finetune import SMALL
from tests.tasks.functional.suites import row, write
from tests.tasks.gguf.extra import WITH_EXTRA

pytestmark = [pytest.mark.usefixtures("prefect_server"), WITH_EXTRA]
FORMS = ("gguf-f16", "gguf-q4_k_m")
EXPORTS = "exporting.forms=[merged, gguf-f16, gguf-q4_k_m]"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("given")
    suite = write(folder / "small.jsonl", *(row(number) for number in range(6)))
    changes = [*SMALL, EXPORTS, f"prompts.functional=['{suite}']"]
    return [part for change in changes for part in ("--set", change)] + ["--store", str(folder / "store")]


def told(*arguments: str) -> dict[str, Any]:
    output = StringIO()
    with redirect_stdout(output):
        assert cli.guarded([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(output.getvalue().splitlines()[-1])
    return found


@pytest.fixture(scope="module")
def first(prefect_server: None, settings: list[str]) -> dict[str, Any]:
    """With one form."""
    return told("run", "demo", *settings, "--set", "generation.forms=[gguf-f16]")


@pytest.fixture(scope="module")
def both(first: dict[str, Any], settings: list[str]) -> dict[str, Any]:
    return told("run", "demo", *settings, "--set", f"generation.forms=[{', '.join(FORMS)}]")


def test_another_form_is_measured_and_nothing_else_again(first: dict[str, Any], both: dict[str, Any]) -> None:
    ran = {name for name, stage in both["stages"].items() if stage["state"] == "ran"}
    measured = {f"{stage} gguf-q4_k_m" for stage in stages.SHIPPED}
    assert ran == {"preflight", *measured, "gate", "reporting"}  # preflight counts another file
    for stage in stages.SHIPPED:
        name = f"{stage} gguf-f16"
        assert both["stages"][name]["key"] == first["stages"][name]["key"]


def test_every_form_has_its_figures_beside_those_of_the_trained_model(both: dict[str, Any]) -> None:
    assert [*both["measured"]] == ["trained", *FORMS]
    names = {form: [metric["name"] for metric in one["metrics"]] for form, one in both["measured"].items()}
    assert names["trained"] == names["gguf-f16"] == names["gguf-q4_k_m"]
    assert {"loss", "specific_loss", "retention_loss", "retention_small_pass"} <= {*names["trained"]}
    assert both["measured"]["trained"]["costs"] == []
    for form in FORMS:
        costs = {one["name"]: one for one in both["measured"][form]["costs"]}
        assert {"loss", "retention_loss", "retention_small_pass"} <= costs.keys()
        for metric in both["measured"]["trained"]["metrics"]:
            if metric["question"] != "specific":  # from the tuned model as it was trained
                assert costs[metric["name"]]["base"] == pytest.approx(metric["tuned"])
        for metric in both["measured"][form]["metrics"]:  # to the tuned model in the form
            if metric["question"] != "specific":
                assert costs[metric["name"]]["tuned"] == pytest.approx(metric["tuned"])
    sixteen, four = ({one["name"]: one for one in both["measured"][form]["costs"]}["loss"] for form in FORMS)
    assert abs(sixteen["difference"]) < 0.03 and four["difference"] != sixteen["difference"]


def test_one_table_of_the_report_the_page_for_the_dashboard_and_the_cards_shows_them(both: dict[str, Any]) -> None:
    folder = Path(both["report"]).parent
    page = (folder / "report.html").read_text()
    assert all(f"<th>{name}</th>" in page for name in ("trained", *FORMS)) and "As trained, and as shipped" in page
    assert "Functional suites: gguf-q4_k_m" in page
    cards = [path.read_text() for path in sorted((folder / "cards").iterdir())]
    assert len(cards) == 4
    for text in ((folder / "report.md").read_text(), *cards):
        assert text.count("|  |  | trained | gguf-f16 | gguf-q4_k_m |") == 1
        assert "small: pass@1" in text and "from\u00a0trained" in text


def test_programs_of_a_form_are_run_and_counted(both: dict[str, Any], settings: list[str]) -> None:
    store = Store(Path(settings[-1]))
    for form in FORMS:
        place = both["stages"][f"shipped-execution {form}"]["path"]
        verdicts = pq.read_table(Path(place) / "verdicts.parquet").to_pylist()
        assert {(one["suite"], one["side"]) for one in verdicts} >= {("small", "base"), ("small", "tuned")}
        key = both["stages"][f"shipped-evaluation {form}"]["key"]
        judged = store.open("shipped-evaluation", key, EvaluationReport)
        (suite,) = judged.functional
        solved = sum(one["passed"] for one in verdicts if one["side"] == "tuned")
        assert (suite.suite, suite.problems, suite.tuned.passed) == ("small", 6, solved)
        assert judged.form == form and "strong" in judged.protection
        (block,) = side_by_side(judged, {form: judged}).blocks
        assert isinstance(block, Table) and block.columns == ("", "", "trained", form)


def test_it_is_judged_again_by_its_folder_as_other_forms(both: dict[str, Any], settings: list[str]) -> None:
    changes = ["--set", "generation.forms=[gguf-q4_k_m]"]
    found = told("evaluate", both["model"], "--recipe", "demo", *settings, *changes)
    assert [*found["shipped"]] == ["gguf-q4_k_m"] and found["shipped"]["gguf-q4_k_m"]["costs"]
    assert any("gguf-q4_k_m" in reason for reason in found["reasons"])


def test_why_and_runs_tell_the_forms_apart(
    both: dict[str, Any], settings: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    q8 = ["--set", "exporting.forms=[merged, gguf]", "--set", "generation.forms=[gguf-f16]"]
    assert cli.guarded(["why", "shipped-generation", "demo", *settings, *q8]) == 0
    assert "shipped-generation gguf-f16 is unknown until exporting has run again" in capsys.readouterr().out
    ask = ["why", "shipped-evaluation", "demo", *settings]
    assert cli.guarded([*ask, "--set", "generation.forms=[gguf-f16, gguf-q4_k_m]"]) == 0
    assert "shipped-evaluation gguf-f16 would be reused" in capsys.readouterr().out
    (run,) = [one for one in told("runs", "--store", settings[-1])["runs"] if one["run"] == both["flow_run"]]
    assert {*both["stages"]} == {*run["stages"]} >= {f"shipped-generation {form}" for form in FORMS}


def test_the_dashboard_shows_each_form_by_itself(both: dict[str, Any], prefect_server: Path) -> None:
    with closing(sqlite3.connect(prefect_server)) as database:
        told = database.execute("SELECT key, flow_run_id FROM artifact").fetchall()
        names = {name for (name,) in database.execute("SELECT name FROM task_run").fetchall()}
    keys = {key for key, run in told if run == both["flow_run"]}
    assert {"shipped-evaluation-gguf-q4-k-m-held-out", "shipped-generation-gguf-q4-k-m-progress"} <= keys
    assert {f"shipped-generation {form}" for form in FORMS} <= names
