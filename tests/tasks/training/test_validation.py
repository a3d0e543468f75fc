"""Text that is set aside: what it is, what is measured on it, and what that decides."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from artifacts.errors import InputError
from artifacts.schema import Checkpoint, Plan, TokenizedDataset
from tasks.models.loading import load_base
from tasks.training import LoraSettings, ValidationSettings
from tasks.training.aside import TrainingRows, set_aside
from tasks.training.messages import RESULT
from tasks.training.validating import SCALES, best_of, out_of_patience
from tasks.training.view import sections
from tests.tasks.training import jobs

FUSED = jobs.PLAN.model_copy(update={"backend": "fused"})
VALIDATION = ValidationSettings(share=0.25, steps=2)
CONFIG = jobs.CONFIG.model_copy(update={"validation": VALIDATION, "quantization": "none"})


def changed(**settings: Any) -> Any:
    return CONFIG.model_copy(update={"validation": VALIDATION.model_copy(update=settings)})


def division(folder: Path, rows: list[dict[str, Any]], **settings: Any) -> TrainingRows:
    tokens = jobs.dataset(folder, rows)
    return set_aside(tokens.path / "train.parquet", ValidationSettings(**settings), seed=1)


def test_whole_files_are_set_aside(tmp_path: Path) -> None:
    rows = [{**row, "path": f"file_{number // 4}.py"} for number, row in enumerate(jobs.rows(40))]
    found = division(tmp_path / "a", [{**row, "repo": "one"} for row in rows], share=0.25)
    assert found.unit == "files" and found.units == 2 and len(found.aside) == 8
    files = {side: {rows[place]["path"] for place in getattr(found, side)} for side in ("learned", "aside")}
    assert not files["learned"] & files["aside"]
    assert sorted([*found.learned, *found.aside]) == list(range(40))


def test_whole_repositories_where_there_are_enough(tmp_path: Path) -> None:
    rows = [{**row, "repo": f"repo-{number % 20}"} for number, row in enumerate(jobs.rows(60))]
    found = division(tmp_path / "a", rows, share=0.2)
    assert found.unit == "repositories" and found.units == 4 and len(found.aside) == 12
    assert {rows[place]["repo"] for place in found.learned}.isdisjoint(rows[place]["repo"] for place in found.aside)


def test_no_more_than_is_measured_is_set_aside(tmp_path: Path) -> None:
    assert len(division(tmp_path / "a", jobs.rows(60), share=0.5, sequences=7).aside) == 7


def test_more_data_moves_little(tmp_path: Path) -> None:
    few, many = (division(tmp_path / str(count), jobs.rows(count), share=0.25, sequences=12) for count in (48, 60))
    assert len(set(few.aside) & set(many.aside)) >= 8


def test_the_smallest_is_taken_where_all_are_too_large(tmp_path: Path) -> None:
    rows = [
        {**row, "repo": "one", "path": "large" if number > 5 else "small"} for number, row in enumerate(jobs.rows())
    ]
    assert list(division(tmp_path / "a", rows, share=0.01).aside) == list(range(6))


def test_general_code_is_not_set_aside_and_keeps_its_share(tmp_path: Path) -> None:
    own = [{**row, "repo": f"repo-{number % 20}"} for number, row in enumerate(jobs.rows(60))]
    general = [{**row, "repo": f"replay:general-{number}"} for number, row in enumerate(jobs.rows(15))]
    without, found = division(tmp_path / "a", own, share=0.2), division(tmp_path / "b", own + general, share=0.2)
    assert list(found.aside) == list(without.aside) and len(found.aside) == 12
    assert list(found.learned) == [*without.learned, *range(60, 60 + 12)]  # 12 to 48, as 15 to 60


def test_one_file_is_refused(workdir: Path, tmp_path: Path) -> None:
    one = jobs.dataset(tmp_path / "one", [{**row, "repo": "a", "path": "b"} for row in jobs.rows()])
    with pytest.raises(InputError, match="one file") as caught:
        jobs.run(workdir, one, CONFIG)
    assert caught.value.field == "training.validation"


def test_nothing_aside_is_learned_from(tokens: TokenizedDataset) -> None:
    from tasks.training.batches import Batches

    file = tokens.path / "train.parquet"
    batches = Batches(file, size=4, steps=30, seed=1, rows=set_aside(file, VALIDATION, 1))
    aside = {tuple(row["input_ids"]) for row in batches.aside()}
    assert len(aside) == 6 and aside.isdisjoint(tuple(row["input_ids"]) for row in batches.dataset())


@pytest.fixture(scope="module", params=["transformers", "fused"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return jobs.PLAN.model_copy(update={"backend": request.param})


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_what_is_measured_is_the_loss_of_the_weights_at_that_step(
    quantization: Any, plan: Plan, workdir: Path, tokens: TokenizedDataset
) -> None:
    """Against the modules of a model that is loaded anew with what was handed over; dropout has no part in it."""
    from peft import PeftModel

    config = changed(keep="last").model_copy(
        update={"quantization": quantization, "lora": LoraSettings(dropout=0.3), "max_steps": 4}
    )
    found = jobs.train_here(workdir, tokens, config, plan)
    losses = found.metrics["validation_loss"]
    assert [loss is None for loss in losses] == [True, False, True, False]
    base = load_base(jobs.SMALL_MODEL, quantization, jobs.PLAN)
    before = aside_loss(base, tokens, config)
    after = aside_loss(PeftModel.from_pretrained(base, workdir / RESULT / "adapter"), tokens, config)
    assert found.validation["loss_before"] == pytest.approx(before, rel=1e-5)
    assert losses[-1] == pytest.approx(after, rel=1e-5) and after < before
    assert found.validation["kept_step"] == 4 and found.validation["kept_loss"] == losses[-1]


def aside_loss(model: Any, tokens: TokenizedDataset, config: Any) -> float:
    file = tokens.path / "train.parquet"
    rows = pq.read_table(file).take(set_aside(file, config.validation, config.seed).aside).to_pylist()
    texts = [torch.tensor([row["input_ids"]], device=model.device) for row in rows]
    with torch.no_grad():
        sums = [model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1) for ids in texts]
    return sum(sums) / sum(ids.shape[1] - 1 for ids in texts)


def test_measuring_changes_nothing(plan: Plan, tmp_path: Path, tokens: TokenizedDataset) -> None:
    """Neither the weights nor the random numbers that dropout draws."""
    dropping = {"lora": LoraSettings(dropout=0.3), "max_steps": 6}
    once, often = (
        jobs.train_here(
            tmp_path / str(steps), tokens, changed(steps=steps, keep="last").model_copy(update=dropping), plan
        )
        for steps in (6, 1)
    )
    assert once.metrics["loss"] == often.metrics["loss"]
    assert jobs.digest(tmp_path / "6") == jobs.digest(tmp_path / "1")


def test_the_best_weights_are_handed_over(plan: Plan, tmp_path: Path, tokens: TokenizedDataset) -> None:
    """With a rate that ruins the model the first measurement is the best."""
    ruin = {"learning_rate": 1.0, "warmup_steps": 2, "max_steps": 6}
    best = jobs.train_here(tmp_path / "best", tokens, CONFIG.model_copy(update=ruin), plan)
    losses = best.metrics["validation_loss"]
    assert losses[1] < losses[3] and losses[1] < losses[5]
    assert (best.validation["kept_step"], best.validation["kept_loss"]) == (2, losses[1])
    last = jobs.train_here(tmp_path / "last", tokens, changed(keep="last").model_copy(update=ruin), plan)
    assert last.validation["kept_step"] == 6 and last.metrics["loss"] == best.metrics["loss"]
    assert jobs.digest(tmp_path / "best") != jobs.digest(tmp_path / "last")
    from peft import PeftModel

    tuned = PeftModel.from_pretrained(
        load_base(jobs.SMALL_MODEL, "none", jobs.PLAN), tmp_path / "best" / RESULT / "adapter"
    )
    assert aside_loss(tuned, tokens, CONFIG) == pytest.approx(losses[1], rel=1e-5)


RUIN = {"learning_rate": 1.0, "warmup_steps": 2, "max_steps": 8, "save_steps": 3}


def test_training_ends_when_it_no_longer_helps(plan: Plan, workdir: Path, tokens: TokenizedDataset) -> None:
    impatient = changed(patience=2, steps=1).model_copy(update=RUIN)
    found = jobs.train_here(workdir, tokens, impatient, plan)
    best = found.validation["kept_step"]
    assert found.metrics["step"][-1] == best + 2 < 8 and found.stopped_early
    again = jobs.train_here(workdir, tokens, impatient, plan)  # killed before the result was published
    assert again.resumed_from == best + 2 and again.metrics == found.metrics
    assert again.validation == found.validation


@pytest.mark.parametrize("step", range(1, 8))
def test_stopped_anywhere_and_resumed_gives_the_same_bits(
    step: int, plan: Plan, tmp_path_factory: pytest.TempPathFactory, workdir: Path, tokens: TokenizedDataset
) -> None:
    config = changed(steps=2, patience=2).model_copy(update=RUIN | {"lora": LoraSettings(dropout=0.2)})
    whole = WHOLE.setdefault(plan.backend, [])
    if not whole:
        folder = tmp_path_factory.mktemp("whole") / "work"
        whole += [folder, jobs.train_here(folder, tokens, config, plan)]
    jobs.stopped_and_resumed(workdir, tokens, config, plan, after=step)
    assert jobs.digest(workdir) == jobs.digest(whole[0])
    for name in ("step", "loss", "validation_loss"):
        assert jobs.metrics(workdir)[name] == whole[1].metrics[name]


WHOLE: dict[str, list[Any]] = {}


def test_killed_after_the_best_step_hands_over_the_same(
    workdir: Path, tmp_path: Path, tokens: TokenizedDataset
) -> None:
    """The checkpoint that it goes on from is later than the best weights, which are in it."""
    config = CONFIG.model_copy(update=RUIN | {"save_steps": 5})
    whole = jobs.train_here(tmp_path / "whole", tokens, config, FUSED)
    assert whole.validation["kept_step"] == 2
    shutil.copytree(tmp_path / "whole", workdir)
    shutil.rmtree(workdir / "checkpoints" / "step-00000008")
    shutil.rmtree(workdir / RESULT)
    again = jobs.train_here(workdir, tokens, config, FUSED)
    assert again.resumed_from == 5 and again.validation == whole.validation
    assert jobs.digest(workdir) == jobs.digest(tmp_path / "whole")


@pytest.mark.parametrize("name", ["best", "patience"])
def test_what_is_decided_by(name: str) -> None:
    history = [{"step": step, "validation_loss": loss} for step, loss in enumerate([1.0, 3.0, 2.0, 2.0, math.nan, 2.5])]
    best = best_of(history)
    assert best is not None and best["step"] == 2  # not the base, before the first step; of equals the first
    spent = [out_of_patience(history[:end], ValidationSettings(patience=2)) for end in range(1, 7)]
    assert spent == [False, False, False, False, True, True]
    assert best_of(history[:1]) is None and not out_of_patience(history, ValidationSettings())


def test_the_stage_tells_it_all(workdir: Path, tokens: TokenizedDataset) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    shown: list[dict[str, Any]] = []
    result: Checkpoint = jobs.run(workdir, tokens, CONFIG, lambda tick: shown.append(dict(tick.details)), FUSED)
    found = result.validation
    assert found is not None and found.loss_before is not None and found.kept_loss < found.loss_before
    assert [one.scale for one in found.scaled] == [*SCALES, 1.0] and found.scaled[-1].loss == found.kept_loss
    losses = [one.loss for one in found.scaled]
    assert len(set(losses)) == len(losses)
    assert any("best" in str(details.get("validation")) for details in shown)
    events = EventAccumulator(str(result.path / "tensorboard")).Reload().Scalars("validation/loss")
    assert [event.step for event in events] == [0, 2, 4, 6, 8]
    (section,) = sections(result)
    words = section.blocks[0].markdown  # type: ignore[union-attr]
    assert f"{found.kept_loss:.3f}" in words and "6 files" in words
