from __future__ import annotations

import importlib
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from pydantic import ValidationError

from artifacts.errors import InputError
from artifacts.installation import PROJECT
from flows import recipes
from flows.cli import guarded
from flows.config import PipelineConfig, build, of
from flows.stages import SHIPPED, STAGES
from tasks.gate.config import GateConfig
from tasks.models import base_model
from tasks.models.base_model import ModelConfig, ModelReference
from tasks.sampling.config import PACKAGE, PERMISSIVE, GithubCodeSource, LocalSource
from tools.base_model.sources import TRAINING


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_is_valid_and_described(name: str) -> None:
    assert build(name).recipe == name
    assert len(recipes.describe(name)) > 40


ENTRYPOINTS = {one["entrypoint"] for one in yaml.safe_load((PROJECT / "prefect.yaml").read_text())["deployments"]}


@pytest.mark.parametrize("entrypoint", sorted(ENTRYPOINTS))
def test_every_field_of_the_dashboards_forms_has_a_description(entrypoint: str) -> None:
    module, _, name = entrypoint.rpartition(".")
    form = getattr(importlib.import_module(module), name).parameters.model_dump()
    kinds = {"": form, **form["definitions"]}
    named = {kind: value.get("description") for kind, value in kinds.items()}
    silent = [
        f"{kind}.{field}"
        for kind, schema in kinds.items()
        for field, value in schema.get("properties", {}).items()
        # pydantic leaves out what the settings that are referred to say of themselves
        if not value.get("description") and not named.get(value.get("$ref", "").rpartition("/")[2])
    ]
    assert len(kinds) > 10 and form["properties"]["config"]["description"] and not silent


def test_the_defaults_are_the_reference_job() -> None:
    training = PipelineConfig().training
    assert (training.quantization, training.lora.r, training.effective_batch) == ("int8", 8, 4)
    assert sorted(training.lora.target_modules) == ["q_proj", "v_proj"]
    assert (training.learning_rate, training.max_steps, training.warmup_steps, training.save_steps) == (
        2e-4,
        200,
        10,
        100,
    )
    assert PipelineConfig().tokenization.max_length == 256
    assert PipelineConfig().sampling.files == 2000


def test_the_stock_recipe_spells_the_reference_settings() -> None:
    training = build("codellama-7b-t4-stock").training
    assert (training.micro_batch, training.gradient_checkpointing, training.backend) == (1, True, "transformers")


def test_a_recipe_stands_on_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: codellama-7b-t4\ntraining: {max_steps: 17}\n")
    config = build(str(tmp_path / "mine.yaml"), ["training.lora.r=16"])
    assert (config.training.max_steps, config.training.lora.r) == (17, 16)
    assert config.preflight.precision == "fp16"


def test_export_and_generation_follow_the_quantization_of_training() -> None:
    config = build("codellama-7b-t4", ["training.quantization=nf4"])
    assert (config.exporting.quantization, config.generation.quantization) == ("nf4", "nf4")


def test_a_source_that_names_its_kind_replaces_the_whole_source() -> None:
    assert build("demo", ["sampling.source={kind: github-code}"]).sampling.source == GithubCodeSource()
    own = build("demo", ["sampling.source={kind: local, paths: [mine]}"]).sampling.source
    assert own == LocalSource(paths=("mine",))


def test_the_command_line_knows_the_stages() -> None:
    configured = set(PipelineConfig.model_fields) - {"recipe", "model", "workers"}
    derived = {"quantization", "retention-tokens"}  # their settings follow from those of training and tokenization
    assert set(STAGES) == configured | derived | {*SHIPPED}
    assert {f"shipped-{stage}" for stage in configured} >= {
        *SHIPPED
    }  # they have the settings of those of the same name


def test_the_demo_must_show_that_it_learned_this_code_of_a_package_that_its_base_never_saw() -> None:
    demo = build("demo")
    assert (
        isinstance(demo.sampling.source, LocalSource)
        and demo.retention
        and isinstance(demo.retention.source, LocalSource)
    )
    learned = {path.removeprefix(PACKAGE).partition("/")[0] for path in demo.sampling.source.paths}
    assert demo.gate.requires == GateConfig().requires
    assert demo.sampling.source.license in PERMISSIVE
    retention = {path.removeprefix(PACKAGE) for path in demo.retention.source.paths}
    assert not learned & retention and not learned & {source.name for source in TRAINING}
    pinned = re.findall(r"^(\S+)==\S+ \\$", (PROJECT / "requirements.txt").read_text(), re.MULTILINE)  # on every Python
    names = packages_distributions()
    for package in learned | retention:
        assert {re.sub("[-_.]+", "-", name).lower() for name in names[package]} & set(pinned), package


def test_a_configuration_survives_the_dashboard() -> None:
    config = build("demo", ["training.max_steps=7"])
    assert PipelineConfig.model_validate(config.model_dump(mode="json")) == config


def test_every_fault_is_named() -> None:
    with pytest.raises(InputError, match=r"(?s)training\.lora\.r.*training\.max_steps"):
        build("demo", ["training.max_steps=many", "training.lora.r=many"])


