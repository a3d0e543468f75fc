"""The flow: from a body of code to an adapted model and the proof of what it gained."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from prefect import State, flow, task
from prefect.cache_policies import NO_CACHE
from pydantic import Field

from artifacts import faults
from artifacts.errors import redacting_secrets
from artifacts.escaping import code, quoted
from artifacts.intervals import Verdict
from artifacts.presentation import Section, Table, Text
from artifacts.registry import Registry
from artifacts.schema import (
    Completion,
    DatasetSample,
    EvaluationReport,
    ExportedModel,
    Generations,
    PreflightReport,
    PromptSet,
    Quantization,
    QuantizedBase,
    Record,
    RetentionSample,
    RunReport,
    TokenizedDataset,
)
from artifacts.store import Store
from artifacts.units import UNITS, HeldOutBy
from artifacts.verdicts import Candidate, Event, GateDecision, Ruling
from flows import forms
from flows.commands.options import check_stages
from flows.config import PipelineConfig
from flows.discretion import forget_secrets
from flows.failures import told
from flows.notification import notify
from flows.stages import StageName
from tasks import (
    evaluation,
    execution,
    exporting,
    gate,
    generation,
    preflight,
    prompts,
    quantization,
    reporting,
    sampling,
    tokenization,
    training,
)
from tasks.evaluation.forms import Measured, measured
from tasks.gate import promotion
from tasks.machines.probe import probe
from tasks.models import base_model
from tasks.running import dashboard
from tasks.running.gpu_lock import GpuLock, gpu_name
from tasks.running.retries import FIRST_DELAY, RETRIES, is_transient, retrying
from tasks.running.run import Outcome, Run, StageState
from tasks.running.stage import StageRunner

REFERENCE = PipelineConfig()


class StageSummary(Record):
    """What became of a stage."""

    state: StageState
    seconds: float
    key: str
    fingerprint: str
    path: str


class RunSummary(Record):
    """What became of a run: the object that `codetune run --json` prints."""

    stages: dict[str, StageSummary]
    report: str
    """The HTML report."""
    model: str
    """The exported model's folder."""
    verdict: Ruling
    """What became of the model: promoted to champion when it was first judged, or held."""
    version: int | None
    """Its version; None for a model that was never promoted."""
    reasons: tuple[str, ...]
    """Of the verdict, in sentences."""
    verdicts: dict[str, Verdict]
    """Of the figures that decide, by metric."""
    measured: dict[str, Measured] = Field(default_factory=dict)
    """Where forms were measured: the figures of the model as it was trained (`trained`) and of each form."""
    forms: tuple[str, ...] = ()
    """Of the export."""
    example: Completion | None = None
    """Of the gaps in held-out code that the tuned model gained most on the one that it filled best, if there is one."""
    held_out_by: HeldOutBy = "repository"
    """What told what was held out."""
    proves: str = ""
    """What a gain on that proves, in a sentence."""


@task(
    name="base-model",
    task_run_name="base-model",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=RETRIES,
    retry_delay_seconds=FIRST_DELAY,
    retry_condition_fn=is_transient,
)
def locate(config: base_model.ModelConfig) -> base_model.ModelReference:
    """Find the base model, reading metadata only."""
    with redacting_secrets():
        return base_model.locate(config)


# No stage: what it does depends on the champion. The registry settles a candidate once, however often this runs.
@task(name="promotion", task_run_name="promotion", cache_policy=NO_CACHE, persist_result=False)
def promote(registry: Registry, candidate: Candidate, config: gate.GateConfig, evaluated: EvaluationReport) -> Event:
    """Promote the model or hold it."""
    event = promotion.settle(registry, candidate, config, evaluated.metrics)
    dashboard.publish("promotion", promotion.sections(event))
    return event


DONE: ContextVar[list[RunSummary]] = ContextVar("done", default=[])  # noqa: B039 - a deployed run has no use for it
"""Gets what became of a run, which is then known even if the server cannot be told."""


@flow(
    name="finetune",
    flow_run_name=forms.name_after(lambda parameters: forms.recipe_of(parameters.get("config")) or "finetune"),
    persist_result=False,
    validate_parameters=False,  # `as_chosen` does, and says what to do
    on_completion=[notify],
    on_failure=[forget_secrets, notify],
    on_crashed=[forget_secrets, notify],
    on_cancellation=[notify],
)
def finetune(
    config: PipelineConfig = REFERENCE, refresh: list[StageName] | None = None, from_stage: StageName | None = None
) -> RunSummary | State[RunSummary]:
    """Adapt a code model to a body of code and prove what it gained.

    Args:
        config: the settings; `{"recipe": "demo"}` takes a recipe as it is.
        refresh: stages to run again even if nothing changed.
        from_stage: a stage to run again even if nothing changed, with everything that follows from it.
    """
    return told(lambda: _finetune(forms.as_chosen(config), refresh, from_stage))


