"""Tokens and near-duplicates a second: the stages beside what others would use for the same.

    pip install --target PEERS --no-deps text-dedup==0.4.0 scipy click click-option-group ftfy regex
    python -m bench.data --peers PEERS [--files 3000] [--repeats 3] [--out bench/results/data.json]

Each measurement is a process of its own on one core, in turn, and tells the processor time that it took without what it
imports; the median of the repeats counts. The files are Python files of the installation, of which every tenth stands
there a second time with a few other lines.

- tokenization: the stage, from Parquet to chunks in Parquet, beside `datasets.map` with the same tokenizer, which
  leaves ids that are not cut into chunks.
- near-duplicates: signatures, the index and the exact comparison, from texts in memory to the files that are left,
  beside text-dedup's MinHash (256 permutations, runs of five, 0.7), from Parquet to a saved data set.
- sampling: the whole stage with and without `near_duplicates`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

MODEL = Path(__file__).parents[1] / "models" / "codellama-tiny"
THRESHOLD = 0.7


def write_corpus(folder: Path, files: int) -> int:
    """`corpus.parquet` with what sampling calls its columns; returns its bytes of text."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    paths = [path for name in ("stdlib", "purelib") for path in Path(sysconfig.get_paths()[name]).rglob("*.py")]
    chosen = random.Random(0)
    rows: list[dict[str, Any]] = []
    for path in chosen.sample(sorted(set(paths)), len(set(paths))):
        text = path.read_bytes().decode("utf-8", "ignore")
        if not 200 < len(text) < 200_000:
            continue
        rows.append({"repo": f"r{len(rows) % 97}", "path": f"{len(rows)}.py", "content": text})
        if len(rows) % 10 == 9:
            lines = text.splitlines()
            lines.insert(chosen.randrange(len(lines)), f"edited_{len(rows)} = {len(rows)}")
            copied = "\n".join(lines[: max(5, round(0.95 * len(lines)))])
            rows.append({"repo": f"r{len(rows) % 97}", "path": f"{len(rows)}.py", "content": copied})
        if len(rows) >= files:
            break
    for row in rows:
        row |= {"language": "Python", "license": "MIT", "size": len(row["content"]), "sha256": "", "revision": ""}
    pq.write_table(pa.Table.from_pylist(rows[:files]), folder / "corpus.parquet")
    return sum(len(row["content"].encode()) for row in rows[:files])


def tokenization(corpus: Path, out: Path) -> dict[str, Any]:
    from artifacts.schema import DatasetSample, SplitSize
    from tasks.models.base_model import ModelConfig, locate
    from tasks.tokenization import TokenizationConfig, run_tokenization

    files = len(_texts(corpus))
    for side in ("train", "held_out"):
        (out / f"{side}.parquet").symlink_to(corpus)
    size = SplitSize(files=files, repositories=1, bytes=0)
    sample = DatasetSample(path=out, source="", train=size, held_out=size, languages={}, licenses={}, funnel=())
    (out / "tokens").mkdir()
    model = locate(ModelConfig(name=str(MODEL)))

    def work() -> dict[str, Any]:
        found = run_tokenization(TokenizationConfig(), sample=sample, model=model, workdir=out / "tokens")
        return {"tokens": found.train.tokens + found.held_out.tokens}  # both sides are the corpus

    return timed(work, halves=True)  # of both sides


def datasets_map(corpus: Path, out: Path) -> dict[str, Any]:
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(MODEL)

    def work() -> dict[str, Any]:
        rows = load_dataset("parquet", data_files=str(corpus), split="train", cache_dir=str(out))
        done = rows.map(
            lambda batch: {"input_ids": tokenizer(batch["content"])["input_ids"]},
            batched=True,
            remove_columns=rows.column_names,
        )
        assert len(done) == len(rows)
        return {}

    return timed(work)


def near_duplicates(corpus: Path, out: Path) -> dict[str, Any]:
    import hashlib

    from tasks.contamination import bands
    from tasks.sampling.candidates import Row, SourceFile
    from tasks.sampling.pool import Pool

    texts = _texts(corpus)

    def work() -> dict[str, Any]:
        with Pool(out / "pool", len(texts), seed=0) as pool:
            for number, text in enumerate(texts):
                content = text.encode()
                row = Row("r", f"{number}.py", "MIT", "Python", "")
                pool.add(SourceFile(row, content, hashlib.sha256(content).digest(), bands(text, THRESHOLD)))
            exact = len(texts) - pool.different
            return {"dropped": exact + pool.thin(THRESHOLD)}

    return timed(work)


