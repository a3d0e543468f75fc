"""The flow that judges an export again: with other settings, more prompts, another margin. It trains nothing."""

from __future__ import annotations

from functools import partial
from typing import TypeVar

from prefect import State, flow
from pydantic import BaseModel, Field, ValidationError

from artifacts import faults
from artifacts.configuration import GivenPath, Name
from artifacts.errors import InputError
from artifacts.schema import (
    DatasetSample,
    EvaluationReport,
    ExportedModel,
    Generations,
    Handle,
    Plan,
    QuantizedBase,
    Record,
    TokenizedDataset,
)
from artifacts.store import Damaged, Store
from artifacts.verdicts import GateDecision, Ruling
from flows import forms
from flows.config import PipelineConfig, refuse_secrets
from flows.discretion import forget_secrets
from flows.failures import told
from flows.finetune import Shipped, as_shipped, ask, check_sandbox, functional, locate
from flows.naming import place_of
from flows.notification import notify
from tasks import evaluation, execution, gate, generation, prompts, sampling
from tasks.models.base_model import ModelConfig, check_unchanged
from tasks.running.retries import retrying
from tasks.running.run import Run
from tasks.tokenization import TokenizationConfig

H = TypeVar("H", bound=Handle)


class Reevaluation(Record):
    """What became of it: the object that `codetune evaluate --json` prints."""

    model: str
    """The export's folder."""
    evaluation: str
    """The evaluation's folder."""
    generations: str
    """The folder of what was generated."""
    report: EvaluationReport
    shipped: dict[str, EvaluationReport]
    """The same of each form that was measured."""
    verdict: Ruling
    """What the gate would say; nothing is promoted."""
    reasons: tuple[str, ...]


class _ArtifactReference(BaseModel):
    """An artifact of the store."""

    place: str = Field(pattern=r"^[a-z]+/[0-9a-f]{64}$")


class _Base(BaseModel):
    """The base model's name, and what it was then."""

    name: GivenPath
    revision: Name | None
    fingerprint: str | None = None


class _Inputs(BaseModel):
    """What an export was made from, as its manifest tells: a file that may have been altered."""

    sample: _ArtifactReference
    tokens: _ArtifactReference
    base: _ArtifactReference | None = None
    plan: Plan
    model: _Base


@flow(
    name="evaluate",
    flow_run_name=forms.name_after(lambda parameters: parameters["model"]),
    persist_result=False,
    validate_parameters=False,  # `as_chosen` does, and says what to do
    on_completion=[notify],
    on_failure=[forget_secrets, notify],
    on_crashed=[forget_secrets, notify],
    on_cancellation=[notify],
)
def reevaluate(
    model: str, config: PipelineConfig, suites: list[str] | None = None
) -> Reevaluation | State[Reevaluation]:
    """Judge an export again, on the data that it was made with.

    Args:
        model: a version, `champion`, the beginning of an id, a recipe, or the export's folder.
        config: its `retention`, `generation`, `execution`, `evaluation` and `gate` decide how it is judged.
        suites: functional suites to judge it by instead of the settings' (`prompts.functional`): names, such as
            humaneval (an unknown name lists all), or paths of files.
    """
    return told(lambda: _reevaluate(model, forms.as_chosen(config), suites))


def _reevaluate(model: str, config: PipelineConfig, suites: list[str] | None) -> Reevaluation:
    refuse_secrets({"model": model, "suites": suites})
    if suites is not None:
        asked = config.prompts.model_copy(update={"functional": tuple(suites)})
        config = config.model_copy(update={"prompts": asked})
    retrying(partial(prompts.suites_fingerprint, config.prompts))  # a broken one is said now
    store = Store.from_environment()
    with faults.in_words(store.place):
        exported = _open(store, place_of(model, store), ExportedModel)
        made_from = _inputs(exported, store)
    with faults.in_words(store.place), Run(store, (), config.workers, recipe=config.recipe or "") as run:
        made, judged, shipped, decided = _judge(run, config, exported, made_from)
    return Reevaluation(
        model=str(exported.path),
        evaluation=str(judged.path),
        generations=str(made.path),
        report=judged,
        shipped=shipped,
        verdict=decided.ruling,
        reasons=decided.reasons,
    )


def _inputs(exported: ExportedModel, store: Store) -> _Inputs:
    """What an export was made from.

    Raises:
        InputError: its manifest does not say.
    """
    try:
        return _Inputs.model_validate(store.manifest(exported).provenance.get("inputs", {}))
    except ValidationError as error:
        wrong = ", ".join(".".join(map(str, one["loc"])) for one in error.errors()) or "inputs"
        raise InputError(
            f"{exported.path} does not say, or not in a form that is known, what it was made from: {wrong}",
            field="MODEL",
            remedy="export it again with this version: codetune run RECIPE --refresh exporting",
        ) from error


def _framing(tokens: TokenizedDataset, store: Store) -> TokenizationConfig:
    """The settings by which text was tokenized.

    Raises:
        InputError: this version does not know them.
    """
    try:
        return TokenizationConfig.model_validate(store.manifest(tokens).provenance.get("key_parts", {}).get("config"))
    except ValidationError as error:
        raise InputError(
            f"{tokens.place} was made with settings that this version does not know",
            field="MODEL",
            remedy="run its recipe again",
        ) from error


def _judge(
    run: Run, config: PipelineConfig, exported: ExportedModel, made_from: _Inputs
) -> tuple[Generations, EvaluationReport, Shipped, GateDecision]:
    store = run.store
    sample = _open(store, made_from.sample.place, DatasetSample)
    tokens = _open(store, made_from.tokens.place, TokenizedDataset)
    base = _open(store, made_from.base.place, QuantizedBase) if made_from.base else None
    plan = made_from.plan
    model = locate(ModelConfig(name=made_from.model.name, revision=made_from.model.revision))
    check_unchanged(model, made_from.model.fingerprint)
    fits = base if base and base.quantization == config.generation.quantization else None
    retention = run.stage(sampling.RETENTION, config.retention, sample=sample) if config.retention else None
    framing = _framing(tokens, store)
    asked = ask(run, config, framing, model=model, sample=sample, tokens=tokens, retention=retention)
    made = run.stage(
        generation.STAGE,
        config.generation.trained,
        model=model,
        prompts=asked,
        exported=exported,
        plan=plan,
        guard=lambda: check_sandbox(config),
        base=fits,
    )
    executed = run.stage(execution.STAGE, config.execution, generations=made) if functional(config) else None
    judged = run.stage(evaluation.STAGE, config.evaluation, generations=made, executions=executed)
    shipped = as_shipped(
        run, config, trained=made, judged=judged, model=model, prompts=asked, exported=exported, plan=plan
    )
    decided = run.stage(gate.STAGE, config.gate, generations=made, evaluation=judged, **shipped)
    return made, judged, shipped, decided


def _open(store: Store, place: str, kind: type[H]) -> H:
    stage, _, key = place.partition("/")
    try:
        return store.open(stage, key, kind)
    except (FileNotFoundError, Damaged) as damage:
        raise InputError(
            f"{place} is incomplete or missing in the store: {damage}",
            field="MODEL",
            remedy="run its recipe again: what is missing is built again",
        ) from damage