def _finetune(config: PipelineConfig, refresh: list[StageName] | None, from_stage: StageName | None) -> RunSummary:
    check_stages(refresh or [], "refresh")
    check_stages([from_stage] if from_stage else [], "from_stage")
    store = Store.from_environment()
    with faults.in_words(store.place):
        return _through(store, config, refresh, from_stage)


def _through(
    store: Store, config: PipelineConfig, refresh: list[StageName] | None, from_stage: StageName | None
) -> RunSummary:
    config.training.check()
    config.exporting.check(config.generation.forms)
    retrying(partial(prompts.suites_fingerprint, config.prompts))  # a broken one is said now
    gpu = GpuLock(None if config.preflight.device == "cpu" else gpu_name())
    with Run(store, refresh or (), config.workers, from_stage=from_stage, recipe=config.recipe or "", gpu=gpu) as run:
        results = pipeline(run, config, locate(config.model))
        candidate = promotion.candidate_of(results.exported, results.decided, results.report, config.recipe)
        event = promote(Registry(store.registry), candidate, config.gate, results.evaluated)
    summary = RunSummary(
        stages={outcome.stage: _summary(outcome) for outcome in run.outcomes},
        report=str(results.report.path / "report.html"),
        model=str(results.exported.path),
        verdict="hold" if event.kind == "hold" else "promote",
        version=event.version,
        reasons=event.reasons,
        verdicts={one.metric: one.verdict for one in results.decided.judgements if one.decides},
        measured=measured(results.evaluated, results.shipped) if results.shipped else {},
        forms=tuple(form.name for form in results.exported.forms),
        example=_example(results.evaluated.samples),
        held_out_by=results.evaluated.held_out_by,
        proves=UNITS[results.evaluated.held_out_by].proves,
    )
    DONE.get().append(summary)
    dashboard.publish("run", [_overview(run.outcomes, results.report, event)])
    dashboard.publish_report((results.report.path / "report.md").read_text(encoding="utf-8"))
    return summary


def _example(samples: tuple[Completion, ...]) -> Completion | None:
    gained = [one for one in samples if one.chosen == "best" and one.domain == "held_out" and not one.tuned_reason]
    return max(gained, key=lambda one: one.tuned_score or 0.0, default=None)


def _overview(outcomes: list[Outcome], report: RunReport, event: Event) -> Section:
    """What became of every stage, on the run itself."""
    rows = tuple(
        (one.stage, one.state, "" if one.state == "cached" else f"{one.seconds:.1f} s", one.handle.summary)
        for one in outcomes
    )
    ruling = "held" if event.kind == "hold" else f"promoted, v{event.version}"
    verdict = f"**{quoted(report.verdict)}**\n\nThe model: {ruling}. {quoted(' '.join(event.reasons))}"
    where = f"The whole report is one HTML file: {code(report.path / 'report.html')}"
    return Section("overview", "The run", (Text(verdict), Table(("stage", "", "took", "result"), rows), Text(where)))


Shipped = dict[str, Any]
"""Evaluations by form. Not of their own type: they go on as inputs named by the form."""


class Results(NamedTuple):
    """What the pipeline ends in."""

    exported: ExportedModel
    evaluated: EvaluationReport
    shipped: Shipped
    decided: GateDecision
    report: RunReport


