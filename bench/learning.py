"""Do all ways of computing learn the same? Trained weights, three seeds, the reference job and one like `own-code`.

    python -m bench.learning --out bench/results/learning.json [--models NAME=FOLDER …] [--parallel 8] [--seconds 600]

The built-in model, and every other that is named, learns the standard library on an int8 base through the real
training stage: by the backend `transformers`, by `fused` with products in 16 bits, and in int8 forward alone, both
ways, and with gradients rounded at random. Same seed, other way of computing: how far are the losses of each step
apart? Same way, other seed: what is such a difference worth? And what became of it: losses on files held out, and on
code of other packages, all computed in one way (`fused`, products in 16 bits). Gradients of all ways are compared with
those of the engine in fp32, on the same weights and real text.

Runs share a machine, so times mean nothing. What is done is written at once: a run that is cut short still says
something.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from statistics import fmean, stdev
from typing import Any
from unittest.mock import patch

from artifacts.progress import Progress
from artifacts.schema import Plan, Products
from bench import common
from tasks import training
from tasks.models.base_model import ModelConfig, locate

SEEDS = (42, 43, 44)
OTHERS = ("numpy", "pyarrow", "pydantic", "peft")
"""Packages whose code nobody learns here, but should still be known."""
BUILT_IN = "built-in=models/codellama-tiny"
Losses = dict[str, float]
"""Mean loss of each file, nats a token."""


@dataclass(frozen=True)
class Job:
    """What is trained."""

    tokens: int
    steps: int
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def batch(self) -> int:
        return int(self.settings.get("effective_batch", 4))


JOBS = {
    "reference": Job(256, 200),
    "like-own-code": Job(
        1024,
        300,
        {
            "effective_batch": 8,
            "lora": {"r": 16, "alpha": 32, "target_modules": ["all-linear"]},
            "scheduler": "cosine",
            "learning_rate": 5e-4,
        },
    ),
}


@dataclass(frozen=True)
class Way:
    """How it is computed. `probe`: what `bench.products` makes of the engine, if not what it is."""

    backend: str = "fused"
    products: str = "fp16"
    probe: dict[str, Any] | None = None


WAYS = {
    "fused": Way(),
    "int8": Way(products="int8"),
    "int8 forward": Way(products="int8", probe={"backward": ""}),
    "int8, backward at random": Way(products="int8", probe={"backward": "at random"}),
    "transformers": Way(backend="transformers"),
}
GRADIENTS = "gradients"
PER_FILE = ("after", "base_in_int8", "after_in_int8")
EXACT = "fused"
"""What the others are compared with."""


@dataclass(frozen=True)
class Task:
    """What a process does: one job on one model, in some ways, with some seeds; without ways, the gradients."""

    model: str
    job: str
    ways: tuple[str, ...]
    seeds: tuple[int, ...]
    steps: int

    @property
    def name(self) -> str:
        what = ("transformers" if "transformers" in self.ways else "fused") if self.ways else GRADIENTS
        return "-".join([self.model, self.job, what, *map(str, self.seeds)])


# --- a process ------------------------------------------------------------------------------------------------


def plan_of(way: Way, job: Job) -> Plan:
    gpu = common.on_gpu()
    return Plan(
        device="cuda" if gpu else "cpu",
        precision="fp16" if gpu else "fp32",
        micro_batch=job.batch,
        accumulation=1,
        gradient_checkpointing=False,
        backend=way.backend,
        products=way.products,
    )


class Told:
    """Takes the place of the pipe to the supervising process."""

    def __init__(self) -> None:
        self.handle: dict[str, Any] = {}

    def send(self, kind: str, **content: Any) -> None:
        if kind == "result":
            self.handle = content["handle"]


class Unasked:
    """Nobody asks the training to stop."""

    requested = False
    training = False


def train_here(spec: Any, workdir: Path, progress: Progress) -> dict[str, Any]:
    """In place of `supervision.run_worker`: in this process, which has imported everything already."""
    from tasks.training.job import train

    del progress
    told = Told()
    assert train(spec, workdir, told, Unasked())  # type: ignore[arg-type]
    return told.handle


def run(task: Task, way: str, seed: int, inputs: common.Inputs, root: Path) -> tuple[dict[str, Any], Path]:
    """A row, and where the adapter is."""
    from bench.products import Probe, Variant
    from tasks.backends.fused import model

    chosen, job = WAYS[way], JOBS[task.job]
    with ExitStack() as stack:
        stack.enter_context(patch("tasks.training.stage.run_worker", train_here))
        if chosen.probe is not None:
            stack.enter_context(patch.object(model, "Int8Projection", Probe))
            stack.enter_context(patch.object(Probe, "variant", Variant(**chosen.probe)))
        settings = {**job.settings, "seed": seed}
        if "lora" in settings:
            settings["lora"] = training.LoraSettings(**settings["lora"])
        name = f"{task.name}-{way}-{seed}"
        shutil.rmtree(root / f"run-{name}", ignore_errors=True)  # of an attempt that was cut off
        row = common.run_stage(root, name, plan_of(chosen, job), task.steps, inputs, **settings)
    row = {"model": task.model, "job": task.job, "way": way, "seed": seed, "steps": task.steps} | {
        "loss": [round(one, 5) for one in row["loss"]],
        "skipped_steps": row["skipped_steps"],
        "seconds": row["stage_s"],
    }
    return row, root / f"run-{name}" / "result" / "adapter"


def held_out(inputs: common.Inputs) -> Iterator[tuple[str, list[int]]]:
    """Chunks of the files that are not learned from."""
    import pyarrow.parquet as pq

    for row in pq.read_table(inputs.tokens.path / "held_out.parquet").to_pylist():
        yield row["path"], row["input_ids"]


def elsewhere(tokenizer: Any, length: int) -> Iterator[tuple[str, list[int]]]:
    """Chunks of other packages' files, one a file."""
    for package in OTHERS:
        spec = find_spec(package)
        folders = spec.submodule_search_locations if spec else None
        files = sorted(Path(folders[0]).rglob("*.py")) if folders else []
        for file in [one for one in files if one.stat().st_size > 4000][::2][:20]:
            yield f"{package}/{file.name}", tokenizer(file.read_text(errors="replace"))["input_ids"][:length]