def text_dedup(corpus: Path, out: Path) -> dict[str, Any]:
    from text_dedup.minhash import main  # type: ignore[import-not-found]

    given = ["--path", "parquet", "--data_files", str(corpus), "--split", "train", "--column", "content"]
    given += ["--cache_dir", str(out / "cache"), "--output", str(out / "deduplicated"), "--num_proc", "1"]
    given += ["--ngram", "5", "--num_perm", "256", "--threshold", str(THRESHOLD), "--min_length", "20"]

    def work() -> dict[str, Any]:
        with redirect_stdout(sys.stderr):
            main(given, standalone_mode=False)
        return {}

    found = timed(work)
    from datasets import load_from_disk

    return {**found, "dropped": len(_texts(corpus)) - len(load_from_disk(str(out / "deduplicated")))}


def sampling(corpus: Path, out: Path, near: float | None = None) -> dict[str, Any]:
    from tasks.sampling import SamplingConfig, run_sampling

    columns = {"repo": "repo", "path": "path"}
    source = {"kind": "table", "paths": [str(corpus)], "columns": columns}
    config = SamplingConfig.model_validate({"source": source, "files": 1_000_000, "near_duplicates": near})

    def work() -> dict[str, Any]:
        found = run_sampling(config, workdir=out)
        return {"files": found.train.files + found.held_out.files}

    return timed(work)


def sampling_thinned(corpus: Path, out: Path) -> dict[str, Any]:
    return sampling(corpus, out, THRESHOLD)


def timed(work: Callable[[], dict[str, Any]], *, halves: bool = False) -> dict[str, Any]:
    """What work returns, with its wall and processor time in seconds, of its child processes as well."""

    def used() -> float:
        return time.process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])

    begun, before = time.perf_counter(), used()
    found = work()
    wall, cpu = time.perf_counter() - begun, used() - before
    by = 2 if halves else 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {**found, "wall_s": wall / by, "cpu_s": cpu / by, "peak_gib": round(peak, 2)}


def _texts(corpus: Path) -> list[str]:
    import pyarrow.parquet as pq

    texts: list[str] = pq.read_table(corpus, columns=["content"])["content"].to_pylist()
    return texts


WORK: dict[str, Callable[[Path, Path], dict[str, Any]]] = {
    one.__name__: one for one in (tokenization, datasets_map, near_duplicates, text_dedup, sampling, sampling_thinned)
}


def measured(name: str, corpus: Path, peers: Path | None) -> dict[str, Any] | None:
    """One measurement in a process of its own; None where it cannot be made."""
    settings = {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    places = os.pathsep.join([str(Path(__file__).parents[1]), *([str(peers)] if peers else [])])
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "bench.data", "--one", name, "--corpus", str(corpus), "--folder", folder]
        environment = {**os.environ, **settings, "PYTHONPATH": places, "HF_HOME": folder}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {done.stderr.strip().splitlines()[-1]}", flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"{name}: {found}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=3000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--peers", type=Path, help="a folder with text-dedup")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=WORK, help="used by itself")
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.one:
        with redirect_stderr(sys.stderr):
            print(json.dumps(WORK[options.one](options.corpus, options.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        size = write_corpus(Path(folder), options.files)
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in WORK}
        for _ in range(options.repeats):
            for name, done in runs.items():
                found = measured(name, Path(folder) / "corpus.parquet", options.peers)
                done += [found] if found else []
    rows = {}
    for name, done in runs.items():
        if done:
            cpu = median(one["cpu_s"] for one in done)
            rows[name] = {**done[0], "cpu_s": round(cpu, 2), "mb_per_cpu_s": round(size / 1e6 / cpu, 2)}
            rows[name]["wall_s"] = round(median(one["wall_s"] for one in done), 2)
    machine = {"cpu": platform.processor() or platform.machine(), "python": platform.python_version()}
    told = {
        "files": options.files,
        "megabytes": round(size / 1e6, 1),
        "repeats": options.repeats,
        **machine,
        "runs": rows,
        "times_as_fast": {
            f"{ours} beside {others}": round(rows[others]["cpu_s"] / rows[ours]["cpu_s"], 2)
            for ours, others in (("tokenization", "datasets_map"), ("near_duplicates", "text_dedup"))
            if ours in rows and others in rows
        },
    }
    print(json.dumps(told, indent=1))
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
