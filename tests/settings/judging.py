"""Execution, evaluation, gate and report: answers and losses written by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.registry import Registry, now
from artifacts.schema import EvaluationReport, Executions, Generations, Metric
from artifacts.verdicts import Candidate, GateDecision, Judgement
from flows.config import PipelineConfig
from tasks import evaluation, execution, gate
from tasks.evaluation import EvaluationConfig
from tasks.execution import ExecutionConfig
from tasks.gate import promotion, results
from tasks.gate.results import Result
from tasks.reporting.page import to_html
from tasks.reporting.stage import compose
from tests.settings.table import Lab, Look, Row
from tests.tasks.execution import made
from tests.tasks.execution.made import RIGHT, WRONG
from tests.tasks.test_reporting import _run, _shown

REPOSITORIES = 20
"""More than of which all subsets are taken: intervals come of draws."""


def generated(lab: Lab) -> Generations:
    """Of 20 repositories each: held-out losses, which fell; losses and lines of the kept sample, hardly worse; and
    problems, of which one more is solved than before and one less."""
    answers = {"base": [WRONG, *[RIGHT] * 19], "tuned": [RIGHT, WRONG, *[RIGHT] * 18]}
    one = made.generations(lab.folder(), answers)
    noise = np.random.default_rng(0).normal(0, 1, REPOSITORIES).tolist()
    losses, lines = one.path / "losses.parquet", one.path / "completions.parquet"
    places = [{"repo": f"r{number}", "path": "a.py", "language": "Python"} for number in range(REPOSITORIES)]
    more = [
        {**place, "domain": domain, "chunk": 0, "tokens": 10, "base": 20.0, "tuned": 20 + shift + noise[number] / 10}
        for domain, shift in (("held_out", -1.0), ("retention", 0.2))
        for number, place in enumerate(places)
    ]
    extend(losses, more, replace=True)
    texts = {"prompt": "a\n", "suffix": "", "truth": "value = 1", "base": "value = 1"}
    suites = {"domain": "retention", "suite": "line", "line": 2, **texts}
    extend(
        lines,
        [
            {**suites, **place, "item": 100 + number, "tuned": "value = 1" if number % 5 else f"value = {number}2"}
            for number, place in enumerate(places)
        ],
    )
    return one


def extend(file: Path, rows: list[dict[str, Any]], *, replace: bool = False) -> None:
    """Add rows to a table, or put them in the place of its own."""
    table = pq.read_table(file)
    added = pa.Table.from_pylist(rows, table.schema)
    pq.write_table(added if replace else pa.concat_tables([table, added]), file)


def executed(lab: Lab) -> Executions:
    return execution.run_execution(ExecutionConfig(), generations=lab.once(generated), workdir=lab.folder())


def evaluated(lab: Lab, config: EvaluationConfig) -> EvaluationReport:
    inputs = {"generations": lab.once(generated), "executions": lab.once(executed)}
    return evaluation.STAGE.run(config, **inputs, workdir=lab.folder())


def look_reasons(answer: str) -> Look:
    """What becomes of a program that a model wrote."""

    def look(lab: Lab, config: PipelineConfig) -> set[str]:
        answers = {"base": [answer + RIGHT], "tuned": [answer + RIGHT]}
        told = execution.STAGE.run(
            config.execution, generations=made.generations(lab.folder(), answers), workdir=lab.folder()
        )
        return set(pq.read_table(told.path / "verdicts.parquet")["reason"].to_pylist())

    return look


def look_verdicts(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Of every figure: the verdict."""
    return {one.name: one.verdict for one in evaluated(lab, config.evaluation).metrics}


