"""The configuration of the whole pipeline: the stages' own configurations, and what must hold across them.

The defaults are the reference job. A configuration is built from a recipe and what differs from it.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from fnmatch import fnmatch
from typing import Any, get_args

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from artifacts import naming
from artifacts.configuration import Config, Unkeyed
from artifacts.errors import InputError
from artifacts.paths import shown
from artifacts.redaction import secret_settings
from flows import recipes
from flows.recipes import text
from tasks.backends.contract import JobShape
from tasks.evaluation import NAMES, EvaluationConfig
from tasks.execution import ExecutionConfig
from tasks.exporting import ExportingConfig
from tasks.gate import GateConfig
from tasks.generation import GenerationConfig
from tasks.models.base_model import ModelConfig
from tasks.preflight import PreflightConfig
from tasks.prompts import PromptsConfig
from tasks.reporting import ReportingConfig
from tasks.running.mapping import WorkersConfig
from tasks.sampling import RetentionConfig, SamplingConfig
from tasks.tokenization import TokenizationConfig
from tasks.training import TrainingConfig


class PipelineConfig(Config):
    """Settings of a run, by stage. Without any: the reference job."""

    recipe: str | None = Unkeyed(None)
    """The recipe, or the path of a YAML file, that this configuration starts from."""
    model: ModelConfig = Field(default_factory=ModelConfig)
    """The base model."""
    sampling: SamplingConfig = Field(default_factory=SamplingConfig)
    """Which source files are trained on and which are held out."""
    tokenization: TokenizationConfig = Field(default_factory=TokenizationConfig)
    """How text becomes sequences of tokens."""
    preflight: PreflightConfig = Field(default_factory=PreflightConfig)
    """What the run may use of the machine."""
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    """Quantization, LoRA and the optimizer."""
    exporting: ExportingConfig = Field(default_factory=ExportingConfig)
    """In which forms the model is handed over."""
    retention: RetentionConfig | None = Field(default_factory=RetentionConfig)
    """Code from outside what is trained on: there is seen what was forgotten. None leaves it out."""
    prompts: PromptsConfig = Field(default_factory=PromptsConfig)
    """What base and tuned are asked."""
    generation: GenerationConfig = Field(default_factory=GenerationConfig)
    """How they answer."""
    execution: ExecutionConfig = Field(default_factory=ExecutionConfig)
    """How programs of functional suites are run."""
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    """How base and tuned are compared."""
    gate: GateConfig = Field(default_factory=GateConfig)
    """What a promotion rests on."""
    reporting: ReportingConfig = Field(default_factory=ReportingConfig)
    """The report."""
    workers: WorkersConfig = Unkeyed(WorkersConfig())
    """Who computes the stages that fall into parts."""

    @model_validator(mode="before")
    @classmethod
    def _expand(cls, settings: Any) -> Any:
        if not isinstance(settings, dict):
            return settings
        name = settings.get("recipe")
        if isinstance(name, str):
            settings = recipes.merge(recipes.load(name), settings)
        refuse_secrets(settings)
        return _with_quantization(settings)

    @model_validator(mode="after")
    def _scalable(self) -> PipelineConfig:
        if self.exporting.adapter_scale == "auto" and self.training.validation is None:
            raise InputError(
                "the adapter's weight is chosen by the loss on validation text, and there is none",
                field="exporting.adapter_scale",
                remedy="set training.validation={}, or a number in place of auto",
            )
        return self

    @model_validator(mode="after")
    def _decidable(self) -> PipelineConfig:
        """What decides is known before the work by name, if not whether it can be measured."""
        for pattern in self.gate.decided_by:
            if (
                not naming.is_pass(pattern)
                and not pattern.endswith("*")
                and not any(fnmatch(name, pattern) for name in NAMES)
            ):
                raise InputError(
                    f"{shown(repr(pattern))} is the name of no figure, and no pattern of any",
                    field="gate.decided_by",
                    remedy=f"figures are {', '.join(sorted(NAMES))}, and <suite>_pass of a functional suite",
                )
        for name in self.gate.forms:
            if name not in (measured := self.generation.forms):
                raise InputError(
                    f"{name} is required, and measured is {', '.join(measured) or 'no form'}",
                    field="gate.requires",
                    remedy=f"set generation.forms=[{', '.join((*measured, name))}], all among exporting.forms",
                )
        return self

    def job(self) -> JobShape:
        """What preflight needs to know of the run."""
        training = self.training
        return JobShape(
            quantization=training.quantization,
            lora_rank=training.lora.r,
            lora_target_modules=training.lora.target_modules,
            lora_dropout=training.lora.dropout,
            max_length=self.tokenization.max_length,
            format=self.tokenization.format,
            effective_batch=training.effective_batch,
            micro_batch=training.micro_batch,
            gradient_checkpointing=training.gradient_checkpointing,
            processes=training.processes,
            backend=training.backend,
            products=training.products,
            max_steps=training.max_steps,
            epochs=training.epochs,
            packed=training.packing,
            keeps_best=training.validation is not None and training.validation.keep == "best",
            sample_files=self.sampling.files,
            exports=self.exporting.forms,
            measured=self.generation.forms,
        )


def build(recipe: str, changes: Iterable[str] = ()) -> PipelineConfig:
    """The configuration of a recipe with changes written `stage.field=value`, values in YAML.

    Raises:
        InputError: an unknown recipe, field or value; the message lists every fault.
    """
    settings: dict[str, Any] = {"recipe": recipe}
    for change in changes:
        settings = recipes.merge(settings, _parse(change))
    return of(settings)


def of(settings: dict[str, Any]) -> PipelineConfig:
    """The configuration of settings, by stage.

    Raises:
        InputError: an unknown recipe, field or value; the message lists every fault.
    """
    try:
        return PipelineConfig.model_validate(settings)
    except ValidationError as error:
        raise explained(error) from None


def explained(error: ValidationError) -> InputError:
    """What is wrong with settings, for a person: every fault, by field."""
    every = error.errors(include_url=False)
    places = [fault["loc"] for fault in every]
    # without those that follow from others: a list whose items are refused is also called too short
    faults = [
        fault
        for fault in every
        if fault["type"] != "too_short" or not any(place[:-1] == fault["loc"] for place in places)
    ]
    lines = [_sentence(fault) for fault in faults]
    if len(lines) == 1:
        field, problem = lines[0]
        return InputError(problem, field=field, remedy=_remedy(faults[0]))
    listed = "".join(f"\n  - {field}: {problem}" for field, problem in lines)
    return InputError(f"{len(lines)} settings cannot be used:{listed}", remedy=_remedy(faults[0]))


def refuse_secrets(settings: Any) -> None:
    """Refuse settings that would be stored in clear: by Prefect, in manifests, in the report.

    Raises:
        InputError: names the first. Not a ValueError: what pydantic makes of one quotes the value.
    """
    for name in secret_settings(settings):
        raise InputError(
            "it holds a secret (a password, a key, a token), and settings are stored in clear",
            field=name,
            remedy="put it into the environment of the process that does the work, as HF_TOKEN for the hub",
        )


def _with_quantization(settings: dict[str, Any]) -> dict[str, Any]:
    """Export and generation look at the model as it was trained, unless told otherwise."""
    training = settings.get("training")
    if not isinstance(training, dict) or "quantization" not in training:
        return settings
    default = {"quantization": training["quantization"]}
    return recipes.merge({"exporting": default, "generation": default}, settings)


def _parse(change: str) -> dict[str, Any]:
    name, equals, given = change.partition("=")
    parts = name.strip().split(".")
    if not equals or not all(parts) or len(parts) > text.DEEPEST:
        raise InputError(f"“{shown(change)}” is no setting", field="--set", remedy="write --set training.max_steps=50")
    try:
        value: Any = text.read_value(given) if given.strip() else ""
    except ValueError as error:
        raise InputError(
            f"the value of {shown(name)} is not valid YAML: {shown(given)}: {error}",
            field="--set",
            remedy=f"write text in quotes of its own: --set '{shown(name)}=\"…\"'",
        ) from error
    for part in reversed(parts):
        value = {part: value}
    settings: dict[str, Any] = value
    return settings


_SEVERAL = ("model_type", "model_attributes_type")
"""What pydantic calls it where one value stands for a group of settings."""


def _sentence(fault: ErrorDetails) -> tuple[str, str]:
    field = ".".join(_written(fault["loc"])) or "configuration"
    message = fault["msg"].removeprefix("Value error, ")
    match fault["type"]:
        case "extra_forbidden":
            return field, "there is no such setting"
        case "missing":
            return field, "this setting is needed"
        case "value_error":
            return field, message
        case "tuple_type":
            return field, f"a list is needed here, not {shown(repr(fault['input']))}"
        case kind if kind in _SEVERAL:
            return field, f"several settings are needed here, not {shown(repr(fault['input']))}"
        case _:
            return field, f"{message[0].lower()}{message[1:]} (got {shown(repr(fault['input']))})"


def _remedy(fault: ErrorDetails) -> str:
    field, given = ".".join(_written(fault["loc"])), fault["input"]
    if fault["type"] == "tuple_type":
        parts = [part.strip() for part in given.split(",")] if isinstance(given, str) else [given]
        fits = all(parts) and not isinstance(given, dict)
        return f"write a list: {field}={shown(text.written(parts)) if fits else '[first, second]'}"
    if fault["type"] in _SEVERAL and field:
        known = _fields(PipelineConfig, [*map(str, fault["loc"])])
        if not known:
            return f"write {field}={{kind: {next(iter(_SOURCES))}, …}}; kinds are {', '.join(_SOURCES)}"
        return f"write {field}.{known[0]}=…; settings here are: {', '.join(known)}"
    if fault["type"] != "extra_forbidden":
        return "`codetune recipes --settings` describes every setting"
    *parents, wrong = (str(part) for part in fault["loc"])
    known = _fields(PipelineConfig, parents)
    near = difflib.get_close_matches(wrong, known, n=1)
    guess = f"did you mean {'.'.join(_written((*parents, near[0])))}? " if near else ""
    if len(_written(fault["loc"])) < len(fault["loc"]) and (
        kinds := [kind for kind, fields in _SOURCES.items() if wrong in fields]
    ):
        guess = f"it is a setting of kind: {' and '.join(kinds)}, which has to be named with it; "
    return f"{guess}settings here are: {', '.join(known)}" if known else f"{guess}remove it"


def _written(place: tuple[int | str, ...]) -> tuple[str, ...]:
    """A place as people write it: behind a source pydantic also says of which kind it is."""
    names = tuple(map(str, place))
    return tuple(name for above, name in zip(("", *names), names, strict=False) if (above, name) not in _KINDS)


def _fields(model: type[BaseModel], parents: list[str]) -> list[str]:
    """The names of the fields of the model that `parents` lead to; a union is searched by its tag."""
    if not parents:
        return list(model.model_fields)
    first, *rest = parents
    if first not in model.model_fields:
        return []
    kinds = _models(model.model_fields[first].annotation)
    if len(kinds) > 1 and rest:
        tag, *rest = rest
        kinds = [kind for kind in kinds if kind.model_fields["kind"].default == tag]
    return _fields(kinds[0], rest) if len(kinds) == 1 else []


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


_SOURCES = {
    kind.model_fields["kind"].default: kind.model_fields
    for kind in _models(SamplingConfig.model_fields["source"].annotation)
}
_KINDS = {("source", kind) for kind in _SOURCES}
