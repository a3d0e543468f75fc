"""What the training process computes, run inside the test's own process."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from safetensors.torch import load_file, save_file

from artifacts.errors import InputError, StageError
from artifacts.schema import Quantization, TokenizedDataset
from tasks.training import LoraSettings
from tasks.training.trainer import AdapterTrainer
from tests.tasks.training import jobs

SHORT = jobs.CONFIG.model_copy(update={"quantization": "none", "max_steps": 2, "lora": LoraSettings(dropout=0.0)})


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_trains_on_every_quantization(quantization: Quantization, workdir: Path, tokens: TokenizedDataset) -> None:
    config = jobs.CONFIG.model_copy(update={"quantization": quantization, "max_steps": 4})
    losses = jobs.train_here(workdir, tokens, config).metrics["loss"]
    assert losses[-1] < losses[0] - 0.3


def test_the_seed_alone_decides_what_the_adapter_begins_with(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """Whatever drew random numbers before."""
    found = []
    for number in (1, 2):
        torch.manual_seed(number)
        found.append(jobs.train_here(tmp_path / str(number), tokens, SHORT).adapter)
    other = SHORT.model_copy(update={"seed": 7})
    found.append(jobs.train_here(tmp_path / "other", tokens, other).adapter)
    first, second, third = (
        adapter["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] for adapter in found
    )
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_padding_and_micro_batches_do_not_matter(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """Four sequences one by one, or all at once, each padded to the same length: the same update."""
    at_once = jobs.PLAN.model_copy(update={"micro_batch": 4, "accumulation": 1})
    one_by_one = jobs.train_here(tmp_path / "a", tokens, SHORT)
    together = jobs.train_here(tmp_path / "b", tokens, SHORT, at_once)
    assert together.metrics["loss"] == pytest.approx(one_by_one.metrics["loss"], rel=1e-5)
    assert together.metrics["tokens"] == one_by_one.metrics["tokens"]
    for name, weight in one_by_one.adapter.items():
        torch.testing.assert_close(together.adapter[name], weight, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("mark", [None, 0, 2], ids=["none", "the filler", "EOS"])
def test_loss_is_the_mean_over_real_tokens(mark: int | None, workdir: Path, tmp_path: Path) -> None:
    """Against the model's own loss of each sequence without any padding. Whatever a text begins and ends with counts:
    where BOS is EOS, and where it is what the batches are filled with."""
    from tasks.models.loading import load_base
    from tasks.training.batches import Batches

    rows = jobs.rows()
    if mark is not None:
        rows = [{**row, "input_ids": [mark, *row["input_ids"][1:-1], mark]} for row in rows]
    tokens = jobs.dataset(tmp_path / "marked", rows)
    measured = jobs.train_here(workdir, tokens, SHORT).metrics["loss"][0]
    model = load_base(jobs.SMALL_MODEL, "none", jobs.PLAN)
    batches = Batches(tokens.path / "train.parquet", size=4, steps=2, seed=SHORT.seed)
    sequences = [torch.tensor([row["input_ids"]]) for row in batches.dataset().select(range(4))]
    assert len({sequence.shape for sequence in sequences}) > 1
    losses = [model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1) for ids in sequences]
    assert measured == pytest.approx(sum(losses) / sum(ids.shape[1] - 1 for ids in sequences), rel=1e-4)


def test_gradient_checkpointing_gives_the_same_update(tmp_path: Path, tokens: TokenizedDataset) -> None:
    saving = jobs.PLAN.model_copy(update={"gradient_checkpointing": True})
    plain, saved = (
        jobs.train_here(tmp_path / name, tokens, SHORT, plan) for name, plan in (("a", jobs.PLAN), ("b", saving))
    )
    for name, weight in plain.adapter.items():
        torch.testing.assert_close(saved.adapter[name], weight, rtol=1e-4, atol=1e-6)


def test_only_completions_are_learned(tmp_path: Path) -> None:
    """Prompts may say anything: only the tokens under the mask decide the loss at the first step."""
    masked = jobs.rows(8, completion_mask=lambda length: [0] * (length - 5) + [1] * 5)
    whole = jobs.rows(8)
    last = [{**row, "completion_mask": [1] * len(row["input_ids"])} for row in whole]
    losses = [
        jobs.train_here(tmp_path / f"work-{name}", jobs.dataset(tmp_path / name, chunks), SHORT).metrics["loss"][0]
        for name, chunks in (("masked", masked), ("whole", whole), ("all-ones", last))
    ]
    assert losses[1] == losses[2]
    assert abs(losses[0] - losses[1]) > 0.01


def test_loss_that_is_not_finite_names_step_and_batch(workdir: Path, tmp_path: Path, tokens: TokenizedDataset) -> None:
    poisoned = tmp_path / "poisoned"
    shutil.copytree(jobs.SMALL_MODEL, poisoned)
    weights = load_file(poisoned / "model.safetensors")
    weights["model.embed_tokens.weight"][320] = float("inf")  # one token of the vocabulary
    save_file(weights, poisoned / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(StageError, match=r"step 1: .* nan") as caught:
        jobs.train_here(workdir, tokens, SHORT, model=poisoned)
    assert "file_" in str(caught.value) and "repo-" in str(caught.value)
    assert not list((workdir / "checkpoints").glob("step-*")) and not (workdir / "result" / "adapter").exists()


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("fp16", [True, False])
def test_fp16_is_named_where_it_may_be_the_reason(fp16: bool, kept: bool) -> None:
    trainer = SimpleNamespace(
        model=SimpleNamespace(get_base_model=lambda: SimpleNamespace(fp32_residual=kept)),
        state=SimpleNamespace(global_step=1),
        args=SimpleNamespace(fp16=fp16),
        batches=SimpleNamespace(describe=lambda *_: "a, b.py, 0"),
    )
    error = AdapterTrainer._not_finite(cast(Any, trainer), "the loss is nan", 0, 1)
    assert ("preflight.precision=bf16" in str(error.remedy)) is fp16
    assert ("preflight.fp32_residual=true" in str(error.remedy)) is (fp16 and not kept)


def test_unknown_layers_are_named(workdir: Path, tokens: TokenizedDataset) -> None:
    config = SHORT.model_copy(update={"lora": LoraSettings(target_modules=("q_proj", "query"))})
    with pytest.raises(InputError, match="query") as caught:
        jobs.train_here(workdir, tokens, config)
    assert caught.value.field == "training.lora.target_modules"
    assert "v_proj" in str(caught.value.remedy)


@pytest.mark.parametrize(
    ("scheduler", "after_warmup"),
    [("linear", [1, 3 / 4, 2 / 4, 1 / 4]), ("cosine", [1, 0.853553, 0.5, 0.146447]), ("constant_with_warmup", [1] * 4)],
)
def test_the_learning_rate_rises_in_the_warmup_and_falls_by_the_scheduler(
    scheduler: str, after_warmup: list[float], workdir: Path, tokens: TokenizedDataset
) -> None:
    config = SHORT.model_copy(update={"max_steps": 6, "warmup_steps": 2, "scheduler": scheduler})
    rates = jobs.train_here(workdir, tokens, config).metrics["learning_rate"]
    assert rates == pytest.approx([SHORT.learning_rate * share for share in (0, 1 / 2, *after_warmup)], rel=1e-4)


def test_weights_decay_by_rate_and_weight_decay(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """In the first step B is zero, and with it the gradient of A, which decay alone then changes."""
    first = SHORT.model_copy(update={"max_steps": 1, "warmup_steps": 0})
    kept, decayed = (
        jobs.train_here(tmp_path / str(decay), tokens, first.model_copy(update={"weight_decay": decay})).adapter
        for decay in (0.0, 0.1)
    )
    for name in (name for name in kept if "lora_A" in name):
        torch.testing.assert_close(decayed[name], kept[name] * (1 - SHORT.learning_rate * 0.1))


def test_gradients_are_scaled_down_to_the_norm(tmp_path: Path, tokens: TokenizedDataset) -> None:
    """With Adam's first step every weight moves by rate · g / (|g| + 1e-8), whatever g's scale, if that is not tiny."""
    first = SHORT.model_copy(update={"max_steps": 1, "warmup_steps": 0})
    moved, barely = (
        jobs.train_here(tmp_path / str(norm), tokens, first.model_copy(update={"max_grad_norm": norm}))
        for norm in (1.0, 1e-9)
    )
    assert moved.metrics["grad_norm"] == barely.metrics["grad_norm"] and moved.metrics["grad_norm"][0] > 0.1
    for name in (name for name in moved.adapter if "lora_B" in name):
        assert moved.adapter[name].abs().max() == pytest.approx(SHORT.learning_rate, rel=1e-3)
        assert barely.adapter[name].abs().max() < SHORT.learning_rate / 10
