"""One row: the whole pipeline, without Prefect."""

from __future__ import annotations

import fcntl
import json
import random
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from artifacts import digest
from artifacts.configuration import Config
from artifacts.progress import SILENT
from artifacts.rows import read_rows
from artifacts.schema import EvaluationReport
from artifacts.store import Store
from bench.own_code.rows import T4_GIB, Task, put

DRAWS = 2000


class Enough(Exception):  # noqa: N818 - a finding
    """The stage that was wanted is done."""


class Bare:
    """Goes through the pipeline with a store and without Prefect. See `tasks.running.stage.StageRunner`."""

    def __init__(self, store: Store, until: str = "") -> None:
        self.store, self.until = store, until
        self.seconds: dict[str, float] = defaultdict(float)
        self.handles: dict[str, Any] = {}

    def stage(self, stage: Any, config: Config, *, guard: Any = None, after: Any = None, **inputs: Any) -> Any:
        from tasks.running.job import Job

        del after
        started = time.perf_counter()
        # without Prefect's task runners, its parts are computed here
        stage = replace(stage, parallel=False)
        job = Job.of(stage, config, {name: value for name, value in inputs.items() if value is not None})
        handle = job.build(self.store, SILENT, guard=guard).handle
        self.seconds[stage.name] += time.perf_counter() - started
        self.handles[stage.name] = handle
        if stage.name == self.until:
            raise Enough
        return handle


def base_once(folder: Path, model: str) -> None:
    """The base model is asked the same only once, whichever row asks: what it made of it is kept in a file."""
    from tasks.generation import stage
    from tasks.generation.work import SIDES, measure

    def measured(work: Any, pair: Any, repeated: float, progress: Any, sides: Any = SIDES) -> list[dict[str, Any]]:
        asked = [[row.get(name) for name in (work.ids, "counts", "start", "new_tokens")] for row in work.rows]
        key = digest.of_json([model, work.title, work.batch_size, repeated, repr(asked)])
        tuned = measure(work, pair, repeated, progress, ("tuned",))
        file = folder / f"{key}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                file.write_text(json.dumps(measure(work, pair, repeated, progress, ("base", "again"))))
        return [base | one for base, one in zip(json.loads(file.read_text()), tuned, strict=True)]

    vars(stage)["measure"] = measured


def measure(task: Task, data: Path, store: Store, quick: bool) -> dict[str, Any]:
    """The pipeline with a row's settings, then the same model asked about repositories that it has not seen."""
    from flows.config import of
    from flows.finetune import ask, pipeline
    from tasks import evaluation, generation
    from tasks.models.base_model import locate

    settings = task.settings(data, quick)
    config = of(settings)
    run = Bare(store)
    results = pipeline(run, config, model := locate(config.model))
    checkpoint, sample = run.handles["training"], run.handles["sampling"]
    put(settings, "retention.source.paths", [str(path) for path in sorted((data / "held-out").iterdir())])
    for name, count in (("line_prompts", 200), ("fim_prompts", 0), ("block_prompts", 0), ("context_tokens", 0)):
        put(settings, f"prompts.{name}", min(count, settings["prompts"][name]))
    seen = of(settings)
    again = Bare(store)
    assert seen.retention is not None
    from tasks import sampling

    unseen = again.stage(sampling.RETENTION, seen.retention, sample=sample)
    asked = ask(
        again, seen, seen.tokenization, model=model, sample=sample, tokens=run.handles["tokenization"], retention=unseen
    )
    generated = again.stage(
        generation.STAGE,
        seen.generation,
        model=model,
        prompts=asked,
        exported=results.exported,
        plan=run.handles["preflight"].plan,
    )
    unseen_report = again.stage(evaluation.STAGE, seen.evaluation, generations=generated, executions=None)
    rows = read_rows(checkpoint.path / "metrics.parquet")
    return {
        "steps": checkpoint.steps,
        "tokens": checkpoint.tokens,
        "training_tokens": run.handles["tokenization"].train.tokens,
        "first_loss": checkpoint.first_loss,
        "last_loss": checkpoint.last_loss,
        "peak_gib": checkpoint.peak_memory_gib,
        "skipped_steps": sum(row["grad_norm"] is None for row in rows),
        "t4_step_seconds": predicted(config, model, "Tesla T4", (7, 5)),
        "h200_step_seconds": predicted(config, model, "NVIDIA H200", (9, 0)),
        "verdict": results.decided.ruling,
        "reasons": list(results.decided.reasons),
        "learned": results.evaluated.learned,
        "ratio": ratio(results.evaluated, "held_out"),
        "metrics": figures_of(results.evaluated),
        "unseen": {name: value for name, value in figures_of(unseen_report).items() if name.startswith("retention_")},
        "validation": checkpoint.validation and checkpoint.validation.model_dump(mode="json"),
        "adapter_scale": results.exported.adapter_scale,
        "sample": sample.summary,
        "seconds": {name: round(value, 1) for name, value in run.seconds.items()},
    }


