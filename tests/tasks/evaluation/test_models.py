"""Base and tuned are one model whose adapter is switched."""

from __future__ import annotations

import weakref

import pytest
import torch

from artifacts.schema import ExportedModel, Quantization
from tasks.evaluation.models import Pair, threads
from tasks.loading import load_base
from tests.conftest import BASE_MODEL
from tests.tasks.evaluation.world import PLAN

IDS = torch.arange(300, 340).reshape(2, 20)


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_switched_off_it_is_the_base_to_the_bit(noise: ExportedModel, quantization: Quantization) -> None:
    pair = Pair(BASE_MODEL, noise.path / "adapter", quantization, PLAN)
    with torch.inference_mode():
        alone = load_base(BASE_MODEL, quantization, PLAN)(input_ids=IDS).logits
        with pair.side("tuned") as model:
            tuned = model(input_ids=IDS).logits
        with pair.side("base") as model:
            base = model(input_ids=IDS).logits
        with pair.side("tuned") as model:
            again = model(input_ids=IDS).logits
    assert torch.equal(base, alone)
    assert torch.equal(tuned, again) and not torch.allclose(tuned, base, atol=1e-2)


def test_nothing_is_left_of_released_models(noise: ExportedModel) -> None:
    pair = Pair(BASE_MODEL, noise.path / "adapter", "none", PLAN)
    with pair.side("tuned") as model:
        reference = weakref.ref(model)
    del model
    pair.release()
    assert reference() is None


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