class Judge:
    """Losses of the base and of what training made of it."""

    def __init__(self, inputs: common.Inputs, job: Job) -> None:
        from transformers import AutoTokenizer

        from tasks.models.loading import load_base, silence_peft

        silence_peft()
        self._length = job.tokens
        self._base = load_base(inputs.base.path, "int8", plan_of(WAYS["transformers"], job))
        tokenizer = AutoTokenizer.from_pretrained(inputs.base.path)
        self._texts = {"held_out": list(held_out(inputs)), "elsewhere": list(elsewhere(tokenizer, job.tokens))}

    def losses(self, adapter: Path | None, products: Products = "fp16") -> dict[str, Losses]:
        """By kind of text and file."""
        from peft import PeftModel

        from tasks.backends.fused.calibration import calibrate
        from tasks.backends.fused.model import FusedModel

        model = self._base if adapter is None else PeftModel.from_pretrained(self._base, adapter)
        fused = FusedModel(model, length=self._length, products=products)
        if products == "int8":
            calibrate(fused)
        if adapter is not None:
            fused.adapters.refresh()
        found = {kind: self._by_file(fused, texts, adapted=adapter is not None) for kind, texts in self._texts.items()}
        if adapter is not None:
            self._base = model.unload()
        return found

    def _by_file(self, fused: Any, texts: list[tuple[str, list[int]]], *, adapted: bool) -> Losses:
        import torch

        from tasks.backends.fused import inference

        device = fused.embedding.device
        files: dict[str, list[tuple[float, int]]] = defaultdict(list)
        for start in range(0, len(texts), 8):
            part = texts[start : start + 8]
            ids = torch.zeros((len(part), self._length), dtype=torch.long)
            following = torch.full_like(ids, -100)
            for row, (_, chunk) in enumerate(part):
                ids[row, : len(chunk)] = torch.tensor(chunk)
                following[row, : len(chunk) - 1] = torch.tensor(chunk[1:])
            losses = inference.losses(fused, ids.to(device), following.to(device), adapted=adapted).cpu()
            for (file, chunk), row in zip(part, losses, strict=True):
                files[file].append((float(row.sum()), len(chunk) - 1))
        return {
            file: round(sum(loss for loss, _ in both) / sum(tokens for _, tokens in both), 6)
            for file, both in files.items()
        }


