"""Which backend, how much checkpointed, how much resident: the plan where memory is plenty, tight and too little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from artifacts.schema import Plan
from tasks.backends.contract import JobShape
from tasks.backends.fused.support import unsupported_config
from tasks.models.shape import ModelShape
from tasks.preflight.view import plan_rows
from tasks.training.fallback import in_words, next_plan
from tests.tasks.preflight.machines import H200, T4, TINY, V100, judged, machine, refusal, shape_of


def _plan(shape: ModelShape, cap: float | None = None, gpu: Any = T4, **job: Any) -> Plan:
    return judged(shape, machine(gpu), JobShape.model_validate(job), gpu_memory_gib=cap).plan


def test_auto_is_fused_on_a_gpu_and_on_a_cpu(seven: ModelShape, tiny: ModelShape) -> None:
    assert _plan(seven).backend == "fused"
    assert judged(tiny, machine()).plan.backend == "fused"
    assert judged(tiny, machine(), JobShape(backend="transformers")).plan.backend == "transformers"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"hidden_act": "gelu"}, "gelu"),
        ({"attention_bias": True}, "biases"),
        ({"model_type": "mistral", "sliding_window": 128}, "sliding window"),
        ({"head_dim": 96}, "96 wide"),
    ],
)
def test_models_that_the_engine_does_not_know(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    shape = shape_of(tmp_path / "model", TINY | change)
    assert reason in str(unsupported_config(shape.config)) and _plan(shape).backend == "transformers"
    with pytest.raises(InputError, match=reason) as refused:
        _plan(shape, backend="fused")
    assert refused.value.field == "training.backend" and "training.backend=auto" in str(refused.value.remedy)


@pytest.mark.parametrize("change", [{"model_type": "qwen2"}, {"model_type": "mistral", "sliding_window": None}])
def test_other_members_of_the_family(tmp_path: Path, change: dict[str, Any]) -> None:
    assert _plan(shape_of(tmp_path / "model", TINY | change)).backend == "fused"


def test_adapters_elsewhere_and_old_cards_go_to_the_libraries(seven: ModelShape) -> None:
    assert _plan(seven, gpu=H200, lora_target_modules=("q_proj", "embed_tokens")).backend == "transformers"
    assert _plan(seven, lora_target_modules=("all-linear",)).backend == "fused"
    assert _plan(seven, gpu=V100, quantization="nf4").backend == "transformers"


def test_tight_memory_recomputes_some_layers_then_takes_smaller_micro_batches(seven: ModelShape) -> None:
    tight = _plan(seven, 11.0)
    assert (tight.micro_batch, tight.gradient_checkpointing, tight.resident_layers) == (4, True, 0)
    assert tight.checkpointed_layers is not None and 1 <= tight.checkpointed_layers <= 10
    tighter = _plan(seven, 9.0)
    assert tighter.micro_batch < 4 and tighter.gradient_checkpointing
    assert "7.0 GiB" in refusal(seven, machine(T4), gpu_memory_gib=7.3).problem


def test_less_memory_is_never_faster(seven: ModelShape) -> None:
    for gpu in (T4, H200):
        caps = (14.5, 12.0, 11.0, 10.0, 9.5, 9.0, 8.5)
        seconds = [judged(seven, machine(gpu), gpu_memory_gib=cap).prediction.seconds or 0 for cap in caps]
        assert seconds == sorted(seconds)


def test_explicit_checkpointing_is_for_all_layers_or_none(seven: ModelShape) -> None:
    on = _plan(seven, gradient_checkpointing=True, backend="transformers")
    assert on.gradient_checkpointing and on.checkpointed_layers is None
    off = _plan(seven, 11.0, gradient_checkpointing=False, backend="transformers")
    assert not off.gradient_checkpointing and off.micro_batch < 4


def test_what_fits_is_within_the_card_with_room_to_spare(seven: ModelShape) -> None:
    for length in (256, 512, 1024, 2048):
        for cap in (14.56, 11.0, 9.0):
            judgement = judged(seven, machine(H200), JobShape(max_length=length), gpu_memory_gib=cap)
            assert judgement.prediction.peak_gib < judgement.prediction.needed_gib <= cap * 0.96


def test_layers_are_unpacked_with_what_is_left_and_make_no_other_bits(seven: ModelShape) -> None:
    small, large = _plan(seven, 14.56, H200), _plan(seven, None, H200)
    assert 0 < small.resident_layers < large.resident_layers == 32
    assert small.fingerprint == large.fingerprint
    assert small.fingerprint != _plan(seven, 11.0, H200).fingerprint
    assert _plan(seven, None, H200, quantization="none").resident_layers == 0


def test_unpacked_layers_may_be_given_up_for_other_programs(seven: ModelShape) -> None:
    busy = T4.model_copy(update={"free_gib": 12.0})
    judgement = judged(seven, machine(busy))
    (check,) = [check for check in judgement.checks if check.name == "free GPU memory"]
    assert check.verdict == "warning" and judgement.prediction.optional_gib > 1


def test_the_plan_in_words(seven: ModelShape) -> None:
    rows = dict(plan_rows(_plan(seven)))
    assert rows["backend"] == "fused" and "layers" in rows["weights kept in 16 bits"]
    assert dict(plan_rows(_plan(seven, 11.0)))["gradient checkpointing"].startswith("on for ")


def test_several_gpus_share_the_batch(seven: ModelShape) -> None:
    job = JobShape(processes=2)
    plan = judged(seven, machine(T4, T4), job).plan
    assert (plan.processes, plan.micro_batch * plan.accumulation, plan.effective_batch) == (2, 2, 4)
    one = judged(seven, machine(T4, T4)).prediction
    two = judged(seven, machine(T4, T4), job).prediction
    assert two.seconds and one.seconds and two.seconds < 0.7 * one.seconds


@pytest.mark.parametrize(("gpus", "processes"), [(1, 1), (2, 2), (3, 2), (5, 4)])
def test_auto_takes_as_many_gpus_as_divide_the_batch(gpus: int, processes: int, seven: ModelShape) -> None:
    assert judged(seven, machine(*[T4] * gpus), JobShape(processes="auto")).plan.processes == processes


def test_processes_without_a_gpu_each_or_a_share_each_are_refused(seven: ModelShape) -> None:
    refused = refusal(seven, machine(T4), JobShape(processes=2))
    assert machine(T4).in_words in refused.problem and "training.processes=1" in str(refused.remedy)
    with pytest.raises(InputError) as undivided:
        judged(seven, machine(T4, T4, T4), JobShape(processes=3))
    assert undivided.value.field == "training.processes" and "1, 2, 4" in str(undivided.value.remedy)


def test_the_fullest_of_several_gpus_decides(seven: ModelShape) -> None:
    full = T4.model_copy(update={"free_gib": 1.0})
    judged(seven, machine(T4, full))  # one process uses the first
    assert "1.0 GiB are free" in str(refusal(seven, machine(T4, full), JobShape(processes=2)))


def test_out_of_memory_in_several_processes_keeps_them() -> None:
    plan = Plan(
        device="cuda",
        precision="fp16",
        micro_batch=2,
        accumulation=1,
        gradient_checkpointing=False,
        processes=2,
        backend="transformers",
    )
    smaller = next_plan(plan)
    assert smaller and (smaller.micro_batch, smaller.accumulation, smaller.effective_batch) == (1, 2, 4)
    assert in_words(smaller) == "1 × 2 in 2 processes"


def test_what_products_run_on_is_planned(seven: ModelShape, tiny: ModelShape) -> None:
    plain, fast = _plan(seven), _plan(seven, products="int8")
    assert (plain.products, fast.products) == ("fp16", "int8") and plain.fingerprint != fast.fingerprint
    rows = dict(plan_rows(fast))
    assert rows["products of frozen layers"] == "int8 tensor cores" and "weights kept transposed too" in rows
    assert next_plan(fast).products == "int8"  # type: ignore[union-attr]
    assert _plan(seven, products="auto").products == "int8"
    assert judged(tiny, machine(), JobShape(products="auto")).plan.products == "fp16"


@pytest.mark.parametrize(
    ("length", "gib", "layout"),
    [
        (256, 14.56, (8, 1, 0)),  # measured to fit
        (2048, 20.0, (1, 8, 17)),
        (2048, 24.0, (2, 4, 3)),
    ],
)
def test_memory_goes_to_tokens_first_then_to_codes_kept_transposed(
    seven: ModelShape, length: int, gib: float, layout: tuple[int, int, int]
) -> None:
    card = T4.model_copy(update={"total_gib": gib, "free_gib": gib})
    plan = _plan(seven, gpu=card, products="int8", effective_batch=8, max_length=length)
    assert (plan.micro_batch, plan.accumulation, plan.resident_layers) == layout
    assert plan.products == "int8" and not plan.gradient_checkpointing


@pytest.mark.parametrize(
    ("job", "reason"),
    [
        ({"backend": "transformers"}, "transformers has no products in int8"),
        ({"quantization": "nf4"}, "need weights in int8, not nf4"),
        ({"max_length": 16}, "sequences of 17 tokens"),
    ],
)
def test_products_in_int8_that_cannot_be_had(seven: ModelShape, job: dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=reason) as refused:
        _plan(seven, products="int8", **job)
    assert refused.value.field == "training.products" and "training.products=auto" in str(refused.value.remedy)
    assert _plan(seven, products="auto", **job).products == "fp16"


def test_odd_widths_have_no_products_in_int8(tmp_path: Path) -> None:
    shape = shape_of(tmp_path / "model", TINY | {"intermediate_size": 684})
    with pytest.raises(InputError, match="multiples of 8"):
        _plan(shape, products="int8")
