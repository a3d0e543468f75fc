"""Greedy answers on this machine: transformers' `generate`, one prompt at a time, against the evaluation's batches.

    python -m bench.answers [--out bench/results/answers.json] [--prompts 32] [--alone 4] [--rounds 3]

The built-in model in int8 on the CPU; the prompts, the ends and the mixture are those of the evaluation: lines to
complete, lines and blocks to fill in, from the standard library; and answers of 48 tokens, which nothing ends early.
One thread, timed by what it uses of the processor, so that what else the machine does hardly counts. Both must give the
same answers. `speedup` is that of a whole evaluation with its default numbers of prompts. `generate` is timed twice:
with nothing but EOS to end at, as it is by itself (`plain`: it writes on to the limit, the rest is cut off afterwards),
and told by hand where the evaluation's answers end (`alone`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from artifacts.rows import write_rows
from artifacts.schema import Plan
from tasks.backends.transformers.answers import Decoding, generate
from tasks.generation import GenerationConfig
from tasks.generation.work import Answering
from tasks.models.loading import load_base
from tasks.models.vocabulary import CodeTokenizer, load_tokenizer
from tasks.prompts import PromptsConfig
from tasks.prompts.files import HeldOutFiles
from tasks.prompts.gaps import Item, wanted_of
from tasks.prompts.stage import SUITES

BASE = Path(__file__).parents[1] / "models" / "codellama-tiny"
PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=1, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
Prompts = Sequence[Sequence[int]]


def files(folder: Path) -> HeldOutFiles:
    """Modules of the standard library, a repository each, in a table in this folder."""
    modules = sorted(Path(os.__file__).parent.glob("[a-m]*.py"))
    rows = [
        {"repo": path.stem, "path": path.name, "language": "Python", "content": path.read_text(encoding="utf-8")}
        for path in modules
    ]
    write_rows(rows, folder / "held_out.parquet", dict.fromkeys(("repo", "path", "language", "content"), "string"))
    return HeldOutFiles((folder / "held_out.parquet",), folder)


def alone(model: Any, asked: Prompts, decoding: Decoding) -> list[list[int]]:
    """transformers' `generate`, one prompt after the other."""
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": decoding.max_new_tokens, "pad_token_id": 0}
    settings |= (
        {"eos_token_id": sorted(decoding.stop)} if decoding.stop else {"min_new_tokens": decoding.max_new_tokens}
    )
    answers = []
    for prompt in asked:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        made = model.generate(input_ids=ids, attention_mask=mask, **settings)
        answers.append(made[0, len(prompt) :].tolist())
    return answers


def seconds(
    work: Callable[[Any, Prompts, Decoding], list[list[int]]], model: Any, asked: Prompts, decoding: Decoding
) -> float:
    """Of the processor, for one answer."""
    started = time.process_time()
    work(model, asked, decoding)
    return (time.process_time() - started) / len(asked)


def decoding_of(suite: str, items: Sequence[Item], tokenizer: CodeTokenizer) -> Decoding:
    rows = [asdict(item) for item in items]
    return Answering(suite, rows, tokenizer, GenerationConfig().batch_size)._decoding([item.start for item in items])


def measure(
    model: Any, asked: Prompts, decoding: Decoding, eos: int | None, options: argparse.Namespace
) -> dict[str, list[float]]:
    """Rounds of some prompts one at a time, others each round, and of all in batches."""
    plain = replace(decoding, stop=frozenset({eos}) if eos is not None and decoding.stop else frozenset())
    asked, every = sorted(asked, key=len), len(asked) // options.alone
    assert alone(model, asked[:2], decoding) == generate(model, asked[:2], decoding), "both give the same answers"
    rounds = [
        (
            seconds(alone, model, asked[number % every :: every], plain),
            seconds(alone, model, asked[number % every :: every], decoding),
            seconds(generate, model, asked, decoding),
        )
        for number in range(options.rounds)
    ]
    return {
        name: list(times) for name, times in zip(("plain", "alone", "batched"), zip(*rounds, strict=True), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench/results/answers.json"))
    parser.add_argument("--prompts", type=int, default=32)
    parser.add_argument("--alone", type=int, default=4, help="prompts that are timed one at a time")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    config, tokenizer, model = PromptsConfig(), load_tokenizer(BASE), load_base(BASE, "int8", PLAN)
    found: dict[str, dict[str, list[float]]] = {}
    decodings: dict[str, Decoding] = {}
    for suite, choose in SUITES.items():
        few = config.model_copy(update={f"{suite}_prompts": options.prompts})
        with tempfile.TemporaryDirectory() as folder:
            items = choose(files(Path(folder)), tokenizer, few)
        asked, decodings[suite] = [item.prompt_ids for item in items], decoding_of(suite, items, tokenizer)
        found[suite] = measure(model, asked, decodings[suite], tokenizer.eos, options)
        print(suite, json.dumps(found[suite]), flush=True)
    endless = replace(decodings["line"], stop=frozenset())
    found["48 tokens"] = measure(model, asked, endless, tokenizer.eos, options)
    shares = {suite: wanted_of(suite, config) for suite in SUITES}
    whole = {
        way: [sum(shares[suite] * found[suite][way][number] for suite in SUITES) for number in range(options.rounds)]
        for way in ("plain", "alone", "batched")
    }
    record: dict[str, Any] = {
        "machine": f"CPU, {os.cpu_count()} cores, 1 thread, processor time",
        "model": "codellama-tiny, int8",
        "batch_size": GenerationConfig().batch_size,
        "prompts": shares,
    }
    record |= {
        f"{way}_per_s": round(sum(shares.values()) / statistics.median(times), 2) for way, times in whole.items()
    }
    for over, name in (("alone", "speedup"), ("plain", "speedup_over_plain")):
        by_suite = {suite: _ratio(one[over], one["batched"]) for suite, one in found.items()}
        record |= {name: _ratio(whole[over], whole["batched"]), f"{name}_by_suite": by_suite}
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


def _ratio(slow: list[float], fast: list[float]) -> float:
    """Of the rounds' times, the median."""
    return round(statistics.median(one / other for one, other in zip(slow, fast, strict=True)), 2)


if __name__ == "__main__":
    main()
