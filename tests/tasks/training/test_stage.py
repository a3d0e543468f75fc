"""The stage as the pipeline runs it: a process of its own, and what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from artifacts.errors import InputError, StageError
from artifacts.progress import Progress
from artifacts.schema import Checkpoint, QuantizedBase, WeightGroup
from tasks.models.base_model import ModelReference
from tasks.training import TrainingConfig
from tasks.training.messages import Spec
from tasks.training.view import sections
from tests.tasks.training import jobs


def test_learns(finished: Checkpoint) -> None:
    assert finished.last_loss < finished.first_loss - 0.5
    weights = jobs.adapter(finished.path)
    changed = [name for name, weight in weights.items() if "lora_B" in name and weight.abs().max() > 0]
    assert len(changed) == len(weights) / 2
    assert {weight.dtype for weight in weights.values()} == {torch.float32}


def test_every_step_is_measured(finished: Checkpoint) -> None:
    columns = jobs.metrics(finished.path)
    assert columns["step"] == list(range(1, 9))
    assert sum(columns["tokens"]) == finished.tokens
    assert all(0 < rate <= 5e-3 for rate in columns["learning_rate"][1:])
    assert all(min(columns[name]) > 0 for name in ("seconds", "tokens_per_second", "memory_gib", "grad_norm"))


def test_tensorboard_has_the_same_losses(finished: Checkpoint) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(finished.path / "tensorboard")).Reload().Scalars("train/loss")
    assert [event.step for event in events] == list(range(1, 9))
    assert [event.value for event in events] == pytest.approx(jobs.metrics(finished.path)["loss"])


def test_only_results_are_left(finished: Checkpoint) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"adapter", "metrics.parquet", "tensorboard"}
    assert {path.name for path in (finished.path / "adapter").iterdir()} == {
        "adapter_config.json",
        "adapter_model.safetensors",
    }


def test_adapter_names_its_base_and_no_place_of_this_machine(finished: Checkpoint) -> None:
    settings = json.loads((finished.path / "adapter" / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(jobs.SMALL_MODEL)  # as configured
    assert settings["target_modules"] == ["q_proj", "v_proj"]
    assert str(finished.path) not in json.dumps(settings)


def test_says_how_large_the_model_is(finished: Checkpoint) -> None:
    assert finished.trainable_parameters == 3 * 2 * 2 * 8 * 256  # layers × modules × (A, B) × rank × width
    assert 3e6 < finished.total_parameters < 4e6
    assert finished.resumed_from is None


def test_sections_draw_stable_figures(finished: Checkpoint) -> None:
    first, second = sections(finished), sections(finished)
    assert first == second
    assert f"{finished.last_loss:.3f}" in first[0].blocks[0].markdown  # type: ignore[union-attr]


def test_on_a_quantized_base_the_original_weights_are_not_wanted(
    workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.training import stage

    specs: list[Spec] = []

    def stop(spec: Spec, *_: object) -> dict[str, object]:
        specs.append(spec)
        raise StageError("seen enough")

    monkeypatch.setattr(stage, "run_worker", stop)
    nowhere = ModelReference(name="nobody/nothing", revision="0" * 40, fingerprint="", metadata=tmp_path)
    nothing = WeightGroup(tensors=0, parameters=0, original_bytes=0, bytes=0)
    base = QuantizedBase(quantization="int8", linear=nothing, other=nothing, path=jobs.SMALL_MODEL)
    tokens = jobs.dataset(tmp_path / "tokens", jobs.rows())
    inputs: dict[str, Any] = {"model": nowhere, "tokens": tokens, "plan": jobs.PLAN, "base": base}
    with pytest.raises(StageError, match="seen enough"):
        stage.run_training(jobs.CONFIG, **inputs, workdir=workdir, progress=Progress())
    assert (specs[0].model, specs[0].model_name) == (str(jobs.SMALL_MODEL), "nobody/nothing")


def test_fewer_chunks_than_a_batch_are_refused(workdir: Path, tmp_path: Path) -> None:
    few = jobs.dataset(tmp_path / "few", jobs.rows(3))
    with pytest.raises(InputError, match=r"4 sequences, .* 3\n") as caught:
        jobs.run(workdir, few)
    assert caught.value.field == "training.effective_batch"
    assert "sampling.files" in str(caught.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"micro_batch": 3},
        {"micro_batch": True},
        {"lora": {"r": 0}},
        {"lora": {"target_modules": []}},
        {"lora": {"target_modules": ["lm_head"]}},
        {"lora": {"target_modules": ["q_proj", "model.lm_head"]}},
        {"lora": {"target_modules": ["embed_tokens"]}},
        {"lora": {"target_modules": ["all-linear", "q_proj"]}},
        {"lora": {"target_modules": "q_proj|v_proj"}},
        {"lora": {"target_modules": [""]}},
        {"lora": {"modules_to_save": ["lm_head"]}},
        {"learning_rate": -1},
        {"quantization": "int4"},
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        TrainingConfig.model_validate(settings)


def test_places_and_habits_are_no_part_of_the_key() -> None:
    keyed = TrainingConfig(save_steps=7, trackers=(), micro_batch=2, grace_seconds=1).keyed()
    assert keyed == TrainingConfig().keyed()
    assert keyed != TrainingConfig(seed=1).keyed()
