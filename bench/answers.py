"""Greedy answers on this machine: transformers' `generate`, one prompt at a time, against the evaluation's batches.

    python -m bench.answers [--out bench/results/answers.json] [--prompts 32] [--alone 2] [--rounds 9]

The built-in model in int8 on the CPU, prompts as the evaluation asks them, from the standard library. Two jobs: lines
that end with their line break, and answers of 48 tokens that nothing ends early. Short rounds of one and then the
other: what else the machine does falls on both, and the ratios are worth more than the speeds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from artifacts.schema import Plan
from tasks.generation import GenerationConfig
from tasks.generation.answers import Decoding, generate
from tasks.generation.suites import SourceFile, line_items
from tasks.loading import load_base
from tasks.tokenization.vocabulary import load_tokenizer

BASE = Path(__file__).parents[1] / "models" / "codellama-tiny"
PLAN = Plan(device="cpu", precision="fp32", micro_batch=1, accumulation=1, gradient_checkpointing=False)
Prompts = Sequence[Sequence[int]]


def prompts(count: int) -> list[tuple[int, ...]]:
    """The evaluation's, for completing a line."""
    folder = Path(os.__file__).parent
    texts = ((path.stem, path.read_text(encoding="utf-8")) for path in sorted(folder.glob("[a-m]*.py")))
    files = [SourceFile(name, f"{name}.py", "Python", text) for name, text in texts]
    config = GenerationConfig(line_prompts=count)
    return [item.prompt_ids for item in line_items(files, load_tokenizer(BASE), config)]


@dataclass(frozen=True)
class Job:
    """Answers of at most so many tokens, which some end."""

    new_tokens: int
    stop: frozenset[int]


def jobs() -> dict[str, Job]:
    pieces = load_tokenizer(BASE).pieces
    breaks = frozenset(index for index, piece in enumerate(pieces) if b"\n" in piece)
    return {"lines": Job(48, breaks), "48 tokens": Job(48, frozenset())}


def alone(model: Any, asked: Prompts, job: Job) -> int:
    """transformers' `generate` as most people call it. Returns the number of tokens."""
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": job.new_tokens, "pad_token_id": 0}
    settings |= {"eos_token_id": sorted(job.stop)} if job.stop else {"min_new_tokens": job.new_tokens}
    tokens = 0
    for prompt in asked:
        ids = torch.tensor([prompt])
        tokens += len(model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)[0]) - len(prompt)
    return tokens


def batched(model: Any, asked: Prompts, job: Job) -> int:
    """As the evaluation does, with its default batch size."""
    return sum(map(len, generate(model, asked, Decoding(GenerationConfig().batch_size, job.new_tokens, job.stop, 0))))


def rate(work: Callable[[Any, Prompts, Job], int], model: Any, asked: Prompts, job: Job) -> float:
    """Completions per second."""
    started = time.perf_counter()
    work(model, asked, job)
    return len(asked) / (time.perf_counter() - started)


def measure(model: Any, asked: Prompts, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    rounds = []
    for number in range(options.rounds + 1):
        few = [asked[(number * options.alone + index) % len(asked)] for index in range(options.alone)]
        assert number or alone(model, few, job) == batched(model, few, job), "both give the same answers"
        rounds.append((rate(alone, model, few, job), rate(batched, model, asked, job)))
    timed = rounds[1:]
    one, many = (statistics.median(column) for column in zip(*timed, strict=True))
    ratios = [many / one for one, many in timed]
    return {
        "alone_per_s": round(one, 2),
        "batched_per_s": round(many, 2),
        "speedups": [round(ratio, 2) for ratio in sorted(ratios)],
        "speedup": round(statistics.median(ratios), 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/answers.json"))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--alone", type=int, default=2, help="prompts of a round that are timed one at a time")
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(2)
    load = os.getloadavg()[0]
    model, asked = load_base(BASE, "int8", PLAN), prompts(options.prompts)
    record: dict[str, Any] = {
        "machine": f"CPU, {os.cpu_count()} cores, 2 threads, load {load:.1f} before",
        "model": "codellama-tiny, int8",
        "prompts": len(asked),
        "batch_size": GenerationConfig().batch_size,
    }
    for name, job in jobs().items():
        record[name] = measure(model, asked, job, options)
        print(name, json.dumps(record[name]), flush=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