def gradients(inputs: common.Inputs, job: Job, small: bool) -> list[dict[str, Any]]:
    """Of one batch of the texts that are learned from, by every way, against the engine in fp32 on a CPU."""
    import pyarrow.parquet as pq
    import torch

    from bench.products import Probe, Variant
    from tasks.backends.fused import model
    from tasks.backends.fused.calibration import calibrate
    from tasks.models.loading import load_base
    from tests.tasks.backends.fused.models import with_adapter

    chunks = pq.read_table(inputs.tokens.path / "train.parquet")["input_ids"].to_pylist()
    chunks = [one for one in chunks if len(one) == job.tokens][:: max(1, len(chunks) // 8)][: 1 if small else 4]
    ids = torch.tensor(chunks)
    lora = job.settings.get("lora", {"r": 8, "target_modules": ["q_proj", "v_proj"]})
    targets = lora["target_modules"] if lora["target_modules"] != ["all-linear"] else "all-linear"
    scale = 1024.0

    def tuned(way: Way, like: Any = None, device: str | None = None) -> Any:
        plan = plan_of(way, job)
        plan = plan.model_copy(update={"device": device, "precision": "fp32"} if device else {})
        made = with_adapter(load_base(inputs.base.path, "int8", plan), targets, lora["r"])
        if like is not None:
            made.load_state_dict({name: one for name, one in like.items() if "lora_" in name}, strict=False)
        return made

    def collected(made: Any) -> list[torch.Tensor]:
        return [one.grad.float().cpu() / scale for one in made.parameters() if one.grad is not None]

    def engine(made: Any, products: Any, probe: dict[str, Any] | None = None) -> tuple[float, list[torch.Tensor]]:
        with ExitStack() as stack:
            if probe is not None:
                stack.enter_context(patch.object(model, "Int8Projection", Probe))
                stack.enter_context(patch.object(Probe, "variant", Variant(**probe)))
            fused = model.FusedModel(made, products=products, length=ids.shape[1])
            if products == "int8":
                calibrate(fused)
            fused.adapters.clear()
            device = fused.embedding.device
            given = ids.to(device)
            loss = fused.loss_and_gradients(given, given, torch.tensor(scale / ids.numel(), device=device))
        return float(loss) / ids.numel(), collected(made)

    exact_model = tuned(WAYS[EXACT], device="cpu")
    state = exact_model.state_dict()
    loss, exact = engine(exact_model, "fp16")
    whole = torch.cat([one.flatten() for one in exact])
    rows: list[dict[str, Any]] = [{"way": "fp32", "loss": loss, "norm": float(whole.norm())}]
    for name, way in WAYS.items():
        torch.manual_seed(0)
        made = tuned(way, state)
        if way.backend == "transformers":
            device = next(made.parameters()).device
            given = ids.to(device)
            made.train()
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                mean = made(input_ids=given, labels=given).loss
            # the engine divides by all tokens, this by those that have a successor
            (mean * scale * (ids.shape[1] - 1) / ids.shape[1]).backward()
            other, found = float(mean) * (ids.shape[1] - 1) / ids.shape[1], collected(made)
        else:
            other, found = engine(made, way.products, way.probe)
        all_of_it = torch.cat([one.flatten() for one in found])
        rows.append(
            {
                "way": name,
                "loss_difference": other - loss,
                "relative_error": float((all_of_it - whole).norm() / whole.norm()),
                "cosine": float(torch.nn.functional.cosine_similarity(all_of_it, whole, 0)),
                "worst_tensor": max(
                    float((one - right).norm() / right.norm()) for one, right in zip(found, exact, strict=True)
                ),
            }
        )
        print(rows[-1], flush=True)
        del made
        gc.collect()
    return rows


def work(task: Task, root: Path, small: bool) -> None:
    """Do what is not done yet, and write a line for each row."""
    inputs: common.Inputs = pickle.loads((root / f"inputs-{task.model}-{task.job}").read_bytes())
    job, out = JOBS[task.job], root / f"{task.name}.rows"
    told = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []

    def tell(row: dict[str, Any]) -> None:
        with out.open("a") as file:
            file.write(json.dumps({"model": task.model, "job": task.job} | row) + "\n")

    if not task.ways:
        tell({"gradients": gradients(inputs, job, small)})
        return
    judge = Judge(inputs, job)
    if not told:
        tell({"base": judge.losses(None)})
    done = {(row["way"], row["seed"]) for row in told if "way" in row}
    for seed in task.seeds:
        for way in (one for one in task.ways if (one, seed) not in done):
            row, adapter = run(task, way, seed, inputs, root)
            gc.collect()
            found = {"after": judge.losses(adapter)}
            if way == EXACT:  # what would the evaluation find with its products in int8?
                found |= {"base_in_int8": judge.losses(None, "int8"), "after_in_int8": judge.losses(adapter, "int8")}
            tell(row | found)


# --- the whole ------------------------------------------------------------------------------------------------


def apart(first: Sequence[float], second: Sequence[float]) -> dict[str, float]:
    """Differences between two loss curves: of single steps, and of the means over the last tenth."""
    tenth = max(1, len(first) // 10)
    return {
        "mean_absolute": fmean(abs(a - b) for a, b in zip(first, second, strict=True)),
        "end": abs(fmean(first[-tenth:]) - fmean(second[-tenth:])),
    }


def interval(differences: list[float]) -> dict[str, float]:
    """The mean over files with its 95 % interval, by resampling files."""
    draw = random.Random(0)
    means = sorted(fmean(draw.choices(differences, k=len(differences))) for _ in range(2000))
    return {"mean": fmean(differences), "low": means[50], "high": means[-51], "files": len(differences)}


def summary(rows: list[dict[str, Any]], base: dict[str, Losses]) -> dict[str, Any]:
    """Of one job on one model."""
    found = {(row["way"], row["seed"]): row for row in rows}
    seeds = [seed for seed in SEEDS if (EXACT, seed) in found]
    ways = [way for way in WAYS if all((way, seed) in found for seed in seeds)] if seeds else []
    record: dict[str, Any] = {"seeds": seeds}
    for way in ways:
        if way != EXACT:
            pairs = [apart(found[EXACT, seed]["loss"], found[way, seed]["loss"]) for seed in seeds]
            record[f"{way}, apart from {EXACT}"] = {key: max(one[key] for one in pairs) for key in pairs[0]}
    others = [apart(found[way, seeds[0]]["loss"], found[way, seed]["loss"]) for way in ways for seed in seeds[1:]]
    if others:
        record["seeds apart"] = {key: min(one[key] for one in others) for key in others[0]}
    for kind, before in base.items():
        means = {
            way: [fmean(found[way, seed]["after"][kind].values()) for seed in seeds] for way in ways
        }  # by way and seed
        record[kind] = {"base": fmean(before.values())} if before else {}
        if before and seeds and "after_in_int8" in found[EXACT, seeds[0]]:
            record[kind]["evaluated in int8"] = evaluated(before, [found[EXACT, seed] for seed in seeds], kind)
        by_file = {
            way: {file: fmean(found[way, seed]["after"][kind][file] for seed in seeds) for file in before}
            for way in ways
        }
        for way in ways if before else ():
            after = by_file[way]
            entry: dict[str, Any] = {"against the base": interval([after[file] - before[file] for file in before])}
            entry["by seed"] = [round(one, 6) for one in means[way]]
            if len(seeds) > 1:
                entry["deviation of seeds"] = stdev(means[way])
            if way != EXACT:
                for other in {EXACT, "transformers"} & {*ways} - {way}:
                    entry[f"against {other}"] = interval([after[file] - by_file[other][file] for file in before])
                entry[f"against {EXACT}, by seed"] = [
                    round(one - other, 6) for one, other in zip(means[way], means[EXACT], strict=True)
                ]
            record[kind][way] = entry
    return record


def evaluated(before: Losses, rows: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What products in int8 in place of 16 bits do to the base's losses, and to the difference of base and tuned."""
    base = [row["base_in_int8"][kind] for row in rows]
    tuned = [row["after_in_int8"][kind] for row in rows]
    exact = [row["after"][kind] for row in rows]
    gains = [
        fmean(in_int8[file] - now[file] for in_int8, now in zip(tuned, base, strict=True))
        - fmean(one[file] - before[file] for one in exact)
        for file in before
    ]
    return {"base": interval([base[0][file] - before[file] for file in before]), "gain": interval(gains)}


def collect(root: Path) -> dict[str, Any]:
    """What all processes have told so far."""
    rows: list[dict[str, Any]] = []
    bases: dict[tuple[str, str], dict[str, Losses]] = {}
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted(root.glob("*.rows")):
        for row in map(json.loads, file.read_text().splitlines()):
            if "gradients" in row:
                found[f"{row['model']}, {row['job']}"] = row["gradients"]
            elif "base" in row:
                bases[row["model"], row["job"]] = row["base"]
            else:
                rows.append(row)
    record: dict[str, Any] = {"gradients": found, "learning": {}}
    for model, job in bases:
        of_it = [row for row in rows if (row["model"], row["job"]) == (model, job)]
        record["learning"][f"{model}, {job}"] = summary(of_it, bases[model, job])
    record["rows"] = [{name: value for name, value in row.items() if name not in PER_FILE} for row in rows]
    return record


def prepare(name: str, folder: str, job: str, root: Path, files: int) -> None:
    """Texts and the int8 base of a job, for the processes to read."""
    place, file = root / f"{name}-{job}", root / f"inputs-{name}-{job}"
    if not file.exists():
        place.mkdir(exist_ok=True)
        model = locate(ModelConfig(name=folder))
        inputs = common.inputs_of(place, model, name, max_length=JOBS[job].tokens, files=files)
        file.write_bytes(pickle.dumps(inputs))


def tasks_of(arguments: argparse.Namespace) -> list[Task]:
    """What matters most first: the backend `transformers` takes longest, and is known to agree. What takes long is
    divided, and begins early."""
    pairs = [(pair.partition("=")[0], job) for pair in reversed(arguments.models) for job in reversed(arguments.jobs)]
    seeds = tuple(arguments.seeds)
    engine = tuple(way for way in WAYS if way != "transformers" and way in arguments.ways)

    def steps(job: str) -> int:
        return int(arguments.steps or JOBS[job].steps)

    def trained(model: str, job: str) -> list[Task]:
        long = job != "reference" and model != BUILT_IN.partition("=")[0]
        return [Task(model, job, engine, some, steps(job)) for some in ([(one,) for one in seeds] if long else [seeds])]

    found = [one for pair in pairs for one in trained(*pair)] if engine else []
    if GRADIENTS in arguments.ways:
        found += [Task(model, job, (), (), 0) for model, job in reversed(pairs)]
    if "transformers" in arguments.ways:
        found += [
            Task(model, job, ("transformers",), (one,), steps(job)) for model, job in reversed(pairs) for one in seeds
        ]
    return found


def measure(arguments: argparse.Namespace, root: Path) -> dict[str, Any]:
    deadline = time.monotonic() + arguments.seconds
    record: dict[str, Any] = {
        "device": "cuda" if common.on_gpu() else "cpu",
        "jobs": {name: {"tokens": JOBS[name].tokens, **JOBS[name].settings} for name in arguments.jobs},
        "left_out": [],
    }

    def written() -> dict[str, Any]:
        whole = record | collect(root)
        arguments.out.write_text(json.dumps(whole) + "\n")
        return whole

    def process(name: str, what: list[Any]) -> bool:
        """Whether a process of its own has done it."""
        left, said = deadline - time.monotonic(), root / f"{name}.log"
        command = [sys.executable, "-m", "bench.learning", "--out", "-", "--root", str(root), "--one", json.dumps(what)]
        command += ["--files", str(arguments.files), *(["--small"] if arguments.small else [])]
        try:
            if left < 20:
                raise TimeoutError
            environment = {**os.environ, "OMP_NUM_THREADS": "2"}
            with said.open("w") as log:
                subprocess.run(command, check=True, timeout=left, stdout=log, stderr=log, env=environment)
            print(f"{name}: done, {deadline - time.monotonic():.0f} s left", flush=True)
            return True
        except (TimeoutError, subprocess.TimeoutExpired):
            print(f"{name}: no time left", flush=True)
        except subprocess.CalledProcessError:
            print(f"{name}: failed\n{said.read_text()[-1500:]}", flush=True)
        return False

    def one(task: Task) -> None:
        done = process(task.name, [task.model, task.job, task.ways, task.seeds, task.steps])
        record["left_out"] += [] if done else [task.name]
        written()

    texts = [(*pair.split("=", 1), job) for pair in arguments.models for job in arguments.jobs]
    with ThreadPoolExecutor(arguments.parallel) as pool:
        list(pool.map(lambda three: process(f"inputs-of-{three[0]}-{three[2]}", list(three)), texts))
        list(pool.map(one, tasks_of(arguments)))
    return written()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--models", nargs="+", default=[BUILT_IN], metavar="NAME=FOLDER")
    parser.add_argument("--jobs", nargs="+", default=list(JOBS), choices=list(JOBS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    ways = [*WAYS, GRADIENTS]
    parser.add_argument("--ways", nargs="+", default=ways, choices=ways, help="of computing, and what is compared")
    parser.add_argument("--steps", type=int, help="of every job, in place of its own")
    parser.add_argument("--files", type=int, default=400, help="of the standard library, learned or held out")
    parser.add_argument("--parallel", type=int, default=2, help="runs at a time")
    parser.add_argument("--seconds", type=float, default=3600, help="nothing goes on after that")
    parser.add_argument("--small", action="store_true", help="gradients of one sequence alone")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--root", type=Path, help="a folder to work in: what is done there is not done again")
    arguments = parser.parse_args()
    if arguments.one:
        what = json.loads(arguments.one)
        if len(what) == 3:
            prepare(*what, arguments.root, arguments.files)
            return
        model, job, ways, seeds, steps = what
        work(Task(model, job, tuple(ways), tuple(seeds), steps), arguments.root, arguments.small)
        return
    with tempfile.TemporaryDirectory() as scratch:
        root = arguments.root or Path(scratch)
        root.mkdir(parents=True, exist_ok=True)
        record = measure(arguments, root)
    for name, found in record["learning"].items():
        print(name, json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
