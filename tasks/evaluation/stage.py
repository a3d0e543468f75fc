"""The stage: what the models made → scores, intervals, verdicts. Needs no model and no GPU."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

from artifacts.progress import SILENT, Progress
from artifacts.rows import read_rows, write_rows
from artifacts.schema import EvaluationReport, Executions, Generations
from tasks.evaluation import functional, scoring
from tasks.evaluation.config import EvaluationConfig
from tasks.evaluation.samples import choose
from tasks.evaluation.view import sections
from tasks.running.stage import Stage

SCORE_COLUMNS = {
    **dict.fromkeys(("domain", "suite"), "string"),
    "item": "int32",
    **dict.fromkeys(("repo", "language", "score"), "string"),
    **dict.fromkeys(("base", "again", "tuned"), "float64"),
}


def run_evaluation(
    config: EvaluationConfig,
    *,
    generations: Generations,
    executions: Executions | None = None,
    trained: Generations | None = None,
    judged: EvaluationReport | None = None,
    workdir: Path,
    progress: Progress = SILENT,
) -> EvaluationReport:
    """Judge base and tuned by what `generations` holds and what became of their programs, and write `scores.parquet`.

    The same inputs give the same bytes.

    Args:
        trained, judged: of the model as it was trained, where `generations` are those of a form of it. Then
            `costs.json` says what the form costs.
    """
    losses, completions = (read_rows(generations.path / f"{name}.parquet") for name in ("losses", "completions"))
    verdicts = functional.by_item(read_rows(executions.path / "verdicts.parquet") if executions else ())
    solved = functional.scores(completions, verdicts)
    scores = [*scoring.score(completions), *solved]
    write_rows(scores, workdir / "scores.parquet", SCORE_COLUMNS)
    measures = scoring.measures(losses, scores, generations.held_out_by)
    progress.begin("drawing intervals", len(measures), "figures")
    metrics = []
    for measure in measures:
        metrics.append(measure.metric(config))
        progress.advance()
    metrics += scoring.specific(metrics)
    # not in the handle alone: a verdict that changes must change the fingerprint, or what follows would be reused
    (workdir / "metrics.json").write_text(json.dumps([one.model_dump() for one in metrics], indent=1), encoding="utf-8")
    costs = []
    if trained and judged:
        before = read_rows(trained.path / "losses.parquet"), read_rows(judged.path / "scores.parquet")
        costs = scoring.costs(measures, scoring.measures(*before, generations.held_out_by), config)
        (workdir / "costs.json").write_text(json.dumps([one.model_dump() for one in costs], indent=1), encoding="utf-8")
    return EvaluationReport(
        path=workdir,
        costs=tuple(costs),
        metrics=tuple(metrics),
        noise=tuple(noise for measure in measures if (noise := measure.noise())),
        breakdowns=tuple(row for measure in measures for row in measure.breakdowns()),
        notes=(*generations.notes, *(executions.notes if executions else ())),
        samples=choose(completions, verdicts, config.samples, random.Random(f"samples {config.seed}")),
        functional=functional.results(solved, verdicts),
        protection=executions.protection.summary if executions else "",
        quantization=generations.quantization,
        form=generations.form,
        generation=generations.speed,
        held_out_by=generations.held_out_by,
    )


STAGE = Stage(
    name="evaluation", version=12, run=run_evaluation, produces=EvaluationReport, sections=sections, needs_gpu=False
)
SHIPPED = replace(STAGE, name="shipped-evaluation")
"""The same of a form that is shipped."""
