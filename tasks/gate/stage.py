"""The stage: figures of base and tuned → verdicts → promote or hold, with reasons. Needs no model."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path

from artifacts.intervals import verdict
from artifacts.progress import SILENT, Progress
from artifacts.schema import EvaluationReport, Generations, Metric, Question, has_learned
from artifacts.units import UNITS
from artifacts.verdicts import FormJudgement, GateDecision, Judgement, Ruling
from tasks.evaluation import words
from tasks.gate import results
from tasks.gate.config import ASKED, SHIPPED, GateConfig
from tasks.gate.results import Result
from tasks.gate.view import sections
from tasks.running.stage import Stage
from tasks.statistics import mcnemar, wilson


def run_gate(
    config: GateConfig,
    *,
    generations: Generations,
    evaluation: EvaluationReport,
    workdir: Path,
    progress: Progress = SILENT,
    **shipped: EvaluationReport,
) -> GateDecision:
    """Decide by the evaluation's figures, and keep both models' results on each item for comparisons to come.

    `shipped`: by form, the evaluation of each that was measured. In those that are required the tuned model must not be
    worse than it was trained.
    """
    progress.begin("judging")
    found = results.gather([generations.path, evaluation.path])
    results.write(found, workdir / "results.parquet")
    judgements = tuple(judge(metric, config, found) for metric in evaluation.metrics)
    ruling, reasons = decide(judgements, config)
    if ruling == "promote" and evaluation.held_out_by != "repository":
        reasons = (*reasons, UNITS[evaluation.held_out_by].proves)
    forms = tuple(
        FormJudgement(form=form, costs=costs_of_a_form(evaluation.metrics, config, one.costs))
        for form, one in shipped.items()
    )
    ruling, reasons = with_the_forms(ruling, reasons, forms, config)
    decision = GateDecision(path=workdir, ruling=ruling, reasons=reasons, judgements=judgements, shipped=forms)
    (workdir / "decision.json").write_text(decision.model_dump_json(indent=1), encoding="utf-8")
    # some count against the champion only: with others, a model that was judged is judged again
    (workdir / "settings.json").write_text(json.dumps(config.keyed(), indent=1), encoding="utf-8")
    return decision


def judge(metric: Metric, config: GateConfig, found: Iterable[Result] = ()) -> Judgement:
    """What one figure says. `found`: the results that it was made of, for what stands beside it."""
    margin = "0" if metric.margin is None else words.margin(metric)
    few = ", too little to lose at the base" if metric.nothing_to_lose else ""
    interval = f", 95 % interval {words.interval(metric)}" if metric.gain else f" {metric.interval}"
    return Judgement(
        metric=metric.name,
        title=metric.title,
        question=metric.question,
        verdict=metric.verdict,
        decides=any(fnmatch(metric.name, pattern) for pattern in config.decided_by),
        finding=f"difference {words.change(metric, metric.difference)}{interval}, margin {margin}{few}",
        beside=beside(metric, [result for result in found if result.metric == metric.name]),
    )


def costs_of_a_form(metrics: Iterable[Metric], config: GateConfig, costs: Iterable[Metric]) -> tuple[Judgement, ...]:
    """What the deciding figures lose from the tuned model as it was trained to a form. The margin of held-out figures,
    which have none, is a share of what training gained. Figures of how specific the gain is have no items of their own.

    Args:
        metrics: base against tuned, as it was trained.
    """
    trained = {metric.name: metric for metric in metrics}
    found = []
    for cost in costs:
        if not any(fnmatch(cost.name, pattern) for pattern in config.decided_by):
            continue
        gained = trained[cost.name].difference * (-1 if cost.better == "lower" else 1)
        margin = config.tolerance * max(0.0, gained) if cost.margin is None else cost.margin
        said = verdict(cost.low, cost.high, better=cost.better, margin=margin, bound=cost.bound)
        finding = f"{words.figure(cost, cost.base)} → {words.figure(cost, cost.tuned)}, 95 % interval"
        allowed = words.margin(cost.model_copy(update={"margin": margin, "bound": None}))
        finding += f" {words.interval(cost)}, margin {allowed}"
        found.append(
            Judgement(
                metric=cost.name,
                title=cost.title,
                question=cost.question,
                verdict=said,
                decides=True,
                finding=finding,
            )
        )
    return tuple(found)


def with_the_forms(
    ruling: Ruling, reasons: tuple[str, ...], forms: Sequence[FormJudgement], config: GateConfig
) -> tuple[Ruling, tuple[str, ...]]:
    """The decision, where the tuned model must also be as good in the forms that are shipped as it was trained.

    Args:
        forms: those that were measured.
    """
    measured = {one.form for one in forms}
    against = [
        f"Whether the tuned model is as good as {name} as it was trained was not measured."
        for name in config.forms
        if name not in measured
    ]
    kept, aside = [], []
    for one in forms:
        worse = [cost for cost in one.costs if cost.verdict not in ("improved", "non-inferior")]
        if SHIPPED not in config.requires and one.form not in config.forms:
            found = ", ".join(f"{cost.title}: {cost.verdict}" for cost in worse) or "it is"
            aside.append(f"Whether it is as good as {one.form} as it was trained was not required ({found}).")
        elif worse:
            against += [
                f"As {one.form} it is not shown to be as good as it was trained: {cost.title}: {cost.verdict}"
                f" ({cost.finding})."
                for cost in worse
            ]
        else:
            kept.append(one.form)
    if kept:
        are = "is" if len(kept) == 1 else "are"
        reasons = (
            *reasons,
            f"As {' and '.join(kept)}, which {are} shipped, it is within its margins of the trained model.",
        )
    reasons = (*reasons, *aside)
    if against:
        return "hold", (*(reasons if ruling == "hold" else ()), *against)
    return ruling, reasons


def beside(metric: Metric, found: Sequence[Result]) -> str:
    """What else there is to know: the minimum detectable effect; of outcomes that are 0 or 1 the interval of each
    model's share and McNemar's test."""
    said = (
        []
        if metric.minimum_detectable_effect is None
        else [f"minimum detectable effect {metric.minimum_detectable_effect:.4f}"]
    )
    base, tuned = [result.base for result in found], [result.tuned for result in found]
    if found and {*base, *tuned} <= {0.0, 1.0}:
        for name, outcomes in (("base", base), ("tuned", tuned)):
            low, high = wilson(sum(outcomes), len(outcomes))
            said.append(f"{name} {sum(outcomes):.0f} of {len(outcomes)} [{low:.1%}, {high:.1%}]")
        test = mcnemar(base, tuned)
        said.append(f"{test.gained} gained, {test.lost} lost, McNemar p = {test.p:.2g}")
    return "; ".join(said)


def decide(judgements: Sequence[Judgement], config: GateConfig) -> tuple[Ruling, tuple[str, ...]]:
    """Promote when every question that is required is answered with yes, by all figures that decide it, and no other
    figure is worse. A gain that is not specific, where that is not required, makes nothing worse."""
    against = [reason for question in config.questions for reason in _objections(question, judgements)]
    against += [
        f"{one.title} regressed ({one.finding})."
        for one in judgements
        if one.verdict == "regressed"
        and one.question != "specific"
        and not (one.decides and one.question in config.questions)
    ]
    left_out = () if "specific" in config.questions else (_not_required(judgements),)
    if against:
        return "hold", (*against, *left_out)
    shown = [ASKED[question] for question in config.questions]
    if {"improved", "specific"} <= {*config.questions} and has_learned({one.metric: one.verdict for one in judgements}):
        shown = ["learned this code", *(ASKED[question] for question in config.questions if question == "retention")]
    said = f"The tuned model {' and '.join(shown)}." if shown else "Nothing was required."
    return "promote", (said, *left_out)


def _not_required(judgements: Sequence[Judgement]) -> str:
    """A model may be promoted whose gain is that of any code; then that is said."""
    found = [one.verdict for one in judgements if one.question == "specific" and one.decides]
    return f"Whether the gain is specific to this code was not required ({', '.join(found) or 'not measured'})."


def _objections(question: Question, judgements: Sequence[Judgement]) -> list[str]:
    enough = ("improved", "non-inferior") if question == "retention" else ("improved",)
    deciding = [one for one in judgements if one.question == question and one.decides]
    if not deciding:
        return [f"Whether the tuned model {ASKED[question]} was not measured."]
    return [
        f"That the tuned model {ASKED[question]} is not shown: {one.title}: {one.verdict} ({one.finding})."
        for one in deciding
        if one.verdict not in enough
    ]


STAGE = Stage(name="gate", version=13, run=run_gate, produces=GateDecision, sections=sections, needs_gpu=False)
