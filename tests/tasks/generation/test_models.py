"""Base and tuned are one model whose adapter is switched."""

from __future__ import annotations

import weakref

import pytest
import torch

from artifacts.schema import ExportedModel, Plan, Quantization
from tasks.backends.fused.sides import FusedSide
from tasks.backends.transformers.inference import Modules
from tasks.generation.models import Pair, Side, threads
from tasks.models.loading import load_base
from tests.conftest import SMALL_MODEL
from tests.tasks.generation.world import PLAN

FUSED = PLAN.model_copy(update={"backend": "fused"})
IDS = torch.arange(300, 340).reshape(2, 20)


def logits(pair: Pair, name: Side) -> torch.Tensor:
    with pair.side(name) as side:
        assert isinstance(side, Modules)
        found: torch.Tensor = side.model(input_ids=IDS).logits
        return found


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_switched_off_it_is_the_base_to_the_bit(noise: ExportedModel, quantization: Quantization) -> None:
    pair = Pair(SMALL_MODEL, noise.path / "adapter", quantization, PLAN)
    pair.prepare(20)
    with torch.inference_mode():
        alone = load_base(SMALL_MODEL, quantization, PLAN)(input_ids=IDS).logits
        tuned, base, again = (logits(pair, side) for side in ("tuned", "base", "tuned"))
    assert torch.equal(base, alone)
    assert torch.equal(tuned, again) and not torch.allclose(tuned, base, atol=1e-2)


@pytest.mark.parametrize("plan", [PLAN, FUSED])
def test_nothing_is_left_of_released_models(noise: ExportedModel, plan: Plan) -> None:
    pair = Pair(SMALL_MODEL, noise.path / "adapter", "none", plan)
    pair.prepare(20)
    with pair.side("tuned") as computing:
        assert isinstance(computing, Modules if plan == PLAN else FusedSide)
        reference = weakref.ref(computing.model if isinstance(computing, Modules) else computing._decoder.model)
    del computing
    pair.release()
    assert reference() is None


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
