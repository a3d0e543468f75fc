"""Can this machine run this job, and how? A pure function of records: the configuration, the job, the model, the probe.

Everything that stands against the job is collected before it is refused, so that one message names it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from artifacts.errors import PreflightRefused
from artifacts.presentation import duration
from artifacts.schema import Check, Plan, Prediction
from tasks.backends.contract import QUANTIZED_BYTES, JobShape, Layout
from tasks.exporting import forms
from tasks.gguf import library
from tasks.machines.records import GIB, Gpu, MachineProbe
from tasks.models import residual
from tasks.models.shape import ModelShape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.planning import PlanningInput, choice_of, make_plan

MINIMUM_CAPABILITY = {"int8": (7, 5), "nf4": (6, 0), "none": (6, 0)}
"""bitsandbytes' own table (its installation guide, 0.50): LLM.int8() 7.5, NF4 6.0."""

BF16_CAPABILITY = (8, 0)
HOT_C = 83
"""Where data-centre GPUs begin to lower their clocks, °C."""

FILE_BYTES = 40_000
"""A sampled source file in the store: its text and its tokens, both on the large side."""

SHARD_GIB = 4.7
"""Largest file of a model's weights: 5 GB in transformers up to 4, far fewer than a whole model in later versions."""

CHECKPOINTS_KEPT = 3


@dataclass(frozen=True)
class PreflightResult:
    """What preflight found."""

    plan: Plan
    prediction: Prediction
    checks: tuple[Check, ...]


def judge(
    config: PreflightConfig, job: JobShape, shape: ModelShape, probe: MachineProbe, *, download: bool = False
) -> PreflightResult:
    """Plan the job for the machine. `download`: the weights still have to come from the hub.

    Raises:
        PreflightRefused: the machine cannot run it; the message says what to change.
        InputError: the job contradicts itself.
    """
    question = PlanningInput(config, job, shape, probe)
    checks = [*_device_checks(question)]
    _refuse(checks)
    plan = make_plan(question)
    prediction = _predict(question, plan, download=download)
    finding = f"{prediction.peak_gib:.1f} GiB predicted at the peak"
    finding += f", {prediction.needed_gib:.1f} GiB needed in all" if question.gpu else ""
    finding += f", {question.budget_gib:.1f} GiB after headroom"
    checks.append(Check(name="GPU memory" if question.gpu else "memory", verdict="ok", finding=finding))
    checks += _volatile(plan, prediction, probe)
    checks += [_host_memory(job, shape, probe), *_disks(question, download=download), *_time(question, prediction)]
    _refuse(checks)
    return PreflightResult(plan, prediction, tuple(checks))


def recheck(plan: Plan, prediction: Prediction, probe: MachineProbe) -> tuple[Check, ...]:
    """Look again at what may have changed since the plan was made: memory taken by others, heat, free disk.

    Raises:
        PreflightRefused: the plan does not fit at the moment.
    """
    checks = [*_volatile(plan, prediction, probe)]
    disk = next((disk for disk in probe.disks if disk.purpose == "store"), None)
    if disk and disk.free_gib < min(1.0, prediction.disk_gib):
        checks.append(_short_of_space(disk.free_gib, prediction.disk_gib, "store"))
    _refuse(checks)
    return tuple(checks)


def _refuse(checks: Iterable[Check]) -> None:
    refused = [check for check in checks if check.verdict == "refused"]
    if refused:
        raise PreflightRefused(
            "; ".join(check.finding for check in refused),
            remedy="; ".join(dict.fromkeys(check.remedy for check in refused if check.remedy)) or None,
        )


# --- prediction -----------------------------------------------------------------------------------------------


def _predict(question: PlanningInput, plan: Plan, *, download: bool) -> Prediction:
    memory, choice = question.memory, choice_of(plan, question.shape.layers)
    step, needed = question.step_seconds(choice), memory.needed_gib(choice)
    budget, steps = question.config.budget, question.job.max_steps
    affordable = int(budget / step) if budget and step else None
    if affordable is not None:
        steps = min(steps or affordable, affordable)
    return Prediction(
        peak_gib=round(memory.peak_gib(choice), 3),
        needed_gib=round(needed, 3),
        optional_gib=round(needed - memory.needed_gib(replace(choice, resident=0)), 3),
        tokens_per_second=round(question.job.step_tokens / step, 1) if step else None,
        seconds=round(step * steps, 1) if step and steps is not None and question.job.epochs is None else None,
        step_seconds=round(step, 4) if step else None,
        steps=steps,
        epochs=question.job.epochs,
        budget_steps=affordable,
        disk_gib=round(sum(_writes(question, download=download).values()), 3),
    )


