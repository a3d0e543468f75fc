"""A model, a trained adapter and the handles around them, small but real."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from artifacts.schema import Checkpoint, DatasetSample, Plan, TokenizedDataset
from tasks.models.base_model import ModelReference
from tasks.tokenization import TokenizationConfig, run_tokenization
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import write_sample

CPU = Plan(
    device="cpu", precision="fp32", micro_batch=2, accumulation=2, gradient_checkpointing=False, backend="transformers"
)


@dataclass(frozen=True)
class Pieces:
    """What the stage takes."""

    model: ModelReference
    sample: DatasetSample
    tokens: TokenizedDataset
    checkpoint: Checkpoint
    plan: Plan = CPU

    def inputs(self) -> dict[str, Any]:
        return dict(vars(self))


def make(folder: Path, base: Path, **lora: Any) -> Pieces:
    """Everything for one base model, with an adapter that changes what it computes."""
    model = ModelReference(name=str(base), revision=None, fingerprint="0", metadata=base)
    sample = write_sample(folder / "sample", toys.CORPUS * 8, toys.CORPUS)
    (folder / "tokens").mkdir()
    tokens = run_tokenization(TokenizationConfig(max_length=64), sample=sample, model=model, workdir=folder / "tokens")
    return Pieces(model, sample, tokens, make_checkpoint(folder / "checkpoint", base, **lora))


def make_checkpoint(folder: Path, base: Path, **lora: Any) -> Checkpoint:
    """An adapter with random weights, as PEFT saves it, and two steps of metrics."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(3)
    settings = {"r": 8, "lora_alpha": 16, "target_modules": ["v_proj", "q_proj"], **lora}
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, weight in tuned.named_parameters():
        if "lora_" in name and ("lora_B" in name or "embedding" in name):
            torch.nn.init.normal_(weight.data, std=0.02)
    tuned.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
    metrics = {"step": [1, 2], "loss": [2.0, 1.5], "learning_rate": [1e-4, 2e-4]}
    pq.write_table(pa.table(metrics), folder / "metrics.parquet")
    sums = {"steps": 2, "tokens": 512, "first_loss": 2.0, "last_loss": 1.5}
    sizes = {"trainable_parameters": 100, "total_parameters": 1000, "peak_memory_gib": 0.5}
    return Checkpoint(path=folder, step_seconds=0.1, tokens_per_second=2560.0, **sums, **sizes)


def tiny_llama(folder: Path, tokenizer: Path, **settings: Any) -> Path:
    """A random Llama with two layers and untied embeddings, with the tokenizer of another folder."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    shape = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        **{**shape, "vocab_size": 4096, "tie_word_embeddings": False, "max_position_embeddings": 512, **settings}
    )
    model = LlamaForCausalLM(config).to(torch.float16)
    model.save_pretrained(folder, max_shard_size="300KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tokenizer / name, folder / name)
    return folder
