"""The whole evaluation on the built-in base."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from artifacts.errors import InputError
from artifacts.presentation import Figure, Table, Text, to_markdown
from artifacts.progress import Progress, Tick
from artifacts.schema import EvaluationReport, ExportedModel
from artifacts.store import Store
from tasks.evaluation import STAGE, EvaluationConfig, run_evaluation
from tests.tasks.evaluation import world

SETTINGS: dict[str, Any] = {
    "quantization": "none",
    "max_chunks": 12,
    "line_prompts": 16,
    "fim_prompts": 8,
    "prompt_tokens": 128,
    "max_new_tokens": 24,
    "batch_size": 8,
    "resamples": 2000,
    "samples": 4,
    "cpu_threads": 1,
}


def run(place: world.World, exported: ExportedModel, workdir: Path, **changes: Any) -> EvaluationReport:
    workdir.mkdir(exist_ok=True)
    config = EvaluationConfig(**{**SETTINGS, **changes})
    return run_evaluation(config, **place.inputs(exported), workdir=workdir)


@pytest.fixture(scope="module")
def good(
    small_world: world.World, memorised: ExportedModel, tmp_path_factory: pytest.TempPathFactory
) -> EvaluationReport:
    return run(small_world, memorised, tmp_path_factory.mktemp("good"))


def test_an_adapter_that_knows_the_text_is_better(good: EvaluationReport) -> None:
    assert {metric.name: metric.verdict for metric in good.metrics} | {"fim_exact_match": ""} == {
        "loss": "better",
        "perplexity": "better",
        "line_exact_match": "better",
        "line_edit_similarity": "better",
        "fim_exact_match": "",
    }
    assert good.metric("loss").difference < -0.5 and good.metric("line_exact_match").tuned > 0.3
    assert good.metric("line_exact_match").items == 16 and good.metric("loss").clusters == 8


def test_an_adapter_of_noise_is_worse(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    report = run(small_world, noise, tmp_path, line_prompts=0, fim_prompts=0)
    assert report.metric("loss").verdict == "worse"
    assert [metric.name for metric in report.metrics] == ["loss", "perplexity"]
    assert "evaluation.fim_prompts is 0" in " ".join(report.notes)


def test_what_was_computed_lies_in_files(good: EvaluationReport) -> None:
    losses, answers, scores = (
        pq.read_table(good.path / f"{name}.parquet").to_pylist() for name in ("losses", "completions", "scores")
    )
    assert len(losses) == 12 and len(answers) == 24 and len(scores) == 2 * 16 + 8
    total = sum(row["tuned_loss"] for row in losses) / sum(row["tokens"] for row in losses)
    assert good.metric("loss").tuned == pytest.approx(total)
    right = sum(row["tuned"].rstrip() == row["truth"] for row in answers if row["suite"] == "line")
    assert good.metric("line_exact_match").tuned == right / 16


def test_a_second_run_gives_the_same_bytes(
    small_world: world.World, memorised: ExportedModel, good: EvaluationReport, tmp_path: Path
) -> None:
    again = run(small_world, memorised, tmp_path)
    assert again == good.model_copy(update={"path": tmp_path, "generation": again.generation})
    for file in sorted(good.path.iterdir()):
        assert file.read_bytes() == (tmp_path / file.name).read_bytes(), file.name


def test_the_handle_survives_the_store(good: EvaluationReport, store: Store) -> None:
    workdir = store.workdir("evaluation", "k")
    for file in good.path.iterdir():
        (workdir / file.name).write_bytes(file.read_bytes())
    published = store.publish("evaluation", "k", good, workdir)
    assert store.find("evaluation", "k", EvaluationReport) == published


def test_samples_are_chosen_by_seed_and_hold_both_suites(good: EvaluationReport) -> None:
    assert [sample.kind for sample in good.samples].count("fim") == 2
    assert all(sample.suffix == "" for sample in good.samples if sample.kind == "line")


def test_what_there_is_to_see(good: EvaluationReport) -> None:
    comparison, completions = STAGE.show(good)
    table, forest = comparison.blocks
    assert isinstance(table, Table) and len(table.rows) == 5 and table.rows[0][-1] == "better"
    assert isinstance(forest, Figure) and b"<svg" in forest.image and "Held-out loss" in forest.alt
    text = completions.blocks[0]
    assert isinstance(text, Text) and "tuned │ " in to_markdown(text)


def test_a_single_repository_has_no_interval(noise: ExportedModel, tmp_path: Path) -> None:
    lonely = world.build(tmp_path, {"alpha": world.source("alpha")})
    report = run(lonely, noise, tmp_path / "out", line_prompts=4, fim_prompts=0)
    assert report.metric("loss").low is None and report.metric("loss").verdict == "no difference shown"
    table = STAGE.show(report)[0].blocks[0]
    assert isinstance(table, Table) and table.rows[0][4] == "too few repositories"


def test_nothing_held_out_is_said_before_loading(noise: ExportedModel, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    empty = world.build(tmp_path, {})
    with pytest.raises(InputError, match="held"):
        run_evaluation(
            EvaluationConfig(**SETTINGS),
            **empty.inputs(noise),
            workdir=tmp_path,
            progress=Progress(ticks.append),
        )
    assert not ticks


def test_prompts_beyond_the_context_are_refused(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="do not fit the context") as caught:
        run(small_world, noise, tmp_path, prompt_tokens=100_000)
    assert caught.value.field == "evaluation.prompt_tokens"


def test_every_part_tells_its_progress(small_world: world.World, noise: ExportedModel, tmp_path: Path) -> None:
    ticks: list[Tick] = []
    config = EvaluationConfig(**{**SETTINGS, "line_prompts": 4, "fim_prompts": 4})
    run_evaluation(config, **small_world.inputs(noise), workdir=tmp_path, progress=Progress(ticks.append))
    finished = {tick.title for tick in ticks if tick.total and tick.completed == tick.total}
    parts = ("held-out loss", "completing lines", "filling in lines")
    assert finished == {f"{part}, {side}" for part in parts for side in ("base", "tuned")}


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_the_engine_finds_what_the_libraries_modules_find(
    small_world: world.World, memorised: ExportedModel, tmp_path: Path, quantization: str
) -> None:
    fused = world.PLAN.model_copy(update={"engine": "fused"})
    reports = {}
    for plan in (world.PLAN, fused):
        workdir = tmp_path / plan.engine
        workdir.mkdir()
        config = EvaluationConfig(**{**SETTINGS, "quantization": quantization})
        inputs = small_world.inputs(memorised) | {"plan": plan}
        reports[plan.engine] = run_evaluation(config, **inputs, workdir=workdir)
        speed = reports[plan.engine].generation
        assert speed is not None and speed.engine == plan.engine and speed.tokens_per_second > 0
    answers = [pq.read_table(one.path / "completions.parquet").to_pylist() for one in reports.values()]
    assert answers[0] == answers[1]
    for metric in reports["stock"].metrics:
        other = reports["fused"].metric(metric.name)
        assert (other.base, other.tuned) == pytest.approx((metric.base, metric.tuned), rel=1e-4)
    table = STAGE.show(reports["fused"])[0].blocks[0]
    assert isinstance(table, Table) and "made by the engine at" in table.caption


def test_what_the_engine_cannot_run_is_evaluated_without_it(
    small_world: world.World,
    noise: ExportedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("tasks.engine.decoding.unsupported", lambda model: "it is too new")
    fused = world.PLAN.model_copy(update={"engine": "fused"})
    config = EvaluationConfig(**{**SETTINGS, "line_prompts": 2, "fim_prompts": 0})
    with caplog.at_level("INFO"):
        report = run_evaluation(config, **small_world.inputs(noise) | {"plan": fused}, workdir=tmp_path)
    assert report.generation is not None and report.generation.engine == "stock"
    assert "modules instead of the engine: it is too new" in caplog.text