def test_every_setting_is_described() -> None:
    schema = PipelineConfig.model_json_schema()
    silent = [
        f"{name}.{field}"
        for name, model in schema["$defs"].items()
        for field, entry in model.get("properties", {}).items()
        if "description" not in entry and field != "kind"  # the tag of a union
    ]
    assert not silent


def settings(
    schema: dict[str, Any], defs: dict[str, Any], place: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every setting with what it can be, in every member of a union."""
    yield place, schema
    if "$ref" in schema:
        yield from settings(defs[schema["$ref"].rpartition("/")[2]], defs, place)
    for part in (*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("prefixItems", ())):
        yield from settings(part, defs, place)
    for name, part in schema.get("properties", {}).items():
        kind = next((part["const"] for part in [schema["properties"].get("kind", {})] if "const" in part), None)
        yield from settings(part, defs, (*place, f"kind={kind}", name) if kind else (*place, name))
    for part in (schema.get("items"), schema.get("additionalProperties")):
        yield from settings(part, defs, place) if isinstance(part, dict) else ()


class Number(NamedTuple):
    place: tuple[str, ...]
    low: float | None
    high: float | None


SCHEMA = PipelineConfig.model_json_schema()
NUMBERS = sorted(
    {
        Number(
            place,
            kind.get("minimum", kind.get("exclusiveMinimum")),
            kind.get("maximum", kind.get("exclusiveMaximum")),
        )
        for place, kind in settings(SCHEMA, SCHEMA["$defs"])
        if kind.get("type") in ("integer", "number")
    }
)
LISTS = sorted(
    {
        place
        for place, kind in settings(SCHEMA, SCHEMA["$defs"])
        if kind.get("type") == "array" and "replay" not in place  # which needs other settings, and has the same lists
    }
)


def settings_with(place: tuple[str, ...], value: Any) -> dict[str, Any]:
    settings = value
    for name in reversed(place):
        kind = name.removeprefix("kind=")
        needed = {"hub": {"dataset": "a/b"}, "local": {"paths": ["x"]}, "table": {"paths": ["x"]}}.get(kind, {})
        settings = {**needed, **settings, "kind": kind} if kind != name else {name: settings}
    result: dict[str, Any] = settings
    return result


@pytest.mark.parametrize("number", NUMBERS, ids=lambda number: ".".join(number.place))
def test_every_number_has_bounds(number: Number) -> None:
    assert number.low is not None and number.high is not None and number.high <= 1 << 40
    beyond: list[Any] = [math.inf, -math.inf, math.nan, -1, -1e308, 1e308, 10**400, 10**18]
    beyond += ["1e400", "nan", ".inf", "true", True, False]
    for value in [*beyond, *([10**12] if number.high < 10**12 else [])]:
        with pytest.raises(ValidationError):
            PipelineConfig.model_validate(settings_with(number.place, value))


def test_the_walk_meets_every_kind_of_number() -> None:
    found = {".".join(number.place) for number in NUMBERS}
    assert len(NUMBERS) > 70
    assert found > {
        "evaluation.margins.loss",
        "training.lora.r",
        "training.micro_batch",
        "execution.workers",
        "retention.source.kind=hub.shards",
        "workers.count",
    }


@pytest.mark.parametrize("place", LISTS, ids=".".join)
@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("gguf-f16", "[gguf-f16]"),
        ("a, b*,*c", "[a, b*, '*c']"),
        (7, "[7]"),
        ("", "[first, second]"),
        ({"a": 1}, "[first, second]"),
    ],
    ids=str,
)
def test_of_a_list_it_is_said_how_to_write_it(place: tuple[str, ...], value: Any, written: str) -> None:
    if place[-1] == "paths" and isinstance(value, str):
        pytest.skip("it may be one path")
    with pytest.raises(InputError) as caught:
        of(settings_with(place, value))
    field = ".".join(name for name in place if not name.startswith("kind="))
    assert caught.value.field == field and f"{field}={written}" in (caught.value.remedy or "")
    assert "tuple" not in str(caught.value)


def test_the_walk_meets_every_kind_of_list() -> None:
    assert {".".join(place) for place in LISTS} > {
        "generation.forms",
        "sampling.licenses",
        "sampling.source.kind=local.exclude",
        "training.lora.target_modules",
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("training.lora=8", "r, alpha, "),
        ("training.validation=true", "share, "),
        ("sampling.source=stdlib", "{kind: local, …}"),
        ("model=x", "model.name="),
    ],
)
def test_of_several_settings_it_is_said_which_they_are(change: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build("demo", [change])
    assert caught.value.field == change.partition("=")[0] and said in (caught.value.remedy or "")
    assert "Settings" not in str(caught.value) and "Config" not in str(caught.value)


MEANINGLESS = [
    "training.warmup_steps=40",
    "training.max_steps=1",
    "training.max_steps=3",
    "sampling.held_out=0",
    "sampling.held_out=1",
    "sampling.files=1",
    "sampling.licenses=[]",
    "sampling.languages=[]",
    "sampling.licenses=[MIT OR]",
    "sampling.licenses=[public domain]",
    "sampling.source.license=see LICENSE",
    "prompts.max_chunks=0",
    "gate.decided_by=[]",
    "gate.decided_by=['']",
    "training.learning_rate=0",
    "training.learning_rate=1e-300",
    "training.max_grad_norm=0",
    "training.lora.alpha=0",
    "training.lora.dropout=1",
    "training.lora.target_modules=[]",
    "model.name=''",
    "model.revision=' '",
    "training.max_steps=true",
    "tokenization={format: fim, fim_rate: 0}",
    "workers={runner: dask, address: ''}",
]


@pytest.mark.parametrize("change", MEANINGLESS)
def test_what_makes_a_run_meaningless_is_refused(change: str) -> None:
    with pytest.raises(InputError) as caught:
        build("demo", [change])
    assert (caught.value.field or "").startswith(re.split("[.=]", change)[0])


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ("sampling.source.repositories=x", "sampling.source.repositories", "'top-level'"),
        ("retention.source.repositores=git", "retention.source.repositores", "retention.source.repositories"),
        (
            "sampling.source={kind: table, paths: [a.jsonl], columns: {txt: a}}",
            "sampling.source.columns.txt",
            "content",
        ),
        ("sampling.source.dataset=a/b", "sampling.source.dataset", "kind: hub"),
    ],
)
def test_a_setting_of_a_source_is_named_as_it_is_written(change: str, field: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        build("demo", [change])
    assert caught.value.field == field and said in str(caught.value)


PATHS = ["model.name=", "sampling.source.paths=", "retention.source.paths=", "prompts.functional="]
IMPOSSIBLE = ["''", "' '", "['']", "~nosuchuser/a", "~nosuchuser", "a" * 256, "a/" * 3_000, '"a\\0b"', "é" * 200]


@pytest.mark.parametrize("setting", PATHS)
@pytest.mark.parametrize("value", IMPOSSIBLE, ids=lambda value: value[:12])
def test_no_setting_takes_an_impossible_path(setting: str, value: str) -> None:
    for one in (value, f"[{value}]"):
        with pytest.raises(InputError) as caught:
            build("demo", [setting + one])
        assert len(str(caught.value)) < 600


@pytest.mark.parametrize("value", ["", " ", "\t"])
def test_a_report_has_a_title(value: str) -> None:
    with pytest.raises(InputError) as caught:
        build("demo", [f'reporting.title="{value}"'])
    assert caught.value.field == "reporting.title"


@pytest.mark.parametrize("pattern", ["lose", "retention_los", "humaneval", "fim_*_mach", "Loss", "specific_perplexity"])
def test_a_pattern_that_is_no_figure_decides_nothing(pattern: str) -> None:
    with pytest.raises(InputError) as caught:
        build("demo", [f"gate.decided_by=[loss, '{pattern}']"])
    assert caught.value.field == "gate.decided_by" and pattern in caught.value.problem


@pytest.mark.parametrize("pattern", ["loss", "retention_*", "*", "line_*_match", "specific_fim_exact_match", "x_pass"])
def test_patterns_of_figures_decide(pattern: str) -> None:
    assert build("demo", [f"gate.decided_by=['{pattern}']"]).gate.decided_by == (pattern,)


@pytest.mark.parametrize("command", [["run", "demo"], ["preflight", "demo"], ["why", "training", "demo"]])
def test_a_budget_is_taken_by_all_who_ask_about_a_run(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert guarded([*command, "--budget", "0s"]) == 2
    assert capsys.readouterr().err.startswith("error: preflight.budget: ")


@pytest.mark.parametrize("command", [["preflight", "demo"], ["why", "training", "demo"]])
def test_it_is_said_what_is_waited_for(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def silent(config: ModelConfig) -> ModelReference:
        assert config.name in capsys.readouterr().err
        raise InputError("no answer")

    monkeypatch.setattr(base_model, "locate", silent)
    assert guarded([*command, "--set", "model.name=some/model"]) == 2


def test_text_has_no_nul_whoever_gives_it() -> None:
    for settings in ({"reporting": {"title": "a\0"}}, {"sampling": {"source": {"kind": "local", "paths": ["a\0"]}}}):
        with pytest.raises(ValidationError, match="NUL"):
            PipelineConfig.model_validate(settings)


@pytest.mark.parametrize("value", ["abc", "nan", "1e400", "-1", "0"])
def test_a_number_of_the_environment_is_named_by_its_variable(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CODETUNE_GPU_MEMORY_GIB", value)
    with pytest.raises(InputError) as caught:
        build("demo")
    monkeypatch.delenv("CODETUNE_GPU_MEMORY_GIB")
    assert caught.value.field == "CODETUNE_GPU_MEMORY_GIB"
    for name in ("CODETUNE_WAIT_HOURS", "CODETUNE_RETRY_SECONDS"):
        command = ["-c", "from flows.cli import main; main()", "why", "training", "demo"]
        done = subprocess.run(
            [sys.executable, *command], env=os.environ | {name: value}, capture_output=True, text=True
        )
        assert done.returncode == 2 and name in done.stderr and "Traceback" not in done.stderr
