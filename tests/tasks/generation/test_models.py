"""Base and tuned are one model whose adapter is switched."""

from __future__ import annotations

import weakref

import pytest
import torch

from artifacts.errors import InputError
from artifacts.schema import ExportedModel, Plan, Quantization
from tasks.backends.contract import Decoding
from tasks.backends.fused.sides import FusedSide
from tasks.backends.transformers.inference import Modules
from tasks.generation.models import Pair, Side, threads
from tasks.models.loading import load_base
from tests.conftest import SMALL_MODEL
from tests.tasks.generation.world import PLAN
from tests.tasks.models.large import computing_in, large_model

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


@pytest.mark.parametrize("plan", [PLAN, FUSED])
@pytest.mark.parametrize("side", ["base", "tuned"])
def test_both_hold_in_fp16_with_a_residual_stream_in_fp32(noise: ExportedModel, plan: Plan, side: Side) -> None:
    counts = torch.ones_like(IDS, dtype=torch.bool)
    found = []
    for dtype, kept in ((torch.float32, False), (torch.float16, True), (torch.float16, False)):
        changes = {"fp32_residual": kept, "precision": "fp16"}
        with computing_in(dtype):
            pair = Pair(large_model(), noise.path / "adapter", "int8", plan.model_copy(update=changes))
        pair.prepare(30)
        with pair.side(side) as computing:
            found.append(computing.losses(IDS, counts))
            assert computing.generate([[*range(300, 320)]], Decoding(1, 4, frozenset({2})), lambda _: None)
    torch.testing.assert_close(found[1], found[0], rtol=5e-3, atol=0)
    with pytest.raises(InputError, match="loss of the") as told:
        pair.check(side, [*range(300, 320)])
    assert "preflight.fp32_residual=true" in str(told.value.remedy)


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