def figures_of(report: EvaluationReport) -> dict[str, Any]:
    names = ("base", "tuned", "difference", "low", "high", "margin", "items", "clusters", "verdict")
    return {one.name: {name: getattr(one, name) for name in names} for one in report.metrics}


def ratio(report: EvaluationReport, domain: str) -> dict[str, float | None]:
    """How many times as often the tuned model's line is the line that stands there, with a 95 % interval by bootstrap
    over repositories, or what stands for them."""
    groups: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for row in read_rows(report.path / "scores.parquet"):
        if (row["domain"], row["suite"], row["score"]) == (domain, "line", "exact_match"):
            groups[row.get("unit") or row["repo"]].append((row["base"], row["tuned"]))
    if not groups:
        return {}
    sums = [(sum(base for base, _ in pairs), sum(tuned for _, tuned in pairs)) for pairs in groups.values()]
    generator, drawn = random.Random(0), []
    for _ in range(DRAWS):
        some = generator.choices(sums, k=len(sums))
        base = sum(one for one, _ in some)
        drawn.append(sum(one for _, one in some) / base if base else float("inf"))
    drawn.sort()
    base = sum(one for one, _ in sums)
    return {
        "ratio": sum(one for _, one in sums) / base if base else None,
        "low": drawn[DRAWS // 40],
        "high": drawn[-DRAWS // 40 - 1],
        "units": len(sums),
    }


def predicted(config: Any, model: Any, name: str, capability: tuple[int, int]) -> float | None:
    """Seconds that a step is expected to take on a card, by the backend's estimate."""
    from tasks.machines.records import Gpu, MachineProbe
    from tasks.models.shape import read_shape
    from tasks.preflight.judgement import judge

    card = Gpu(name=name, total_gib=T4_GIB, free_gib=T4_GIB, capability=capability)
    machine = MachineProbe(
        gpus=(card,), driver_cuda=(13, 0), cpus=4, memory_gib=12.7, available_gib=12, torch_cuda="13.0"
    )
    found = judge(config.preflight, config.job(), read_shape(model.metadata), machine)
    rate = found.prediction.tokens_per_second
    return config.job().step_tokens / rate if rate else None


def alone(task: Task, data: Path, store: Store, quick: bool) -> float:
    """Median seconds of a step of a row, with nothing beside it on the machine."""
    from flows.config import of
    from flows.finetune import pipeline
    from tasks.models.base_model import locate

    settings = task.settings(data, quick)
    settings["training"] = {**settings["training"], "max_steps": 4 if quick else 40, "epochs": None, "warmup_steps": 1}
    config = of(settings)
    run = Bare(store, until="training")
    with suppress(Enough):
        pipeline(run, config, locate(config.model))
    seconds = [row["seconds"] for row in read_rows(run.handles["training"].path / "metrics.parquet")]
    return float(median(seconds[len(seconds) // 4 :]))
