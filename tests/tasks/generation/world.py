"""A small world to evaluate in: a base model, some held-out repositories, adapters of known worth."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from artifacts.configuration import Config
from artifacts.progress import SILENT, Progress
from artifacts.schema import (
    Comparison,
    DatasetSample,
    ExportedForm,
    ExportedModel,
    Generations,
    Plan,
    PromptSet,
    SplitSize,
    TokenizedDataset,
)
from tasks.generation import GenerationConfig, run_generation
from tasks.models.base_model import ModelConfig, ModelReference, locate
from tasks.models.loading import load_base
from tasks.models.vocabulary import encode, load_tokenizer
from tasks.prompts import PromptsConfig, run_prompts
from tasks.running.stage import P, Parts, Stage
from tasks.tokenization import TokenizationConfig, run_tokenization
from tests.conftest import SMALL_MODEL

ASKED: dict[str, Any] = {
    "max_chunks": 12,
    "line_prompts": 16,
    "fim_prompts": 8,
    "block_prompts": 4,
    "prompt_tokens": 128,
    "max_new_tokens": 24,
}
SETTINGS: dict[str, Any] = {"quantization": "none", "batch_size": 8, "cpu_threads": 1}
PLAN = Plan(
    device="cpu", precision="fp32", micro_batch=4, accumulation=1, gradient_checkpointing=False, backend="transformers"
)
SIZE = SplitSize(files=0, repositories=0, bytes=0)
EXACT = Comparison(against="", largest_difference=0, bound=0, positions=0)
NAMES = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot", "golf", "hotel")


def source(name: str) -> str:
    """A file that nobody can guess, the same in every repository but for its first line."""
    return (
        f"import {name}\n\n"
        "def quell(zeta, ombre):\n    vortex = zeta.plinth(ombre, 17)\n    return vortex.grackle() - ombre\n\n"
        "class Sprocket(Gadfly):\n    tarn = quell(84, None)\n"
    )


@dataclass(frozen=True)
class World:
    """What an evaluation takes."""

    model: ModelReference
    sample: DatasetSample
    tokens: TokenizedDataset
    retention: DatasetSample | None = None
    retention_tokens: TokenizedDataset | None = None

    def ask(self, workdir: Path, progress: Progress = SILENT, **changes: Any) -> PromptSet:
        """What is asked, `ASKED` but for the changes."""
        workdir.mkdir(parents=True, exist_ok=True)
        config = PromptsConfig(**{**ASKED, **changes})
        texts = {"sample": self.sample, "tokens": self.tokens}
        if self.retention:
            texts |= {"retention": self.retention, "retention_tokens": self.retention_tokens}
        return run_prompts(config, model=self.model, **texts, workdir=workdir, progress=progress)

    def inputs(self, exported: ExportedModel, asked: PromptSet) -> dict[str, Any]:
        parts = built_in(asked.path.with_name(f"{asked.path.name}-parts"))
        return {"model": self.model, "prompts": asked, "exported": exported, "plan": PLAN, "parts": parts}


def built_in(folder: Path) -> Parts:
    """Every part anew, in a folder below this."""

    def build(part: Stage[P], config: Config, progress: Progress, **inputs: Any) -> P:
        workdir = folder / inputs["asked"].name / "+".join(name for name, value in inputs.items() if value is not None)
        workdir.mkdir(parents=True, exist_ok=True)
        return part.run(config, **inputs, workdir=workdir, progress=progress)

    return build


def generate(place: World, exported: ExportedModel, workdir: Path, **changes: Any) -> Generations:
    """What both make of what is asked; `changes` of either's settings."""
    workdir.mkdir(exist_ok=True)
    about = {name: changes.pop(name) for name in [*changes] if name in PromptsConfig.model_fields}
    asked = place.ask(workdir.with_name(f"{workdir.name}-asked"), **about)
    config = GenerationConfig(**{**SETTINGS, **changes})
    return run_generation(config, **place.inputs(exported, asked), workdir=workdir)


