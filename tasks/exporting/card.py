"""The model card: what the model is, what it was made of and how, and the lines that load it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifacts.escaping import fenced, quoted, visible
from artifacts.schema import DatasetSample, TokenizedDataset
from artifacts.units import UNITS
from tasks.exporting.contract import Export, Ingredients

EVALUATION = "## Evaluation"
"""The last part. A run's report has the card with another one, since the export is there before it is judged."""

_FORMATS = {
    "causal": "plain text",
    "fim": "plain text and fill-in-the-middle",
    "instruct": "instructions derived from the files, loss on the answers",
}


def write_card(made: Ingredients, form: Export, folder: Path) -> None:
    """Write `README.md`, with equal bytes for equal ingredients: no times, no speeds."""
    title = quoted(made.base_name.rstrip("/").rsplit("/", 1)[-1])
    parts = [
        _front_matter(made, form),
        f"# {title}{form.heading}",
        form.introduction(made),
        "## How to load it",
        fenced(form.loading_lines(made.base_name, made.base_revision, "."), "python"),
        "## How to serve it",
        fenced(form.serving_lines(made, "."), "sh"),
        "## Data",
        _data(made.sample, made.tokens),
        "## Training",
        _training(made),
        EVALUATION,
        "Not in this card, which was written before: beside the run's report, `cards/` has it with the results.",
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _front_matter(made: Ingredients, form: Export) -> str:
    """Metadata as the hub reads it: https://huggingface.co/docs/hub/model-cards#model-card-metadata."""
    import yaml

    told: dict[str, Any] = {"library_name": form.library}
    told["pipeline_tag"] = "text-generation"
    if made.base_revision:
        told["base_model"] = visible(made.base_name)
    told |= {**_license(made.base), "tags": ["code", "lora", "codetune"]}
    return f"---\n{yaml.safe_dump(told, sort_keys=False, allow_unicode=True, width=1000)}---"


_LICENSE_FIELDS = {
    "license": re.compile(r"[\w.+ ()-]{1,100}"),
    "license_name": re.compile(r"[\w.+ ()-]{1,100}"),
    "license_link": re.compile(r"(?:https?://[\w.-]+(?:/[\w.~/%+-]*)?|[\w./-]+)"),
}
"""What the hub reads of a licence, and the form that it has: pages and tools show it as it stands."""


def _license(base: Path) -> dict[str, str]:
    """The licence by the base model's own card: what is derived from it stands under the same."""
    import yaml

    card = base / "README.md"
    text = card.read_text(encoding="utf-8", errors="replace") if card.exists() else ""
    if not text.startswith("---\n"):
        return {}
    front = text[4:].split("\n---", 1)[0]
    # line by line: the rest may be of any form
    lines = [line for line in front.splitlines() if line.startswith(tuple(f"{name}:" for name in _LICENSE_FIELDS))]
    try:
        told = yaml.safe_load("\n".join(lines)) or {}
    except yaml.YAMLError:
        return {}
    return {
        name: told[name]
        for name, form in _LICENSE_FIELDS.items()
        if isinstance(told.get(name), str) and form.fullmatch(told[name])
    }


def _data(sample: DatasetSample, tokens: TokenizedDataset) -> str:
    general = f", and at most {sample.replay.size.files:,} of general code" if sample.replay else ""
    rows = [
        ("Source", sample.source),
        ("Training files", f"{sample.own.files:,} of {UNITS['repository'].count(sample.own.repositories)}{general}"),
        _held_out(sample),
        ("Languages", _counts(sample.languages)),
        ("Licences", _counts(sample.licenses)),
        ("Format", f"{_FORMATS[tokens.format]}, sequences of {tokens.max_length} tokens"),
        ("Training tokens at hand", f"{tokens.train.tokens:,} in {tokens.train.chunks:,} sequences"),
    ]
    return _table(rows)


def _held_out(sample: DatasetSample) -> tuple[str, str]:
    unit, size = UNITS[sample.held_out_by], sample.held_out
    if sample.added_lines:
        said = f"{sample.added_lines:,} lines, added later to {unit.count(sample.units or 0)}. {unit.proves}"
        return "Held-out lines", said
    proves = "" if sample.held_out_by == "repository" else f". {unit.proves}"
    return "Held-out files", f"{size.files:,} of {size.repositories:,} other {unit.many}{proves}"


def _training(made: Ingredients) -> str:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    lora, plan, checkpoint = made.adapter.settings, made.plan, made.checkpoint
    rates = pq.read_table(checkpoint.path / "metrics.parquet", columns=["learning_rate"]).column(0)
    # of the weights, not of what was asked for
    names = ", ".join(sorted({name.rpartition(".")[2] for name in made.adapter.modules}))
    names += f" ({len(made.adapter.modules)} layers)"
    batch = f"{plan.effective_batch} sequences"
    if not checkpoint.fallbacks:  # else it was not always the plan's
        batch += f" ({plan.micro_batch} at once × {plan.effective_batch // plan.micro_batch})"
    rows = [
        (
            "Method",
            f"LoRA, r = {lora['r']}, alpha = {lora['lora_alpha']}, dropout = {lora['lora_dropout']}, on {names}",
        ),
        ("Trained parameters", f"{checkpoint.trainable_parameters:,} of {checkpoint.total_parameters:,}"),
        ("Base weights in training", made.quantization if made.quantization != "none" else "not quantized"),
        ("Arithmetic", f"{plan.precision_in_words}, adapter weights in fp32"),
        *([("Load it in", "bf16 or fp32: fp16 may overflow in the residual stream")] if plan.fp32_residual else []),
        ("Batch", batch),
        ("Highest learning rate", f"{pc.max(rates).as_py():.3g}"),
        ("Optimizer steps", f"{checkpoint.steps:,}"),
        ("Tokens trained on", f"{checkpoint.tokens:,}"),
        *([("Adapter weight", f"{made.scale:g} of what was trained")] if made.scale != 1 else []),
        ("Training loss", f"{checkpoint.first_loss:.4f} → {checkpoint.last_loss:.4f} nats per token"),
    ]
    note = "The loss is the mean over the first and over the last tenth of the steps."
    return f"{_table(rows)}\n\n{note}"


def _table(rows: list[tuple[str, str]]) -> str:
    return "\n".join(["| | |", "| --- | --- |", *(f"| {name} | {quoted(value)} |" for name, value in rows)])


def _counts(counts: Mapping[str, int]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{name} {count:,}" for name, count in ordered)
