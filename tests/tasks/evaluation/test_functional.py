"""From verdicts on programs to the gate's figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.presentation import to_markdown
from artifacts.schema import EvaluationReport, Executions, Generations
from tasks.evaluation import STAGE, EvaluationConfig, run_evaluation
from tasks.evaluation.config import Margins
from tasks.gate import GateConfig, run_gate
from tasks.reporting.comparison import compare
from tasks.statistics import wilson


def judge(solved: Generations, executed: Executions, workdir: Path, **changes: Any) -> EvaluationReport:
    config = EvaluationConfig(**{"resamples": 2000, "samples": 6, **changes})
    return run_evaluation(config, generations=solved, executions=executed, workdir=workdir)


@pytest.fixture(scope="module")
def report(solved: Generations, executed: Executions, tmp_path_factory: pytest.TempPathFactory) -> EvaluationReport:
    return judge(solved, executed, tmp_path_factory.mktemp("judged"))


def test_the_share_of_problems_solved_is_a_figure_that_should_be_kept(report: EvaluationReport) -> None:
    found = report.metric("retention_small_pass")
    assert (found.question, found.better, found.margin) == ("retention", "higher", Margins().functional)
    assert (found.base, found.tuned, found.clusters) == (10 / 12, 9 / 12, 12)
    assert found.low is not None and found.low < found.difference < (found.high or 0)


def test_each_model_has_its_interval_and_its_reasons(report: EvaluationReport) -> None:
    (found,) = report.functional
    assert (found.base.passed, found.tuned.passed, found.gained, found.lost, found.p) == (10, 9, 1, 2, 1.0)
    assert (found.base.low, found.base.high) == wilson(10, 12)
    assert found.base.reasons == {"passed": 10, "exception: KeyError": 1, "wrong answer": 1}
    assert found.tuned.reasons == {"passed": 9, "wrong answer": 2, "syntax error": 1}


def test_base_against_base_is_the_floor_here_too(report: EvaluationReport) -> None:
    (noise,) = [one for one in report.noise if one.name == "retention_small_pass"]
    assert (noise.items, noise.changed) == (3, 0)


def test_another_margin_judges_otherwise_and_runs_nothing(
    solved: Generations, executed: Executions, report: EvaluationReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.sandbox.run", None)
    wide = judge(solved, executed, tmp_path, margins=Margins(functional=0.5))
    assert (
        report.metric("retention_small_pass").verdict == "inconclusive"
        and wide.metric("retention_small_pass").verdict == "non-inferior"
    )


def test_the_gate_rests_on_it(solved: Generations, report: EvaluationReport, tmp_path: Path) -> None:
    decision = run_gate(GateConfig(), generations=solved, evaluation=report, workdir=tmp_path)
    (said,) = [one for one in decision.judgements if one.metric == "retention_small_pass"]
    assert said.decides and decision.ruling == "hold" and "small: pass@1: inconclusive" in " ".join(decision.reasons)
    assert "base 10 of 12" in said.beside and said.beside.endswith("; 1 gained, 2 lost, McNemar p = 1")


def test_what_there_is_to_see(report: EvaluationReport) -> None:
    shown = {section.key: "\n".join(map(to_markdown, section.blocks)) for section in STAGE.show(report)}
    assert " base: 10 of 12, 83.3% \\[55.2%, 95.3%\\]" in shown["functional"]
    assert "Sandbox: strong" in shown["functional"] and "small: pass@1" in shown["retention"]
    assert "| small | exception: KeyError | 1 | 0 |" in shown["reasons"]


def test_programs_stand_side_by_side_with_their_verdicts(report: EvaluationReport) -> None:
    programs = [one for one in report.samples if one.kind == "small"]
    assert [one.chosen for one in programs] == ["best", "worst", "worst", "random", "random", "random"]
    base, tuned = compare(programs[0]).answers
    assert (base.judgement, tuned.judgement, base.exact, tuned.exact) == ("wrong answer", "passed", False, True)
    assert "* 2" in "".join(text for kind, text in tuned.pieces if kind == "differs")