def build(
    folder: Path,
    files: dict[str, str] | None = None,
    learned: str = "x = 1\n",
    *,
    retention: bool = False,
    base: Path = SMALL_MODEL,
) -> World:
    """Tokenize files, each in a repository named like it, as the held-out side; `learned` is the other one."""
    texts = files if files is not None else {name: source(name) for name in NAMES}
    columns = ("repo", "path", "language", "license", "size", "sha256", "revision", "content")
    rows = [
        (name, "main.py", "Python", "mit", len(text), hashlib.sha256(text.encode()).hexdigest(), "", text)
        for name, text in texts.items()
    ]
    schema = pa.schema([(name, pa.int64() if name == "size" else pa.string()) for name in columns])
    held_out = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in rows], schema)
    other = rows[:1] if retention else [("t", *row[1:-1], learned) for row in rows[:1]]
    train = pa.Table.from_pylist([dict(zip(columns, row, strict=True)) for row in other], schema)
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(held_out, folder / "held_out.parquet")
    pq.write_table(train, folder / "train.parquet")
    sample = DatasetSample(source="test", train=SIZE, held_out=SIZE, languages={}, licenses={}, funnel=(), path=folder)
    model = locate(ModelConfig(name=str(base)))
    workdir = folder / "tokens"
    workdir.mkdir()
    if rows:
        return World(
            model,
            sample,
            run_tokenization(TokenizationConfig(max_length=64), sample=sample, model=model, workdir=workdir),
        )
    empty = pa.schema([("input_ids", pa.list_(pa.int32())), ("repo", pa.string()), ("path", pa.string())])
    pq.write_table(empty.empty_table().append_column("chunk", pa.array([], pa.int32())), workdir / "held_out.parquet")
    sizes = {"files": 0, "chunks": 0, "tokens": 0, "padding": 0, "text_bytes": 0}
    tokens = TokenizedDataset.model_validate(
        {"format": "causal", "max_length": 64, "train": sizes, "held_out": sizes, "path": workdir}
    )
    return World(model, sample, tokens)


def with_retention(folder: Path, base: Path = SMALL_MODEL) -> World:
    """The same with a kept sample: the standard library's modules that follow, a repository each."""
    names = ("bisect", "heapq", "keyword", "linecache", "queue", "sched", "shelve", "tabnanny")
    texts = {name: Path(import_module(name).__file__ or "").read_text()[:3000] for name in names}
    other = build(folder / "retention", texts, retention=True, base=base)
    return replace(build(folder / "own", base=base), retention=other.sample, retention_tokens=other.tokens)


def noise_adapter(folder: Path, base: Path = SMALL_MODEL) -> ExportedModel:
    """An adapter that nobody trained."""
    torch.manual_seed(0)
    adapter = _adapted(base)
    for name, weights in adapter.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weights, std=0.2)
    return _export(adapter, folder)


def with_gguf(exported: ExportedModel, folder: Path, base: Path = SMALL_MODEL, kind: str = "f16") -> ExportedModel:
    """An export with the merged model as a GGUF file beside the adapter."""
    from tasks.exporting.adapter import Adapter
    from tasks.exporting.merging import merge
    from tasks.gguf.converter import convert
    from tasks.gguf.library import file_name, quantize

    form = f"gguf-{kind}"
    merge(base, Adapter.read(exported.path / "adapter"), folder / "merged", 1 << 30)
    shutil.copytree(exported.path / "adapter", folder / "export" / "adapter")
    (folder / "export" / form).mkdir()
    whole, file = folder / "whole.gguf", folder / "export" / form / file_name(form)
    convert(folder / "merged", whole, load_tokenizer(base), name="tuned", infills=False)
    shutil.copy(whole, file) if kind == "f16" else quantize(whole, file, kind, 1)
    forms = (*exported.forms, ExportedForm(name=form, bytes=0, comparison=EXACT))
    return exported.model_copy(update={"path": folder / "export", "forms": forms})


def memorised_adapter(folder: Path, text: str, base: Path = SMALL_MODEL) -> ExportedModel:
    """An adapter that was trained on the very text that it is evaluated on."""
    torch.manual_seed(0)
    tokenizer = load_tokenizer(base)
    ids = torch.tensor([[tokenizer.bos, *encode(tokenizer, text)]])
    adapter = _adapted(base)
    optimizer = torch.optim.AdamW([p for p in adapter.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(30):
        loss = adapter(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return _export(adapter, folder)


def toy() -> LlamaForCausalLM:
    """A model of two layers with weights so large that it says many different things."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=97,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.6,
        max_position_embeddings=128,
    )
    return LlamaForCausalLM(config).eval()


def _adapted(base: Path) -> Any:
    model = load_base(base, "none", PLAN)
    from peft import LoraConfig, get_peft_model  # after the base: PEFT would load bitsandbytes together with a compiler

    return get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"))


def _export(adapter: Any, folder: Path) -> ExportedModel:
    adapter.save_pretrained(str(folder / "adapter"))
    form = ExportedForm(name="adapter", bytes=0, comparison=EXACT)
    return ExportedModel(base_model="base", forms=(form,), path=folder)


def other_base(folder: Path) -> None:
    """A model of the built-in one's vocabulary and another width."""
    shutil.copytree(SMALL_MODEL, folder)
    settings = json.loads((folder / "config.json").read_text())
    settings.update(hidden_size=64, intermediate_size=96, num_attention_heads=2, num_key_value_heads=2, head_dim=32)
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**settings)).save_pretrained(folder)
