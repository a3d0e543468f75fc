"""Several chunks in one sequence, none of which sees another."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from artifacts.errors import StageError
from artifacts.schema import Plan, TokenizedDataset
from tasks.training import LoraSettings, ValidationSettings
from tasks.training.batches import IGNORED, Batches
from tasks.training.packing import packed
from tests.tasks.training import jobs
from tests.tasks.training.test_interruption import at_step, send

CONFIG = jobs.CONFIG.model_copy(
    update={"quantization": "none", "packing": True, "effective_batch": 2, "max_steps": 4, "save_steps": 3}
)
ONE = jobs.PLAN.model_copy(update={"micro_batch": 1, "accumulation": 2})


def short(count: int = 18) -> list[dict[str, Any]]:
    """Chunks of 8 to 41 tokens."""
    rows = jobs.rows(count, longest=64)
    return [{**row, "input_ids": (row["input_ids"] * 2)[: 8 + number * 33 // count]} for number, row in enumerate(rows)]


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> TokenizedDataset:
    return jobs.dataset(tmp_path_factory.mktemp("short"), short())


@pytest.fixture(scope="module", params=["transformers", "fused"])
def plan(request: pytest.FixtureRequest) -> Plan:
    return ONE.model_copy(update={"backend": request.param})


def test_every_row_is_in_one_sequence_and_fits() -> None:
    random = np.random.RandomState(1)
    rows, lengths = np.arange(100, 3100), random.randint(1, 257, 3000)
    found = packed(rows, lengths, 256)
    sums = np.add.reduceat(lengths[found.rows - 100], found.starts[:-1])
    assert sorted(found.rows) == list(rows) and max(sums) <= 256
    assert len(found) <= 1.02 * lengths.sum() / 256
    again = packed(rows, lengths, 256)
    assert np.array_equal(again.rows, found.rows) and np.array_equal(again.starts, found.starts)


def test_full_rows_stay_alone() -> None:
    assert list(packed(np.arange(5), np.full(5, 64), 64).starts) == [0, 1, 2, 3, 4, 5]


def test_sequences_say_where_texts_begin(tokens: TokenizedDataset) -> None:
    batches = Batches(tokens.path / "train.parquet", size=2, steps=6, seed=1, room=64)
    seen = set()
    for row in batches.dataset():
        starts = [place for place, position in enumerate(row["position_ids"]) if position == 0]
        assert len(row["input_ids"]) <= 64
        for start, end in zip(starts, [*starts[1:], len(row["input_ids"])], strict=True):
            assert row["position_ids"][start:end] == list(range(end - start))
            assert row["labels"][start:end] == [IGNORED, *row["input_ids"][start + 1 : end]]
            seen.add(tuple(row["input_ids"][start:end]))
    assert seen == {tuple(row["input_ids"]) for row in short()}
    assert len(batches.describe(1, 0, 2).splitlines()) > 2


def test_masks_are_kept(tmp_path: Path) -> None:
    rows = [{**row, "completion_mask": [0] * 5 + [1] * (len(row["input_ids"]) - 5)} for row in short()]
    file = jobs.dataset(tmp_path / "masked", rows).path / "train.parquet"
    for row in Batches(file, size=2, steps=3, seed=1, room=64).dataset():
        pairs = zip(row["input_ids"], row["position_ids"], strict=True)
        assert row["labels"] == [one if place >= 5 else IGNORED for one, place in pairs]


@pytest.mark.parametrize("change", [{}, {"micro_batch": 2, "accumulation": 1, "gradient_checkpointing": True}])
def test_packed_texts_are_learned_as_each_alone(
    change: dict[str, Any], plan: Plan, tmp_path: Path, tokens: TokenizedDataset
) -> None:
    """The first step, against one whose sequences are the same texts one by one."""
    first = CONFIG.model_copy(update={"max_steps": 1, "warmup_steps": 0})
    lines = Batches(tokens.path / "train.parquet", size=2, steps=1, seed=first.seed, room=64).describe(1, 0, 2)
    sources = {line.split()[1] for line in lines.splitlines()}
    alone = jobs.dataset(tmp_path / "alone", [row for row in short() if row["path"] in sources])
    count = alone.train.chunks
    assert count > 2
    together = jobs.train_here(tmp_path / "a", tokens, first, plan.model_copy(update=change))
    apart = first.model_copy(update={"packing": False, "effective_batch": count})
    one_by_one = jobs.train_here(tmp_path / "b", alone, apart, ONE.model_copy(update={"accumulation": count}))
    assert together.metrics["loss"] == pytest.approx(one_by_one.metrics["loss"], rel=1e-5)
    assert together.metrics["grad_norm"] == pytest.approx(one_by_one.metrics["grad_norm"], rel=1e-4)
    assert together.metrics["tokens"] == one_by_one.metrics["tokens"]


def test_stopped_and_resumed_gives_the_same_bits(plan: Plan, tmp_path: Path, tokens: TokenizedDataset) -> None:
    dropping = {"lora": LoraSettings(dropout=0.2), "validation": ValidationSettings(share=0.2, steps=2)}
    config = CONFIG.model_copy(update=dropping)
    whole = jobs.train_here(tmp_path / "whole", tokens, config, plan)
    (tmp_path / "whole" / "checkpoints" / "step-00000004").rename(tmp_path / "gone")
    resumed = jobs.train_here(tmp_path / "whole", tokens, config, plan)
    assert resumed.resumed_from == 3 and resumed.metrics["loss"] == whole.metrics["loss"]
    assert all((resumed.adapter[name] == weight).all() for name, weight in whole.adapter.items())


def test_killed_with_everything_at_once_and_resumed_gives_the_same_bits(
    plan: Plan, tmp_path: Path, tokens: TokenizedDataset
) -> None:
    """Packing, epochs, validation, patience and dropout; what is handed over is the best, to the bit."""
    everything = {
        "max_steps": None,
        "epochs": 3.0,
        "learning_rate": 0.1,  # which soon ruins the model
        "save_steps": 2,
        "lora": LoraSettings(dropout=0.2),
        "validation": ValidationSettings(share=0.2, steps=2, patience=1),
    }
    config = CONFIG.model_copy(update=everything)
    whole = jobs.train_here(tmp_path / "whole", tokens, config, plan)
    assert whole.stopped_early and whole.validation["kept_step"] == 2 and whole.metrics["step"] == [1, 2, 3, 4]
    weights = load_file(tmp_path / "whole" / "checkpoints" / "step-00000002" / "adapter_model.safetensors")
    assert weights.keys() == whole.adapter.keys()
    assert all((whole.adapter[name] == weight).all() for name, weight in weights.items())

    config = config.model_copy(update={"save_steps": 1})
    with pytest.raises(StageError, match="SIGKILL"):
        jobs.run(tmp_path / "killed", tokens, config, at_step(2, send(signal.SIGKILL)), plan)
    resumed = jobs.train_here(tmp_path / "killed", tokens, config, plan)
    assert resumed.resumed_from >= 1 and resumed.validation == whole.validation and resumed.stopped_early
    assert jobs.digest(tmp_path / "killed") == jobs.digest(tmp_path / "whole")
    for name in ("step", "loss", "validation_loss", "tokens"):
        assert resumed.metrics[name] == whole.metrics[name]


def test_epochs_count_packed_sequences(
    workdir: Path, tokens: TokenizedDataset, caplog: pytest.LogCaptureFixture
) -> None:
    config = CONFIG.model_copy(update={"max_steps": None, "epochs": 1.0})
    with caplog.at_level("INFO"):
        result = jobs.run(workdir, tokens, config, plan=ONE.model_copy(update={"backend": "fused"}))
    sequences = len(packed(np.arange(18), np.array([len(row["input_ids"]) for row in short()]), 64))
    assert result.steps == -(-sequences // 2) and sequences < 12
    assert f"18 chunks are packed into {sequences} sequences" in caplog.text
