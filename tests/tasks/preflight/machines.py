"""Machines and models as records, for judging without having them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from artifacts.errors import PreflightRefused
from tasks.backends.contract import JobShape
from tasks.machines.records import Disk, Gpu, MachineProbe
from tasks.models.base_model import ModelReference
from tasks.models.shape import ModelShape, llama_shape, read_shape
from tasks.preflight.config import PreflightConfig
from tasks.preflight.judgement import PreflightResult, judge
from tests.small_model import BASE_MODEL

CODE_LLAMA = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "vocab_size": 32016,
    "max_position_embeddings": 16384,
    "torch_dtype": "float16",
}
"""What `config.json` of CodeLlama-7b-Instruct says of its shape."""

TINY = CODE_LLAMA | {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 8,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 4096,
    "tie_word_embeddings": True,
}

TINY_LLAMA = CODE_LLAMA | {
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "num_hidden_layers": 22,
    "num_key_value_heads": 4,
    "vocab_size": 32000,
}
"""TinyLlama-1.1B's: eight heads for one key."""

QWEN_CODER = CODE_LLAMA | {
    "model_type": "qwen2",
    "hidden_size": 1536,
    "intermediate_size": 8960,
    "num_hidden_layers": 28,
    "num_attention_heads": 12,
    "num_key_value_heads": 2,
    "vocab_size": 151_936,
    "tie_word_embeddings": True,
    "torch_dtype": "bfloat16",
}
"""Qwen2.5-Coder-1.5B's."""

T4 = Gpu(name="Tesla T4", total_gib=14.56, free_gib=14.4, capability=(7, 5), temperature_c=48)
H200 = Gpu(name="NVIDIA H200", total_gib=139.8, free_gib=139.0, capability=(9, 0))
V100 = Gpu(name="Tesla V100-SXM2-16GB", total_gib=15.8, free_gib=15.7, capability=(7, 0))
K80 = Gpu(name="Tesla K80", total_gib=11.4, free_gib=11.3, capability=(3, 7))


def machine(*gpus: Gpu, **changes: Any) -> MachineProbe:
    """An ordinary server with these cards."""
    disks = tuple(Disk(purpose=purpose, free_gib=200, filesystem=1) for purpose in ("store", "hub cache"))
    facts: dict[str, Any] = {
        "gpus": gpus,
        "no_gpu_reason": "" if gpus else "no NVIDIA driver answers",
        "driver": "580.65.06" if gpus else "",
        "driver_cuda": (13, 0) if gpus else None,
        "cpus": 2,
        "memory_gib": 24,
        "available_gib": 22,
        "disks": disks,
        "libraries": {"torch": "2.13.0"},
        "torch_cuda": "12.8" if gpus else "",
    }
    return MachineProbe(**(facts | changes))


def model_folder(folder: Path, config: dict[str, Any]) -> ModelReference:
    """A model's metadata."""
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE_MODEL / name, folder)
    return ModelReference(name="some/model", revision="a" * 40, fingerprint="f", metadata=folder)


def shape_of(folder: Path, config: dict[str, Any]) -> ModelShape:
    return read_shape(model_folder(folder, config).metadata)


def four_layers(vocabulary: int, hidden: int) -> ModelShape:
    """A small Llama with a vocabulary of any size."""
    heads = hidden // 64
    sizes = {"hidden_size": hidden, "vocab_size": vocabulary, "intermediate_size": hidden * 8 // 48 * 16}
    layers = {"num_hidden_layers": 4, "num_attention_heads": heads, "num_key_value_heads": heads}
    return llama_shape(CODE_LLAMA | sizes | layers | {"tie_word_embeddings": True})


def judged(
    shape: ModelShape, probe: MachineProbe, job: JobShape | None = None, *, download: bool = False, **config: Any
) -> PreflightResult:
    """The judgement of the reference job, or of another."""
    return judge(PreflightConfig(**config), job or JobShape(), shape, probe, download=download)


def refusal(*args: Any, **kwargs: Any) -> PreflightRefused:
    """The refusal that a judgement must end with."""
    try:
        found = judged(*args, **kwargs)
    except PreflightRefused as refused:
        return refused
    raise AssertionError(f"not refused: {found.plan}")