def _writes(question: PlanningInput, *, download: bool) -> dict[str, float]:
    """GiB that the run adds, by purpose of the disk."""
    job, shape = question.job, question.shape
    lora = shape.lora_parameters(job.lora_rank, job.lora_target_modules)
    exported = sum(_exported(job, shape).values())
    # a checkpoint holds adapter and optimizer (three fp32 numbers); the adapter is kept and exported besides
    adapters = lora * ((16 if job.keeps_best else 12) * CHECKPOINTS_KEPT + 8)
    store = exported + adapters + job.sample_files * FILE_BYTES
    if job.quantization != "none":  # int8, or nf4 with an fp32 scale for 64 weights; all else as published
        store += shape.linear_parameters * QUANTIZED_BYTES[job.quantization]
        store += shape.other_parameters * shape.weight_bytes
    hub = shape.weight_bytes * shape.parameters if download else 0
    return {"store": store / GIB, "hub cache": hub / GIB}


def _exported(job: JobShape, shape: ModelShape) -> dict[str, float]:
    """Bytes of the forms and of what is there with them for a while, at the time when it is most: while they are made,
    of other forms, or while one is measured, and the base's file is there."""
    making = {form.name: form.stored_bytes(shape) for form in forms.with_needs(job.exports)}
    base = {f"the base as {form}": library.bytes_to_make(form, shape.parameters) for form in job.measured}
    largest = max(base, key=lambda one: base[one], default=None)
    if largest is None:
        return making
    measuring = {name: size for name, size in making.items() if name in job.exports} | {largest: base[largest]}
    return max(making, measuring, key=lambda one: sum(one.values()))


def _time(question: PlanningInput, prediction: Prediction) -> Iterator[Check]:
    """Whether the time budget has room for the job, or for how much of it."""
    budget, steps, wanted = question.config.budget, prediction.budget_steps, question.job.max_steps
    if budget is None:
        return
    if steps is None:
        device = question.gpu.name if question.gpu else "machine"
        yield Check(
            name="time",
            verdict="refused",
            finding=f"how fast the {device} is cannot be predicted, so no steps can be fitted into a time",
            remedy="leave out the budget (preflight.budget) and set training.max_steps",
        )
        return
    words = duration(budget)
    if steps < 1:
        rate = prediction.tokens_per_second or 0
        takes = duration(question.job.step_tokens / rate) if rate else "longer"
        yield Check(
            name="time",
            verdict="refused",
            finding=f"the budget of {words} is too small for one optimizer step, which takes about {takes} here",
            remedy="raise the budget (--budget, preflight.budget), or lower training.effective_batch or "
            "tokenization.max_length",
        )
    elif wanted is None:
        finding = f"{steps:,} optimizer steps fit into {words}; how many the epochs take is counted later"
        yield Check(name="time", verdict="ok", finding=finding)
    elif steps < wanted:
        finding = f"{steps:,} of {wanted:,} optimizer steps fit into {words}"
        yield Check(name="time", verdict="warning", finding=finding, remedy="raise the budget to train on all of it")
    else:
        yield Check(name="time", verdict="ok", finding=f"all {wanted:,} optimizer steps fit into {words}")


# --- the device -----------------------------------------------------------------------------------------------


def _device_checks(question: PlanningInput) -> Iterator[Check]:
    gpu = question.gpu
    if gpu is None:
        yield from _cpu_checks(question)
        return
    yield _enough_gpus(question)
    yield from _driver_checks(question.probe)
    yield _capability_check(gpu, question.job)
    if question.precision == "bf16" and gpu.capability < BF16_CAPABILITY:
        finding = f"{gpu.name} ({gpu.architecture}) has no bf16 arithmetic"
        yield Check(name="precision", verdict="refused", finding=finding, remedy="set preflight.precision=fp16 or auto")
    elif question.precision == "fp16" and not question.fp32_residual and residual.overflows(question.shape.config):
        finding = f"fp16 on {gpu.architecture}, in which models of type {question.shape.model_type} may overflow"
        remedy = "set preflight.fp32_residual=auto"
        yield Check(name="precision", verdict="warning", finding=finding, remedy=remedy)
    else:
        kept = ", the residual stream in fp32" if question.fp32_residual else ""
        yield Check(name="precision", verdict="ok", finding=f"{question.precision} on {gpu.architecture}{kept}")