def pipeline(run: StageRunner, config: PipelineConfig, model: base_model.ModelReference) -> Results:
    """Every stage and what it takes. Nothing here looks into a handle but preflight's: whoever only asks what would
    run (`tasks.running.dry_run`) does not have the others."""
    cleared = run.stage(preflight.STAGE, config.preflight, model=model, job=config.job())
    prompts.check_context(config.prompts, model)
    plan = cleared.plan
    sample = run.stage(sampling.STAGE, config.sampling)
    retention = run.stage(sampling.RETENTION, config.retention, sample=sample) if config.retention else None
    tokens = run.stage(tokenization.STAGE, config.tokenization, sample=sample, model=model)
    asked = ask(run, config, config.tokenization, model=model, sample=sample, tokens=tokens, retention=retention)
    base = _quantized(run, config, model, cleared, tokens)

    def base_for(wanted: Quantization) -> QuantizedBase | None:
        """For a stage that computes with the model quantized like `wanted`; what differs from training it makes
        itself."""
        return base if wanted == config.training.quantization else None

    def ready() -> None:
        check_sandbox(config)
        # The plan rests on what the machine has; what is free of it may have changed since.
        preflight.recheck(plan, cleared.prediction, probe(run.store.place))

    checkpoint = run.stage(
        training.STAGE,
        config.training.within(cleared.prediction.budget_steps),
        guard=ready,
        model=model,
        tokens=tokens,
        plan=plan,
        base=base_for(config.training.quantization),
    )
    exported = run.stage(
        exporting.STAGE,
        config.exporting,
        model=model,
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        plan=plan,
        base=base_for(config.exporting.quantization),
    )
    generated = run.stage(
        generation.STAGE,
        config.generation.trained,
        model=model,
        prompts=asked,
        exported=exported,
        plan=plan,
        guard=lambda: check_sandbox(config),
        base=base_for(config.generation.quantization),
    )
    executed = run.stage(execution.STAGE, config.execution, generations=generated) if functional(config) else None
    evaluated = run.stage(evaluation.STAGE, config.evaluation, generations=generated, executions=executed)
    shipped = as_shipped(
        run, config, trained=generated, judged=evaluated, model=model, prompts=asked, exported=exported, plan=plan
    )
    decided = run.stage(gate.STAGE, config.gate, generations=generated, evaluation=evaluated, **shipped)
    report = run.stage(
        reporting.STAGE,
        config.reporting,
        preflight=cleared,
        sample=sample,
        tokens=tokens,
        checkpoint=checkpoint,
        exported=exported,
        prompts=asked,
        retention=retention,
        generations=generated,
        executions=executed,
        evaluation=evaluated,
        decision=decided,
        **shipped,
    )
    return Results(exported, evaluated, shipped, decided, report)


def ask(
    run: StageRunner,
    config: PipelineConfig,
    framing: tokenization.TokenizationConfig,
    *,
    model: base_model.ModelReference,
    sample: DatasetSample,
    tokens: TokenizedDataset,
    retention: RetentionSample | None,
) -> PromptSet:
    """What both models will be asked. Code from elsewhere is tokenized as held-out code was: by `framing`."""
    elsewhere = retention and run.stage(tokenization.RETENTION, framing.held_out, sample=retention, model=model)
    return run.stage(
        prompts.STAGE,
        config.prompts,
        model=model,
        sample=sample,
        tokens=tokens,
        retention=retention,
        retention_tokens=elsewhere,
    )


def as_shipped(
    run: StageRunner, config: PipelineConfig, *, trained: Generations, judged: EvaluationReport, **asked: Any
) -> Shipped:
    """Both models asked and judged once more as each form that is shipped and to be measured.

    Args:
        trained, judged: the same of the model as it was trained.
        asked: what generation takes.
    """
    found: Shipped = {}
    for form in config.generation.forms:
        asking, judging = replace(generation.SHIPPED, of=form), replace(evaluation.SHIPPED, of=form)
        made = run.stage(asking, config.generation.of(form), guard=lambda: check_sandbox(config), **asked)
        executing = replace(execution.SHIPPED, of=form)
        executed = run.stage(executing, config.execution, generations=made) if functional(config) else None
        found[form] = run.stage(
            judging, config.evaluation, generations=made, executions=executed, trained=trained, judged=judged
        )
    return found


def functional(config: PipelineConfig) -> bool:
    """Whether programs will be run."""
    return bool(config.prompts.functional)


def check_sandbox(config: PipelineConfig) -> None:
    """Before hours are spent on what ends in programs that may not be run.

    Raises:
        StageError: the sandbox is below its floor, and that was not allowed.
    """
    if functional(config):
        execution.check_sandbox(config.execution)


def _quantized(
    run: StageRunner,
    config: PipelineConfig,
    model: base_model.ModelReference,
    cleared: PreflightReport,
    tokens: TokenizedDataset,
) -> QuantizedBase | None:
    """The base model as training needs it; None when that is the model as published."""
    if config.training.quantization == "none":
        return None
    device = cleared.plan.device
    settings = quantization.QuantizationConfig(quantization=config.training.quantization, device=device)

    def enough() -> None:
        """Training would refuse too little text as well, after gigabytes were fetched for it."""
        training.learned_from(config.training, tokens)

    return run.stage(quantization.STAGE, settings, guard=enough, model=model, after=cleared)


def _summary(outcome: Outcome) -> StageSummary:
    return StageSummary(
        state=outcome.state,
        seconds=round(outcome.seconds, 2),
        key=outcome.key,
        fingerprint=outcome.handle.fingerprint,
        path=str(outcome.handle.path),
    )
