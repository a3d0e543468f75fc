"""Greedy answers on this machine: transformers' `generate`, one prompt at a time, against the evaluation's batches.

    python -m bench.answers --out answers.json [--prompts 96] [--alone 8] [--new-tokens 48]

The built-in model in int8 on the CPU, prompts as the evaluation asks them, from the standard library. Nothing ends an
answer early, so that both make equally many tokens. Each is run once before it is timed.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable, Sequence
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


def alone(model: Any, asked: Prompts, new_tokens: int) -> None:
    """transformers' `generate` as most people call it."""
    for prompt in asked:
        ids = torch.tensor([prompt])
        settings = {"do_sample": False, "min_new_tokens": new_tokens, "max_new_tokens": new_tokens, "pad_token_id": 0}
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), **settings)


def batched(model: Any, asked: Prompts, new_tokens: int) -> None:
    """As the evaluation does, with its default batch size."""
    generate(model, asked, Decoding(GenerationConfig().batch_size, new_tokens, frozenset(), 0))


def rate(work: Callable[[Any, Prompts, int], None], model: Any, asked: Prompts, new_tokens: int) -> float:
    """Completions per second."""
    work(model, asked[:2], 2)
    started = time.perf_counter()
    work(model, asked, new_tokens)
    return len(asked) / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="where to write the figures (JSON)")
    parser.add_argument("--prompts", type=int, default=96)
    parser.add_argument("--alone", type=int, default=8, help="prompts that are timed one at a time")
    parser.add_argument("--new-tokens", type=int, default=48)
    arguments = parser.parse_args()
    torch.set_num_threads(2)
    model, asked = load_base(BASE, "int8", PLAN), prompts(arguments.prompts)
    # one after the other and again: a busy machine is as busy for both
    pairs = [
        (
            rate(alone, model, asked[: arguments.alone], arguments.new_tokens),
            rate(batched, model, asked, arguments.new_tokens),
        )
        for _ in range(2)
    ]
    best = [max(column) for column in zip(*pairs, strict=True)]
    record = {
        "machine": f"CPU, {os.cpu_count()} cores, 2 threads",
        "model": "codellama-tiny, int8",
        "prompts": len(asked),
        "new_tokens": arguments.new_tokens,
        "generate_alone_per_s": round(best[0], 2),
        "batched_per_s": round(best[1], 2),
        "speedup": round(best[1] / best[0], 2),
    }
    arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record))


if __name__ == "__main__":
    main()