def _enough_gpus(question: PlanningInput) -> Check:
    probe, wanted = question.probe, question.processes
    if wanted <= len(probe.gpus):
        return Check(name="GPU", verdict="ok", finding=probe.in_words)
    finding = f"{wanted} processes want a GPU each, but only {len(probe.gpus)} can be seen ({probe.in_words})"
    remedy = f"set training.processes={len(probe.gpus)} or auto, or make more GPUs visible (CUDA_VISIBLE_DEVICES)"
    return Check(name="GPU", verdict="refused", finding=finding, remedy=remedy)


def _cpu_checks(question: PlanningInput) -> Iterator[Check]:
    probe, shape, config = question.probe, question.shape, question.config
    reason = probe.no_gpu_reason or "no GPU was found"
    if config.device == "cpu":
        reason = "preflight.device is cpu"
    elif probe.gpus:
        reason = f"the installed torch ({probe.libraries.get('torch', 'none')}) is built without CUDA"
    if config.device == "cuda":
        remedy = "set preflight.device=auto, or run where a GPU is visible"
        yield Check(name="GPU", verdict="refused", finding=f"a GPU is asked for, but {reason}", remedy=remedy)
    elif shape.parameters > config.cpu_max_parameters:
        yield Check(
            name="GPU",
            verdict="refused",
            finding=f"no GPU ({reason}), and {_cost_on_cpu(question)}",
            remedy="run on a machine with an NVIDIA GPU of 15 GiB or more, or choose a model of at most "
            f"{config.cpu_max_parameters / 1e6:.0f}M parameters (preflight.cpu_max_parameters)",
        )
    else:
        yield Check(name="GPU", verdict="ok", finding=f"{reason}; {probe.in_words} will do for a model this small")
    if config.precision in ("fp16", "bf16"):
        finding = f"{config.precision} is configured; a CPU computes in fp32"
        yield Check(name="precision", verdict="warning", finding=finding)


def _cost_on_cpu(question: PlanningInput) -> str:
    """Why a large model is not trained on a CPU, in figures."""
    job, shape, probe = question.job, question.shape, question.probe
    smallest = Layout(1, shape.layers)
    peak = question.memory.peak_gib(smallest)
    steps = job.max_steps or 100
    hours = (question.step_seconds(smallest) or 0) * steps / 3600
    return (
        f"on the CPU a model of {shape.parameters / 1e9:.1f}B parameters would need {peak:.0f} of "
        f"{probe.memory_gib:.0f} GiB memory and about {hours:.0f} h for {steps} steps"
    )


def _driver_checks(probe: MachineProbe) -> Iterator[Check]:
    if not probe.torch_cuda:
        finding = f"the installed torch ({probe.libraries.get('torch', 'none')}) is built without CUDA"
        yield Check(
            name="CUDA",
            verdict="refused",
            finding=finding,
            remedy="install the CUDA build of the same version of torch",
        )
    elif probe.driver_cuda and probe.driver_cuda[0] < int(probe.torch_cuda.split(".")[0]):
        serves = ".".join(map(str, probe.driver_cuda))
        finding = f"driver {probe.driver} serves CUDA up to {serves}, torch was built for {probe.torch_cuda}"
        remedy = f"update the driver, install a torch built for CUDA {probe.driver_cuda[0]}, "
        remedy += "or set preflight.device=cpu for a small model"
        yield Check(name="CUDA", verdict="refused", finding=finding, remedy=remedy)
    else:
        yield Check(name="CUDA", verdict="ok", finding=f"driver {probe.driver}, torch built for {probe.torch_cuda}")


def _capability_check(gpu: Gpu, job: JobShape) -> Check:
    needed = MINIMUM_CAPABILITY[job.quantization]
    version = ".".join(map(str, gpu.capability))
    if gpu.capability >= needed:
        return Check(name="quantization", verdict="ok", finding=f"{job.quantization} on compute capability {version}")
    remedy = "use a newer GPU (T4 or later)"
    if job.quantization == "int8" and gpu.capability >= MINIMUM_CAPABILITY["nf4"]:
        remedy = "set training.quantization=nf4, or use a newer GPU (T4 or later)"
    wants = f"{job.quantization} needs compute capability {needed[0]}.{needed[1]}"
    return Check(
        name="quantization", verdict="refused", finding=f"{wants}; the {gpu.name} has {version}", remedy=remedy
    )


# --- memory, heat, disks --------------------------------------------------------------------------------------


