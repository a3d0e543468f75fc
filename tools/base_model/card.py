"""The model card: what the model is, what it was made from, how it was made, what it can do."""

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
tags: [code]
---

# codellama-tiny

A small code model with Code Llama's traits: a `LlamaForCausalLM` of {parameters:,} parameters
({layers} layers, hidden {hidden}, MLP {mlp}, {heads} heads, tied embeddings, rope theta 1e6, no pad token; fp16),
so that a pipeline for `codellama/CodeLlama-7b-Instruct-hf` can be run for real on a CPU. It is a base model: it
continues and infills Python, it does not follow instructions, and nobody should ship its code unread.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("models/codellama-tiny")
tokenizer = AutoTokenizer.from_pretrained("models/codellama-tiny")
```

## What it can do
Measured in {precision} on {held_out_files:,} files of packages that it never saw
({held_out_names}).

| what | result | how |
| --- | --- | --- |
| loss | {loss:.3f} nats/token, {per_character:.3f} nats/character | {tokens:,} tokens, each file in windows of 1024 |
| loss, short context | {loss_256:.3f} nats/token, {per_character_256:.3f} nats/character | the same in windows of 256 |
| next line, exact | {next_line:.1%} | {questions:,} lines, greedy; at most {prefix} tokens before, up to a newline |
| infilled line, exact, PSM | {psm:.1%} | the same lines, also at most {suffix} tokens after; must stop by itself |
| infilled line, exact, SPM | {spm:.1%} | likewise; SPM gives no sign where the middle starts, so it often runs on |

Lines are drawn evenly over files, have at least four characters besides indentation, and count as exact when they
agree to the character, indentation included and trailing white space aside. Most tokens of a short window have
little before them: hence the higher loss there, which is also where a run with `max_length` 256 starts.

## Tokenizer
A BPE of 4096 entries with byte fallback. Ids 0, 1, 2 are `<unk>`, `<s>`, `</s>`, then come the 256 bytes; the last
four ids, 4092 to 4095, are `▁<PRE>`, `▁<SUF>`, `▁<MID>`, `▁<EOT>`. Newline, tab and carriage return are byte tokens, so
a newline never merges with the indentation after it; runs of up to 16 spaces are tokens; digits stand alone. `<s>` is
added by default. 3.17 characters per token on unseen packages; in a trial 6144 entries gave 6 % more and 8192 gave
9 % more, but cost 0.5 and 1.0 million parameters of the eight that there are.

- `tokenizer_class` is `PreTrainedTokenizerFast`. In transformers 5.23 the class `CodeLlamaTokenizer` (and
  `LlamaTokenizer`) rebuilds the backend without the file's normalizer: one leading space of a text is lost, a literal
  `<FILL_ME>` starts infilling, and `<FILL_ME>` gets id 4096, outside the embedding. With the plain class
  the normalizer of `tokenizer.json` (as in Llama's own file) holds, and
  `decode(encode(text, add_special_tokens=False)) == text` for real files. On text that does not start with a space
  both classes give the same ids.
- As with Code Llama, special tokens written in a text (`<s>`) are taken as special unless
  `split_special_tokens=True` is passed, a literal `▁` (U+2581) decodes to a space, and decoding drops the one
  leading space: join ids before decoding.
- Infilling prompts are built at id level: `<s> ▁<PRE> prefix ▁<SUF> suffix ▁<MID>` (PSM) or
  `<s> ▁<PRE> ▁<SUF> suffix ▁<MID> prefix` (SPM); the answer ends with `▁<EOT>`. The suffix has no `▁` put before it.

## How it was made
`tools/build_base_model.py` makes it from nothing but an index of packages and a GPU. {tokens_seen:,.0f} million tokens
({steps:,} steps of {batch} × {context}) in {seconds:.0f} s on one {device}: half of the files plain, half as infilling
examples (PSM and SPM alike; middles mostly lines, ends of lines and blocks, weighted {middle_weight:g} times in the
loss), drawn anew in every pass; Muon at {matrix_rate:g} for the matrices, AdamW at {vector_rate:g} for embedding and
norms, linearly to zero; bf16 autocast. It was trained on rows of {context} tokens; the 2048 positions that the
configuration allows were never used beyond that.

## What it was trained on
{files:,} Python files, {megabytes:.0f} MB, of {packages} packages under permissive licences (`sources.json` has the
same with what was dropped and why). At most 6 MB per package, a quarter of it tests. Left out: vendored and
generated files, tables, exact and near duplicates, and every file that shares more than a tenth of its code with
the **standard library** (by shingles of three lines against the whole of it, tests included) or with a held-out
package, or any telling line with **HumanEval**. So neither of these two was seen.

| package | version | licence | files | MB |
| --- | --- | --- | ---: | ---: |
{table}

Held out: {held_out_table}.

## Licence
Apache-2.0, like the project (`LICENSE` at its top). The files that it was trained on are under their authors' licences:

| licence | packages |
| --- | ---: |
{licences}
"""


def read(path: Path) -> Any:
    """Read a JSON file."""
    return json.loads(path.read_text())


def write_card(folder: Path, sources: Path) -> None:
    """Write README.md from training.json, evaluation.json and sources.json, and put the latter beside it."""
    training, evaluation, record = read(folder / "training.json"), read(folder / "evaluation.json"), read(sources)
    train, held_out = record["train"], record["held-out"]
    rows = [f"| {p['name']} | {p['version']} | {p['licence']} | {p['files']} | {p['bytes'] / 1e6:.2f} |" for p in train]
    by_licence = Counter(package["licence"] for package in train)
    card = CARD.format(
        **training["config"] | {"steps": training["steps"]},
        parameters=training["parameters"],
        seconds=training["seconds"],
        device=training["device"],
        tokens_seen=training["tokens"] / 1e6,
        precision=evaluation["precision"],
        loss=evaluation["loss"]["nats_per_token"],
        per_character=evaluation["loss"]["nats_per_character"],
        tokens=evaluation["loss"]["tokens"],
        loss_256=evaluation["loss_256"]["nats_per_token"],
        per_character_256=evaluation["loss_256"]["nats_per_character"],
        next_line=evaluation["next_line_exact"],
        psm=evaluation["infill_psm_exact"],
        spm=evaluation["infill_spm_exact"],
        questions=evaluation["questions"],
        prefix=evaluation["prefix_tokens"],
        suffix=evaluation["suffix_tokens"],
        held_out_names=", ".join(p["name"] for p in held_out),
        held_out_files=sum(p["files"] for p in held_out),
        held_out_table=", ".join(f"{p['name']} {p['version']} ({p['licence']})" for p in held_out),
        files=sum(p["files"] for p in train),
        megabytes=sum(p["bytes"] for p in train) / 1e6,
        packages=len(train),
        table="\n".join(rows),
        licences="\n".join(f"| {name} | {count} |" for name, count in by_licence.most_common()),
    )
    (folder / "README.md").write_text(card)
    if sources.resolve() != (folder / "sources.json").resolve():
        shutil.copyfile(sources, folder / "sources.json")
