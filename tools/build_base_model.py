"""Make the built-in base model (`models/codellama-tiny`) from nothing but an index of packages and a GPU.

    python tools/build_base_model.py corpus --work WORK --human-eval HumanEval.jsonl.gz
    python tools/build_base_model.py tokenizer --work WORK --out MODEL
    python tools/build_base_model.py train --work WORK --out MODEL --steps 17000
    python tools/build_base_model.py evaluate --work WORK --out MODEL
    python tools/build_base_model.py card --work WORK --out MODEL

Each step reads what the one before wrote: WORK gets wheels, corpus and encoded passes (about 4 GB), MODEL the
model. Training takes about eight minutes on one H200; without a GPU it runs too, for trying it out at a small
size (`--steps 20 --batch 4 --layers 2`).
"""

import argparse
import dataclasses
import json
from pathlib import Path

from base_model import card, corpus, evaluation, tokenizer, training

VOCABULARY = 4096
TOKENIZER_SHARE = 6
"""The tokenizer learns from every sixth file."""


def run_corpus(options: argparse.Namespace) -> None:
    """Fetch the wheels and write train.jsonl.xz, held-out.jsonl.xz and sources.json."""
    corpus.build_corpus(options.work, options.human_eval, offline=options.offline)


def run_tokenizer(options: argparse.Namespace) -> None:
    """Learn the tokenizer and say how well it compresses packages that it has not seen."""
    texts = [file.text for file in corpus.read_corpus(options.work / "train.jsonl.xz")[::TOKENIZER_SHARE]]
    learned = tokenizer.train_tokenizer(texts, options.vocabulary)
    tokenizer.save_tokenizer(learned, options.out)
    unseen = [file.text for file in corpus.read_corpus(options.work / "held-out.jsonl.xz")]
    print(f"{tokenizer.characters_per_token(learned, unseen):.3f} characters per token on unseen packages")


def run_train(options: argparse.Namespace) -> None:
    """Train on the corpus and write the model."""
    names = [field.name for field in dataclasses.fields(training.TrainingConfig)]
    config = training.TrainingConfig(**{name: getattr(options, name) for name in names})
    training.train(options.work / "train.jsonl.xz", options.out, options.work / "passes", config)


def run_evaluate(options: argparse.Namespace) -> None:
    """Measure the model on packages that it never saw."""
    figures = evaluation.evaluate(
        options.out, options.work / "held-out.jsonl.xz", count=options.count, batch=options.batch
    )
    print(json.dumps(figures, indent=1))


def run_card(options: argparse.Namespace) -> None:
    """Write README.md and sources.json beside the model from the recorded figures."""
    card.write_card(options.out, options.work / "sources.json")


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    steps = {
        "corpus": run_corpus,
        "tokenizer": run_tokenizer,
        "train": run_train,
        "evaluate": run_evaluate,
        "card": run_card,
    }
    made: dict[str, argparse.ArgumentParser] = {}
    for name, function in steps.items():
        made[name] = commands.add_parser(name, help=function.__doc__, description=function.__doc__)
        made[name].add_argument("--work", type=Path, required=True, help="folder of wheels and corpus")
        made[name].set_defaults(function=function)
        if name != "corpus":
            made[name].add_argument("--out", type=Path, required=True, help="folder of the model")
    made["corpus"].add_argument("--human-eval", type=Path, required=True, help="HumanEval.jsonl.gz, to keep it out")
    made["corpus"].add_argument("--offline", action="store_true", help="use the wheels that are there")
    made["tokenizer"].add_argument("--vocabulary", type=int, default=VOCABULARY)
    made["evaluate"].add_argument("--count", type=int, default=2000, help="lines to complete and to infill")
    made["evaluate"].add_argument("--batch", type=int, default=500, help="prompts at a time")
    for field in dataclasses.fields(training.TrainingConfig):
        flag = "--" + field.name.replace("_", "-")
        made["train"].add_argument(flag, type=field.type, default=field.default)  # type: ignore[arg-type]
    return parser.parse_args()


if __name__ == "__main__":
    options = parse()
    options.function(options)