def _volatile(plan: Plan, prediction: Prediction, probe: MachineProbe) -> Iterator[Check]:
    """Checks whose outcome may change from minute to minute."""
    if plan.device == "cpu":
        need = prediction.peak_gib * plan.processes
        if probe.available_gib < need:
            finding = f"training needs {need:.1f} GiB memory, {probe.available_gib:.1f} GiB are free"
            yield Check(name="free memory", verdict="refused", finding=finding, remedy="end what else is running")
        return
    if len(probe.gpus) < plan.processes:
        reason = probe.no_gpu_reason or (f"{len(probe.gpus)} can be seen" if probe.gpus else "no GPU was found")
        wanted = "a GPU" if plan.processes == 1 else f"{plan.processes} GPUs"
        yield Check(name="GPU", verdict="refused", finding=f"the plan is for {wanted}, but {reason}")
        return
    for gpu in probe.gpus[: plan.processes]:
        yield _free_memory(gpu, prediction)
        yield from _heat(gpu)


def _free_memory(gpu: Gpu, prediction: Prediction) -> Check:
    finding = f"{gpu.free_gib:.1f} GiB are free on the {gpu.name}"
    need = max(prediction.needed_gib, prediction.peak_gib)
    if gpu.free_gib >= need:
        return Check(name="free GPU memory", verdict="ok", finding=finding)
    remedy = "end those processes, or plan for what is left with preflight.gpu_memory_gib="
    remedy += f"{max(1.0, int(gpu.free_gib * 10) / 10):.1f}"
    if gpu.free_gib >= need - prediction.optional_gib:
        finding += f"; of the {need:.1f} GiB wanted training may have to do without {prediction.optional_gib:.1f}"
        return Check(name="free GPU memory", verdict="warning", finding=finding, remedy=remedy)
    holders = ", ".join(map(str, gpu.processes))
    held = f", the rest is held by {holders}" if holders else ", the rest is held by processes that are not visible"
    least = need - prediction.optional_gib
    finding = f"training needs {least:.1f} GiB, but only {finding}{held}"
    return Check(name="free GPU memory", verdict="refused", finding=finding, remedy=remedy)


def _heat(gpu: Gpu) -> Iterator[Check]:
    remedy = "expect a slower run; see to the GPU's cooling and power"
    if gpu.throttling:
        finding = f"the clocks are held down: {', '.join(gpu.throttling)}"
        yield Check(name="cooling", verdict="warning", finding=finding, remedy=remedy)
    elif gpu.temperature_c is not None and gpu.temperature_c >= HOT_C:
        yield Check(name="cooling", verdict="warning", finding=f"the GPU is at {gpu.temperature_c} °C", remedy=remedy)


def _host_memory(job: JobShape, shape: ModelShape, probe: MachineProbe) -> Check:
    """Weights are read, and the merged model written, one file at a time."""
    need = 1.5 + min(SHARD_GIB, 2 * shape.parameters / GIB) * (2 if job.exports else 1)
    finding = f"{probe.available_gib:.1f} GiB are free, loading and merging take {need:.1f} GiB"
    if probe.available_gib >= need:
        return Check(name="host memory", verdict="ok", finding=finding)
    remedy = "end what else is running, or use a machine with more memory"
    remedy += ", or set exporting.forms=[]" if job.exports else ""
    return Check(name="host memory", verdict="refused", finding=f"host memory: only {finding}", remedy=remedy)


def _disks(question: PlanningInput, *, download: bool) -> Iterator[Check]:
    needs = _writes(question, download=download)
    disks = question.probe.disks
    for filesystem in dict.fromkeys(disk.filesystem for disk in disks):
        shared = [disk for disk in disks if disk.filesystem == filesystem]
        need, free = sum(needs[disk.purpose] for disk in shared), min(disk.free_gib for disk in shared)
        name = " and ".join(disk.purpose for disk in shared)
        if free < need * 1.05:
            exported = _exported(question.job, question.shape)
            parts = ", ".join(f"{form} {_size(size / GIB)}" for form, size in exported.items() if size)
            yield _short_of_space(free, need, name, parts if "store" in name else "")
        elif need:
            yield Check(name=f"disk ({name})", verdict="ok", finding=f"{_size(free)} free, {_size(need)} needed")


def _short_of_space(free: float, need: float, name: str, parts: str = "") -> Check:
    """`parts`: of the need, the forms of the export, and those that they are made from."""
    return Check(
        name=f"disk ({name})",
        verdict="refused",
        finding=f"the disk of the {name} has {_size(free)} free, the run writes {_size(need)}"
        + (f", of them for exports: {parts}" if parts else ""),
        remedy="free some space, or point CODETUNE_STORE (results) and HF_HOME (downloads) to larger disks",
    )


def _size(gib: float) -> str:
    return f"{gib:.1f} GiB" if gib >= 0.1 else f"{gib * 1024:.1f} MiB"
