"""Base, base again and tuned through everything, on the built-in base."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from artifacts.errors import InputError
from artifacts.progress import Progress, Tick
from artifacts.schema import ExportedModel, Generations
from tasks.evaluation import EvaluationConfig, run_evaluation
from tasks.generation import GenerationConfig, run_generation
from tasks.models.base_model import ModelConfig, locate
from tests.conftest import SMALL_MODEL
from tests.tasks.generation import world
from tests.tasks.generation.world import SETTINGS, generate


def test_what_was_computed_lies_in_files(good: Generations) -> None:
    losses, answers = (pq.read_table(good.path / f"{name}.parquet").to_pylist() for name in ("losses", "completions"))
    assert len(losses) == good.losses == 24 and len(answers) == good.completions == 2 * (16 + 8 + 4)
    assert {row["domain"] for row in losses} == {row["domain"] for row in answers} == {"held_out", "retention"}
    blocks = [row for row in answers if row["suite"] == "block"]
    assert all("\n" in row["truth"] for row in blocks) and len(blocks) == 8


def test_the_base_twice_is_the_same_to_the_bit(good: Generations) -> None:
    rows = [
        row for name in ("losses", "completions") for row in pq.read_table(good.path / f"{name}.parquet").to_pylist()
    ]
    assert all(row["again"] == row["base"] for row in rows)
    assert any(row["tuned"] != row["base"] for row in rows)


def test_a_part_is_repeated_where_a_part_is_asked_for(
    small_world: world.World, noise: ExportedModel, tmp_path: Path
) -> None:
    made = generate(small_world, noise, tmp_path, repeated=0.25, block_prompts=0, line_prompts=8, fim_prompts=0)
    answers = pq.read_table(made.path / "completions.parquet").to_pylist()
    assert [row["again"] is not None for row in answers] == [True, False, False, False] * 4
    chunks = pq.read_table(made.path / "losses.parquet").to_pylist()
    again = [row["domain"] for row in chunks if row["again"] is not None]
    assert len(again) == 6 and set(again) == {"held_out", "retention"}


def test_a_second_run_gives_the_same_bytes(small_world: world.World, memorised: ExportedModel, tmp_path: Path) -> None:
    made = [
        generate(small_world, memorised, tmp_path / name, line_prompts=4, fim_prompts=2, block_prompts=2, repeated=0.1)
        for name in ("first", "second")
    ]
    assert made[1] == made[0].model_copy(update={"path": made[1].path, "speed": made[1].speed})
    for file in sorted(made[0].path.iterdir()):
        assert file.read_bytes() == (made[1].path / file.name).read_bytes(), file.name


@pytest.mark.parametrize("side", ["base", "tuned"])
def test_a_model_that_computes_no_numbers_is_refused_before_anything_is_measured(
    small_world: world.World, noise: ExportedModel, tmp_path: Path, side: str
) -> None:
    """Weights and factors are numbers, and what they compute is none."""
    folder = Path(shutil.copytree(noise.path if side == "tuned" else SMALL_MODEL, tmp_path / "broken"))
    (file,) = folder.rglob("*.safetensors")
    weights = load_file(file)
    save_file({name: one * 0 + 1e38 for name, one in weights.items()}, file, metadata={"format": "pt"})
    if side == "tuned":
        place, exported = small_world, noise.model_copy(update={"path": folder})
    else:
        place, exported = replace(small_world, model=locate(ModelConfig(name=str(folder)))), noise
    ticks: list[Tick] = []
    config, inputs = GenerationConfig(**SETTINGS), place.inputs(exported, place.ask(tmp_path / "asked"))
    with pytest.raises(InputError) as refused:
        run_generation(config, **inputs, workdir=tmp_path, progress=Progress(ticks.append))
    assert refused.value.field == "MODEL" and str(folder) in refused.value.problem and refused.value.remedy
    assert {tick.title for tick in ticks} == {"loading the model"}


def test_every_part_tells_its_progress(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    asked = small_world.ask(tmp_path / "asked", line_prompts=4, fim_prompts=4, block_prompts=2)
    inputs = small_world.inputs(noise, asked)
    run_generation(GenerationConfig(**SETTINGS), **inputs, workdir=tmp_path, progress=Progress(ticks.append))
    finished = {tick.title for tick in ticks if tick.total and tick.completed == tick.total}
    parts = ("loss", "completing lines", "filling in lines", "filling in blocks")
    assert finished == {f"{part}, {side}" for part in parts for side in ("base", "again", "tuned")}


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_engine_finds_what_the_libraries_modules_find(
    small_world: world.World, memorised: ExportedModel, tmp_path: Path, quantization: str
) -> None:
    made = {}
    alone = replace(small_world, retention=None)
    asked = alone.ask(tmp_path / "asked", line_prompts=8, fim_prompts=4, block_prompts=2)
    for backend in ("transformers", "fused"):
        plan = world.PLAN.model_copy(update={"backend": backend})
        (tmp_path / backend).mkdir()
        config = GenerationConfig(**{**SETTINGS, "repeated": 0.2, "quantization": quantization})
        inputs = alone.inputs(memorised, asked) | {"plan": plan}
        made[backend] = run_generation(config, **inputs, workdir=tmp_path / backend)
        speed = made[backend].speed
        assert speed is not None and speed.backend == backend and speed.tokens_per_second > 0
    answers = [pq.read_table(one.path / "completions.parquet").to_pylist() for one in made.values()]
    assert answers[0] == answers[1]
    stock, fused = (pq.read_table(one.path / "losses.parquet").to_pylist() for one in made.values())
    for side in ("base", "tuned"):
        assert [row[side] for row in stock] == pytest.approx([row[side] for row in fused], rel=1e-4)


def test_what_the_engine_cannot_run_is_computed_without_it(
    small_world: world.World,
    noise: ExportedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tasks.backends.fused.decoding.unsupported", lambda model, length: "it is too new")
    fused = world.PLAN.model_copy(update={"backend": "fused"})
    asked = small_world.ask(tmp_path / "asked", line_prompts=2, fim_prompts=0, block_prompts=0)
    inputs = small_world.inputs(noise, asked) | {"plan": fused}
    with caplog.at_level("INFO"):
        made = run_generation(GenerationConfig(**SETTINGS), **inputs, workdir=tmp_path)
    assert made.speed is not None and made.speed.backend == "transformers"
    assert "fused: it is too new" in caplog.text


def test_a_single_repository_has_no_interval(noise: ExportedModel, tmp_path: Path) -> None:
    lonely = world.build(tmp_path, {"alpha": world.source("alpha")})
    made = generate(lonely, noise, tmp_path / "made", line_prompts=4, fim_prompts=0, block_prompts=0)
    report = run_evaluation(EvaluationConfig(resamples=2000), generations=made, workdir=tmp_path)
    assert report.metric("loss").low is None and report.metric("loss").verdict == "inconclusive"
