"""What a step of the reference job would take on a GPU that was not measured, in 16 bits and in int8.

    python -m bench.projection [--gpu T4] [--memory-gib 14.56] [--watts 70]

Two ways, which know nothing of each other. The roofline: what preflight predicts from the data sheet, part by part. The
energy: the joules of a step that an H200 was measured to take (`bench.energy`), times what the other GPU's products
take more of, by the power limit that it is said to be at. Neither is a measurement. Needs no GPU.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from artifacts.schema import Plan
from bench.memory import SHAPES
from tasks.backends.contract import JobShape
from tasks.backends.fused.speed import STEP_SECONDS, graph_seconds
from tasks.machines.records import Gpu, MachineProbe
from tasks.machines.specs import SPECS, GpuSpec
from tasks.models.shape import llama_shape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.planning import PlanningInput, make_plan

ENERGY = Path(__file__).parent / "results" / "energy_int8.json"
MEASURED = "H200"
MODES = ("fp16", "int8")
CAPABILITIES = {"T4": (7, 5), "A10": (8, 6), "L4": (8, 9), "A100": (8, 0)}
GAINS = (1.0, 1.25, 1.5, 1.75, 2.0)


def planned(gpu: Gpu, products: str) -> Plan:
    """What preflight plans for the reference job on this GPU."""
    machine = MachineProbe(cpus=2, memory_gib=12, available_gib=12, gpus=(gpu,), torch_cuda="13.0")
    job = JobShape.model_validate({"products": products})
    config = PreflightConfig(precision="fp16")
    return make_plan(PlanningInput(config=config, job=job, shape=llama_shape(SHAPES["7b"]), probe=machine))


def roofline(plan: Plan, spec: GpuSpec) -> dict[str, float]:
    """Milliseconds of a step, by part."""
    parts = graph_seconds(llama_shape(SHAPES["7b"]), JobShape.model_validate({"products": plan.products}), plan, spec)
    found = {name: 1000 * plan.accumulation * seconds for name, seconds in parts.items()}
    return found | {"optimizer": 1000 * STEP_SECONDS}


def by_energy(spec: GpuSpec, watts: float) -> dict[str, float]:
    """Milliseconds of a step at the power limit, if a GPU's other work costs as much more energy than an H200's as its
    products in 16 bits do."""
    measured, card = json.loads(ENERGY.read_text()), SPECS[MEASURED]
    joules = {"fp16": measured["step"]["J"], "int8": measured["step_in_int8"]["J"]}
    there = card.teraflops * card.sustained / measured["limit_w"]  # TFLOP a joule
    here = spec.teraflops * spec.sustained / watts
    return {mode: 1000 * joules[mode] * there / here / watts for mode in MODES}


def table(gpu: Gpu, spec: GpuSpec, watts: float) -> str:
    plans = {mode: planned(gpu, mode) for mode in MODES}
    parts: dict[str, Any] = {mode: roofline(plans[mode], spec) for mode in MODES}
    sums = {mode: sum(parts[mode].values()) for mode in MODES}
    energy = by_energy(spec, watts)
    names = dict.fromkeys([*list(parts["fp16"])[:-1], *parts["int8"]])
    rows = [[name, *(f"{parts[mode].get(name, 0):.0f}" for mode in MODES)] for name in names]
    rows.append(["**a step, by the roofline**", *(f"**{sums[mode]:.0f}**" for mode in MODES)])
    rows.append([f"a step, by energy at {watts:g} W", *(f"{energy[mode]:.0f}" for mode in MODES)])
    for gain in GAINS:
        there = sum(roofline(plans["int8"], replace(spec, int8=gain)).values())
        rows.append([f"by the roofline, if int8 products are {gain:g} times as fast", "", f"{there:.0f}"])
    said = [f"| {gpu.name}: a projection, ms | 16 bits | int8 |", "| --- | ---: | ---: |"]
    how = [
        f"{mode}: {plan.micro_batch} × {plan.accumulation}, {plan.resident_layers} resident layers"
        for mode, plan in plans.items()
    ]
    return "\n".join([*said, *(f"| {' | '.join(row)} |" for row in rows), "", *how])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", choices=sorted(CAPABILITIES), default="T4")
    parser.add_argument("--memory-gib", type=float, default=14.56)
    parser.add_argument("--watts", type=float, default=70, help="its power limit")
    arguments = parser.parse_args()
    name, gib = arguments.gpu, arguments.memory_gib
    gpu = Gpu(name=f"NVIDIA {name}", total_gib=gib, free_gib=gib, capability=CAPABILITIES[name])
    print(table(gpu, SPECS[name], arguments.watts))


if __name__ == "__main__":
    main()
