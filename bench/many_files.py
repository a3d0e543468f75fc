"""What the stages before training take of memory as files grow many.

    python -m bench.many_files --files 2000 20000 200000 --out bench/results/many_files.json

Files are made of the lines of the installation's Python files: four stretches of ten lines from anywhere, so that none
equals another; every tenth is there a second time with one other line. Sampling looks for near-duplicates and secrets,
and has a replay of a tenth as many files. Each stage is a process of its own on one core; the peak is the resident
memory of that process, as the kernel counts it. Rows that `--out` already has, of other numbers or stages, stay.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

MODEL = Path(__file__).parents[1] / "models" / "codellama-tiny"
STRETCH, STRETCHES = 10, 4
"""Lines of a stretch, and stretches of a file."""


def texts(count: int, seed: int) -> Iterator[str]:
    """Files of real lines."""
    chosen, stretches = random.Random(seed), list[str]()
    paths = sorted({path for name in ("stdlib", "purelib") for path in Path(sysconfig.get_paths()[name]).rglob("*.py")})
    for path in chosen.sample(paths, min(2000, len(paths))):
        lines = path.read_bytes().decode("utf-8", "ignore").splitlines()
        stretches += ("\n".join(lines[at : at + STRETCH]) for at in range(0, len(lines) - STRETCH, STRETCH))
    for number in range(count):
        if number % 10 != 9:
            text = "\n".join(chosen.choice(stretches) for _ in range(STRETCHES)) + "\n"
            yield text
        else:
            yield f"{text}number_{number} = {number}\n"


def write_table(file: Path, count: int, seed: int) -> None:
    """A table with what sampling calls its columns, in repositories of some hundred files."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([("repo", pa.string()), ("path", pa.string()), ("content", pa.large_string())])
    with pq.ParquetWriter(file, schema) as writer:
        rows: list[dict[str, str]] = []
        for number, text in enumerate(texts(count, seed)):
            repo, path = place(number, count, seed)
            rows.append({"repo": repo, "path": path, "content": text})
            if len(rows) == 4096:
                writer.write_table(pa.Table.from_pylist(rows, schema))
                rows = []
        writer.write_table(pa.Table.from_pylist(rows, schema))


def write_folder(folder: Path, count: int, seed: int) -> None:
    """The same on disk."""
    for number, text in enumerate(texts(count, seed)):
        file = folder.joinpath(*place(number, count, seed))
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def place(number: int, count: int, seed: int) -> tuple[str, str]:
    """Repository and path. Near-duplicates lie in other repositories."""
    return f"s{seed}-{number % max(40, count // 500)}", f"p{number // 1000 % 100}/{number}.py"


def sampling(kind: str, corpus: Path, replay: Path, files: int, out: Path) -> dict[str, Any]:
    from tasks.sampling import SamplingConfig, run_sampling

    def source(path: Path) -> dict[str, Any]:
        if kind == "local":
            return {"kind": kind, "paths": [str(path)], "repositories": "top-level"}
        return {"kind": kind, "paths": [str(path)], "columns": {"repo": "repo", "path": "path"}}

    config = SamplingConfig.model_validate(
        {
            "source": source(corpus),
            "files": files,
            "near_duplicates": 0.7,
            "secrets": "replace",
            "replay": {"share": 0.05, "source": source(replay), "files": files // 10},
        }
    )
    found = run_sampling(config, workdir=out)
    (out / "handle.json").write_text(found.model_dump_json())
    return {"files": found.train.files + found.held_out.files}


def tokenization(sample: Path, out: Path) -> dict[str, Any]:
    from artifacts.schema import DatasetSample
    from tasks.models.base_model import ModelConfig, locate
    from tasks.tokenization import TokenizationConfig, run_tokenization

    handle = DatasetSample(path=sample, **json.loads((sample / "handle.json").read_text()))
    changes = {"format": "fim", "context": {"share": 0.3, "max_tokens": 64}, "syntax_rate": 0.5}
    model = locate(ModelConfig(name=str(MODEL)))
    found = run_tokenization(TokenizationConfig.model_validate(changes), sample=handle, model=model, workdir=out)
    (out / "handle.json").write_text(found.model_dump_json())
    return {"chunks": found.train.chunks + found.held_out.chunks}


def prompts(sample: Path, tokens: Path, out: Path) -> dict[str, Any]:
    """What is asked, behind other files of the repository as well."""
    from artifacts.schema import DatasetSample, TokenizedDataset
    from tasks.models.base_model import ModelConfig, locate
    from tasks.prompts import PromptsConfig, run_prompts

    chosen = DatasetSample(path=sample, **json.loads((sample / "handle.json").read_text()))
    tokenized = TokenizedDataset(path=tokens, **json.loads((tokens / "handle.json").read_text()))
    config, model = PromptsConfig(context_tokens=256), locate(ModelConfig(name=str(MODEL)))
    found = run_prompts(config, model=model, sample=chosen, tokens=tokenized, workdir=out)
    return {"held_out": chosen.held_out.files, "prompts": sum(suite.rows for suite in found.suites)}


def peak_gib() -> float:
    """Of this process since it was started. (What `getrusage` tells has its parent's in it.)"""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) / 2**20, 3)


def measured(name: str, folder: Path, files: int) -> dict[str, Any]:
    """One stage in a process of its own."""
    command = [sys.executable, "-m", "bench.many_files", "--one", name, "--folder", str(folder), "--files", str(files)]
    settings = {"OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, env={**os.environ, **settings}, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{files} files, {name}: {found}", flush=True)
    return found


def one(name: str, folder: Path, files: int) -> dict[str, Any]:
    """In the process that is measured."""
    out = folder / f"out-{name}"
    out.mkdir()
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "table": lambda: sampling("table", folder / "own.parquet", folder / "general.parquet", files, out),
        "local": lambda: sampling("local", folder / "own", folder / "general", files, out),
        "tokenization": lambda: tokenization(folder / "out-table", out),
        "prompts": lambda: prompts(folder / "out-table", folder / "out-tokenization", out),
    }
    begun, before = time.perf_counter(), time.process_time()
    found = work[name]()
    wall, cpu = time.perf_counter() - begun, time.process_time() - before
    return {**found, "peak_gib": peak_gib(), "cpu_s": round(cpu, 1), "wall_s": round(wall, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, nargs="+", default=[2000, 20_000])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--stages", nargs="+", default=["table", "tokenization", "prompts", "local"])
    parser.add_argument("--one", help="used by itself")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.folder, *options.files)))
        return
    rows: dict[str, dict[str, Any]] = {}
    if options.out and options.out.exists():
        rows = json.loads(options.out.read_text())
    for files in options.files:
        with tempfile.TemporaryDirectory() as folder:
            for name, count, seed in (("own", files, 0), ("general", files // 10, 1)):
                write_table(Path(folder, f"{name}.parquet"), count, seed)
                if "local" in options.stages:
                    write_folder(Path(folder, name), count, seed)
            found = {name: measured(name, Path(folder), files) for name in options.stages}
            rows[str(files)] = {**rows.get(str(files), {}), **found}
        if options.out:
            options.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