def look_intervals(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """Of every figure: the interval."""
    return {one.name: (one.low, one.high) for one in evaluated(lab, config.evaluation).metrics}


def look_samples(lab: Lab, config: PipelineConfig) -> list[Any]:
    """The completions that are shown."""
    return [(one.chosen, one.kind, one.repo) for one in evaluated(lab, config.evaluation).samples]


def judged(lab: Lab) -> EvaluationReport:
    return evaluated(lab, EvaluationConfig(resamples=2000))


def look_decision(lab: Lab, config: PipelineConfig) -> dict[str, Any]:
    """The ruling, why, and whose figures decide."""
    inputs = {"generations": lab.once(generated), "evaluation": lab.once(judged)}
    decision: GateDecision = gate.STAGE.run(config.gate, **inputs, workdir=lab.folder())
    deciding = {one.metric for one in decision.judgements if one.decides}
    return {"ruling": decision.ruling, "reasons": decision.reasons, "deciding": deciding}


def look_promotion(lab: Lab, config: PipelineConfig) -> tuple[Any, ...]:
    """What becomes of a model that loses a fifth of what the champion gained."""
    registry = Registry(lab.folder())
    noise = np.random.default_rng(1).normal(0, 0.2, REPOSITORIES)
    for name, shift in (("a", 0.0), ("b", 0.2)):
        found = [
            Result("loss", f"i{n}", f"r{n}", 100.0, 2.0, 1.0 + shift * (1 + noise[n])) for n in range(REPOSITORIES)
        ]
        workdir = lab.folder()
        results.write(found, workdir / "results.parquet")
        sides = {"base": 2.0, "tuned": 1.0, "difference": -1.0, "low": -1.1, "high": -0.9}
        kind = {"name": "loss", "title": "loss", "question": "improved", "better": "lower"}
        metric = Metric.model_validate({**sides, **kind, "items": REPOSITORIES, "clusters": REPOSITORIES})
        said = Judgement(metric="loss", title="loss", question="improved", verdict="improved", decides=True, finding="")
        decision = GateDecision(path=workdir, ruling="promote", reasons=(), judgements=(said,))
        facts = {"model": f"exporting/{name}", "fingerprint": name, "recipe": "", "report": "", "recorded": now()}
        candidate = Candidate(id=name * 12, decision=decision, **facts)
        event = promotion.settle(registry, candidate, config.gate, [metric])
    return event.kind, event.reasons


def look_report(lab: Lab, config: PipelineConfig) -> list[str]:
    """What stands in the browser's tab."""
    return re.findall(r"<title>(.*?)</title>", to_html(compose(config.reporting, _run(), _shown())))


FEW = {"evaluation.resamples": 2000}
ASKED = {"prompts.functional": ["humaneval"]}
"""Else there are no programs."""
SLOW = "    import time; time.sleep(3)\n"
LARGE = "    held = bytes(300 << 20)\n"

ROWS = {
    "execution.seconds": Row(2, 60, look_reasons(SLOW), ASKED, seen=({"timed out"}, {"passed"})),
    "execution.memory_mib": Row(256, 1024, look_reasons(LARGE), ASKED, seen=({"out of memory"}, {"passed"})),
    "evaluation.margins.loss": Row(
        0.01, 0.5, look_verdicts, FEW, apart=frozenset({"retention_loss", "retention_perplexity"})
    ),
    "evaluation.margins.similarity": Row(
        0.01, 0.5, look_verdicts, FEW, apart=frozenset({"retention_line_edit_similarity"})
    ),
    "evaluation.margins.exact_match": Row(
        0.01, 0.9, look_verdicts, FEW, apart=frozenset({"retention_line_exact_match"})
    ),
    "evaluation.margins.functional": Row(0.01, 0.9, look_verdicts, FEW, apart=frozenset({"retention_small_pass"})),
    "evaluation.seed (intervals)": Row(0, 1, look_intervals, FEW),
    "evaluation.seed (samples)": Row(0, 1, look_samples, FEW),
    "evaluation.resamples": Row(2000, 2500, look_intervals),
    "evaluation.samples": Row(3, 6, look_samples, FEW),
    "gate.requires": Row(["improved"], ["improved", "retention"], look_decision),
    "gate.decided_by": Row(["loss", "retention_loss"], ["loss", "*_pass"], look_decision),
    "gate.tolerance": Row(0.25, 0.1, look_promotion),
    "gate.seed": Row(0, 1, look_promotion),
    "reporting.title": Row("Mine", "Yours", look_report, seen=(["Mine"], ["Yours"])),
}
