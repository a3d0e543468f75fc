"""Many machines, judged: which plan each gets, or why it is refused."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from artifacts.errors import InputError, PreflightRefused
from artifacts.schema import Check
from tasks.backends.contract import JobShape
from tasks.machines.records import Disk, GpuProcess
from tasks.models.shape import ModelShape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.judgement import recheck
from tasks.training import TrainingConfig
from tests.tasks.preflight.machines import H200, K80, T4, V100, judged, machine, refusal


def _warnings(checks: tuple[Check, ...]) -> str:
    return "; ".join(check.finding for check in checks if check.verdict == "warning")


def test_reference_job_on_a_t4(seven: ModelShape) -> None:
    plan = judged(seven, machine(T4)).plan
    assert (plan.device, plan.precision, plan.backend) == ("cuda", "fp16", "fused")
    assert (plan.micro_batch, plan.accumulation, plan.gradient_checkpointing) == (4, 1, False)
    assert 4 <= plan.resident_layers <= 10 and judged(seven, machine(T4)).prediction.peak_gib <= 12


def test_transformers_on_a_t4_needs_checkpointing(seven: ModelShape) -> None:
    plan = judged(seven, machine(T4), JobShape(backend="transformers")).plan
    assert (plan.backend, plan.micro_batch, plan.gradient_checkpointing) == ("transformers", 4, True)
    assert plan.checkpointed_layers is None and plan.resident_layers == 0


def test_plan_does_not_depend_on_what_is_free(seven: ModelShape) -> None:
    some = T4.model_copy(update={"free_gib": 12.0})
    assert judged(seven, machine(some)).plan == judged(seven, machine(T4)).plan


def test_explicit_settings_are_respected(seven: ModelShape) -> None:
    plan = judged(seven, machine(H200), JobShape(micro_batch=1, gradient_checkpointing=True), precision="fp16").plan
    assert (plan.micro_batch, plan.accumulation, plan.gradient_checkpointing) == (1, 4, True)
    assert plan.precision == "fp16"


def test_a_larger_card_needs_no_checkpointing(seven: ModelShape) -> None:
    plan = judged(seven, machine(H200)).plan
    assert (plan.precision, plan.micro_batch, plan.gradient_checkpointing) == ("fp16", 4, False)
    assert judged(seven, machine(H200), JobShape(quantization="nf4")).plan.precision == "bf16"


def test_a_cap_makes_a_large_card_a_small_one(seven: ModelShape, monkeypatch: pytest.MonkeyPatch) -> None:
    capped = judged(seven, machine(H200), gpu_memory_gib=14.56).plan
    assert capped.resident_layers < 32 and capped.gpu_memory_gib == 14.56
    monkeypatch.setenv("CODETUNE_GPU_MEMORY_GIB", "14.56")
    assert judged(seven, machine(H200)).plan == capped


def test_settings_that_cannot_fit_are_refused_with_what_would(seven: ModelShape) -> None:
    refused = refusal(seven, machine(T4), JobShape(backend="transformers", micro_batch=4, gradient_checkpointing=False))
    assert refused.exit_status == 3 and "backend=auto" in str(refused.remedy)
    assert "without gradient checkpointing" in refused.problem and "14.0 GiB" in refused.problem
    assert "gradient_checkpointing=auto" in str(refused.remedy) and "nf4" in str(refused.remedy)


def test_too_small_a_card_is_refused(seven: ModelShape) -> None:
    small = T4.model_copy(update={"name": "GTX 1650", "total_gib": 3.8, "free_gib": 3.7})
    assert "GTX 1650" in refusal(seven, machine(small)).problem


def test_micro_batch_must_divide_the_batch(seven: ModelShape) -> None:
    with pytest.raises(InputError, match=r"3.* 4") as wrong:
        judged(seven, machine(T4), JobShape(micro_batch=3))
    assert wrong.value.field == "training.micro_batch" and "1, 2, 4" in str(wrong.value.remedy)


def test_memory_held_by_others_is_named(seven: ModelShape) -> None:
    other = GpuProcess(pid=4242, name="python", memory_gib=9.5)
    busy = T4.model_copy(update={"free_gib": 4.9, "processes": (other,)})
    refused = refusal(seven, machine(busy))
    assert "python (pid 4242, 9.5 GiB)" in refused.problem and "4.9 GiB" in refused.problem


@pytest.mark.parametrize(("gpu", "quantization"), [(V100, "int8"), (K80, "int8"), (K80, "nf4")])
def test_cards_too_old_for_the_quantization(seven: ModelShape, gpu: object, quantization: str) -> None:
    refused = refusal(seven, machine(gpu), JobShape.model_validate({"quantization": quantization}))  # type: ignore[arg-type]
    assert "compute capability" in refused.problem
    assert ("quantization=nf4" in str(refused.remedy)) == (gpu is V100)


def test_nf4_on_a_v100_is_fp16(seven: ModelShape) -> None:
    assert judged(seven, machine(V100), JobShape(quantization="nf4")).plan.precision == "fp16"


def test_bf16_on_a_t4_is_refused(seven: ModelShape) -> None:
    assert "precision=fp16" in str(refusal(seven, machine(T4), precision="bf16").remedy)


def test_small_models_run_on_a_cpu(tiny: ModelShape) -> None:
    judgement = judged(tiny, machine())
    plan = judgement.plan
    assert (plan.device, plan.precision, plan.micro_batch) == ("cpu", "fp32", 4)
    assert judgement.prediction.peak_gib < 2 and 10 < (judgement.prediction.seconds or 0) < 120


def test_fp16_on_a_cpu_becomes_fp32_and_says_so(tiny: ModelShape) -> None:
    judgement = judged(tiny, machine(), precision="fp16")
    assert judgement.plan.precision == "fp32" and "fp32" in _warnings(judgement.checks)


def test_a_seven_billion_model_is_refused_on_a_cpu_with_the_reason(seven: ModelShape) -> None:
    refused = refusal(seven, machine())
    assert machine().no_gpu_reason in refused.problem
    assert all(figure in refused.problem for figure in ("6.7B", "8 of 24 GiB", "20 h", "200 steps"))
    assert "preflight.cpu_max_parameters" in str(refused.remedy)


def test_a_gpu_that_torch_cannot_use(seven: ModelShape, tiny: ModelShape) -> None:
    blind = machine(T4, torch_cuda="", libraries={"torch": "2.13.0+cpu"})
    assert "2.13.0+cpu" in refusal(seven, blind).problem
    assert judged(tiny, blind).plan.device == "cpu"
    assert "CUDA build" in str(refusal(tiny, blind, device="cuda").remedy)


def test_a_gpu_asked_for_but_absent(tiny: ModelShape) -> None:
    refused = refusal(tiny, machine(), device="cuda")
    assert machine().no_gpu_reason in refused.problem and "preflight.device=auto" in str(refused.remedy)


def test_full_disks_are_refused_with_the_sizes(seven: ModelShape) -> None:
    full = (Disk(purpose="store", free_gib=8, filesystem=1), Disk(purpose="hub cache", free_gib=900, filesystem=2))
    refused = refusal(seven, machine(T4, disks=full))
    assert all(word in refused.problem for word in ("store", "8.0 GiB", "19.3 GiB")) and "hub" not in refused.problem
    assert "CODETUNE_STORE" in str(refused.remedy)
    judged(seven, machine(T4, disks=full), JobShape(exports=()))


def test_what_a_form_is_made_from_is_counted_and_named(seven: ModelShape) -> None:
    full = (Disk(purpose="store", free_gib=30, filesystem=1), Disk(purpose="hub cache", free_gib=900, filesystem=2))
    judged(seven, machine(T4, disks=full))
    refused = refusal(seven, machine(T4, disks=full), JobShape(exports=("gguf-q4_k_m",)))
    assert "of them for exports: merged 12.6 GiB, gguf-f16 12.6 GiB, gguf-q4_k_m 3.8 GiB" in refused.problem


def test_the_file_of_the_base_that_measuring_a_form_makes_is_counted(seven: ModelShape) -> None:
    """One after the other, and the file of 16 bits that the export was made from is gone by then."""

    def needed(*measured: str, exports: tuple[str, ...]) -> float:
        job = JobShape(exports=exports, measured=measured)
        return judged(seven, machine(H200), job).prediction.disk_gib

    both = ("gguf-f16", "gguf-q4_k_m")
    rest = needed(exports=())
    assert needed(exports=both) - rest == pytest.approx(2 * 12.55 + 3.84, abs=0.05)
    assert needed("gguf-f16", exports=both) - rest == pytest.approx(2 * 12.55 + 3.84, abs=0.05)
    assert needed(*both, exports=both) - rest == pytest.approx(2 * 12.55 + 2 * 3.84, abs=0.05)
    q4 = both[1:]
    assert needed(*q4, exports=q4) == needed(exports=q4)  # most while it is made
    kept = ("merged", *q4)
    assert needed(*q4, exports=kept) - rest == pytest.approx(2 * 12.55 + 2 * 3.84, abs=0.05)


def test_what_is_measured_is_named_where_the_disk_is_too_small(seven: ModelShape) -> None:
    full = (Disk(purpose="store", free_gib=30, filesystem=1), Disk(purpose="hub cache", free_gib=900, filesystem=2))
    job = JobShape(exports=("merged", "gguf-q4_k_m"), measured=("gguf-q4_k_m",))
    refused = refusal(seven, machine(T4, disks=full), job)
    assert "merged 12.6 GiB, gguf-q4_k_m 3.8 GiB, the base as gguf-q4_k_m 16.4 GiB" in refused.problem


def test_the_quantized_base_is_written_too(seven: ModelShape) -> None:
    kinds = ("none", "nf4", "int8")
    jobs = [JobShape.model_validate({"quantization": kind, "exports": ()}) for kind in kinds]
    none, nf4, int8 = (judged(seven, machine(H200), job).prediction.disk_gib for job in jobs)
    assert nf4 - none == pytest.approx(3.88, abs=0.01) and int8 - none == pytest.approx(6.52, abs=0.01)


def test_a_shared_disk_must_hold_download_and_export_together(seven: ModelShape) -> None:
    shared = tuple(Disk(purpose=purpose, free_gib=25, filesystem=1) for purpose in ("store", "hub cache"))
    judged(seven, machine(T4, disks=shared))
    assert "HF_HOME" in str(refusal(seven, machine(T4, disks=shared), download=True).remedy)


def test_host_memory_too_small_to_merge(seven: ModelShape) -> None:
    assert "exporting.forms=[]" in str(refusal(seven, machine(T4, available_gib=7.0)).remedy)


def test_heat_is_a_warning(seven: ModelShape) -> None:
    hot = T4.model_copy(update={"temperature_c": 91, "throttling": ("too hot (hardware slowdown)",)})
    assert "too hot" in _warnings(judged(seven, machine(hot)).checks)


def test_a_driver_older_than_torch_s_cuda_is_refused(seven: ModelShape) -> None:
    refused = refusal(seven, machine(T4, driver_cuda=(11, 8)))
    assert "CUDA up to 11.8" in refused.problem and "driver" in str(refused.remedy)
    assert judged(seven, machine(T4, driver_cuda=(12, 0))).plan.device == "cuda"  # any minor version will do


def test_everything_against_a_job_is_said_at_once(seven: ModelShape) -> None:
    full = (Disk(purpose="store", free_gib=1, filesystem=1),)
    problem = refusal(seven, machine(T4.model_copy(update={"free_gib": 2.0}), disks=full, available_gib=2)).problem
    assert all(word in problem for word in ("2.0 GiB", "Tesla T4", "host memory", "disk of the store"))


def test_recheck_sees_what_changed_since(seven: ModelShape) -> None:
    judgement = judged(seven, machine(T4))
    recheck(judgement.plan, judgement.prediction, machine(T4))
    with pytest.raises(PreflightRefused, match=r"10\.9 GiB.*1\.0 GiB") as refused:
        recheck(judgement.plan, judgement.prediction, machine(T4.model_copy(update={"free_gib": 1.0})))
    assert "preflight.gpu_memory_gib=1.0" in str(refused.value.remedy)
    with pytest.raises(PreflightRefused, match=machine().no_gpu_reason):
        recheck(judgement.plan, judgement.prediction, machine())


# --- time ---


def test_a_budget_takes_as_many_steps_as_fit(seven: ModelShape) -> None:
    whole = judged(seven, machine(T4)).prediction
    half = judged(seven, machine(T4), budget=(whole.seconds or 0) / 2)
    assert half.prediction.budget_steps in (99, 100) and half.plan == judged(seven, machine(T4)).plan
    assert (half.prediction.seconds or 0) <= (whole.seconds or 0) / 2
    assert "of 200 optimizer steps fit into" in _warnings(half.checks)


def test_a_budget_larger_than_the_job_changes_nothing(seven: ModelShape) -> None:
    found = judged(seven, machine(T4), budget="2h")
    assert found.prediction.seconds == judged(seven, machine(T4)).prediction.seconds
    assert "time" in [check.name for check in found.checks if check.verdict == "ok"]
    training = TrainingConfig()
    assert training.within(found.prediction.budget_steps) == training == training.within(None)


def test_fewer_steps_warm_up_in_fewer() -> None:
    short = TrainingConfig().within(5)
    assert (short.max_steps, short.warmup_steps) == (5, 0)
    assert TrainingConfig(**short.model_dump()) == short  # still valid


def test_a_budget_too_small_for_one_step_is_refused(seven: ModelShape) -> None:
    refused = refusal(seven, machine(T4), budget=0.1)
    assert "too small for one optimizer step, which takes about" in refused.problem and "--budget" in str(refused)


def test_nothing_is_fitted_where_the_speed_is_unknown(seven: ModelShape) -> None:
    other = T4.model_copy(update={"name": "Quadro Nobody", "capability": (99, 0)})
    assert judged(seven, machine(other)).prediction.seconds is None
    assert "Quadro Nobody" in refusal(seven, machine(other), budget=600).problem


@pytest.mark.parametrize(("written", "seconds"), [("2h", 7200), ("1h30m", 5400), ("45 min", 2700), ("90s", 90), (7, 7)])
def test_times_are_read_as_people_write_them(written: str | float, seconds: float) -> None:
    assert PreflightConfig(budget=written).budget == seconds


@pytest.mark.parametrize("written", ["soon", "2 fortnights", "0s", "-1h", "", "99d", "1e9"])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(ValidationError, match="budget"):
        PreflightConfig(budget=written)
