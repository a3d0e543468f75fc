from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import yaml

from artifacts.errors import InputError
from artifacts.installation import PROJECT
from flows import recipes
from flows.config import PipelineConfig, build
from flows.stages import STAGES
from tasks.sampling.configuration import GithubCodeSource, LocalSource


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
    assert (training.micro_batch, training.gradient_checkpointing, training.engine) == (1, True, "stock")


def test_a_recipe_stands_on_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("recipe: codellama-7b-t4\ntraining: {max_steps: 7}\n")
    config = build(str(tmp_path / "mine.yaml"), ["training.lora.r=16"])
    assert (config.training.max_steps, config.training.lora.r) == (7, 16)
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
    derived = {"quantization"}  # its settings follow from those of training
    assert set(STAGES) == configured | derived


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
