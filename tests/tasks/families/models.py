"""A tiny random model of each family, with that family's own marks, tokens and chat template."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tasks.families import FAMILIES, Family
from tests.tasks.tokenization import toys

LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content.strip() }} [/INST]"
    "{% else %} {{ m.content.strip() }} {{ eos_token }}{% endif %}{% endfor %}"
)
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}### Instruction:\n{{ m.content }}\n"
    "{% else %}### Response:\n{{ m.content }}\n<|EOT|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}### Response:\n{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{{ m.content }}<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}


@dataclass(frozen=True)
class Toy:
    """How a family's models are."""

    sentencepiece: bool = False
    bos: str | None = None
    """Put in front of every text; None where the family does without."""
    eos: str = "<|endoftext|>"
    names: tuple[str, ...] = ()
    """Further special tokens."""
    chat: str | None = None
    ends: str = ""
    """What ends an answer by the template."""
    config: dict[str, Any] = field(default_factory=dict)


TOYS = {
    "Code Llama": Toy(True, "<s>", "</s>", chat=LLAMA2, ends="</s>", config={"rope_theta": 1e6}),
    "DeepSeek-Coder": Toy(
        bos="<｜begin▁of▁sentence｜>", eos="<｜end▁of▁sentence｜>", names=("<|EOT|>",), chat=DEEPSEEK, ends="<|EOT|>"
    ),
    "Seed-Coder": Toy(bos="<[begin▁of▁sentence]>", eos="<[end▁of▁sentence]>"),
    "Granite Code": Toy(),
    "Llama": Toy(names=("<|im_start|>", "<|im_end|>"), chat=CHATML, ends="<|im_end|>"),
    "Qwen2.5-Coder": Toy(names=("<|im_start|>", "<|im_end|>"), chat=CHATML, ends="<|im_end|>"),
    "Qwen2": Toy(names=("<|im_start|>", "<|im_end|>"), chat=CHATML, ends="<|im_end|>"),
    "Qwen3": Toy(names=("<|im_start|>", "<|im_end|>"), chat=CHATML, ends="<|im_end|>", config={"head_dim": 16}),
    "Codestral": Toy(True, "<s>", "</s>", chat=LLAMA2, ends="</s>", config={"sliding_window": None}),
    "Mistral": Toy(True, "<s>", "</s>", chat=LLAMA2, ends="</s>", config={"sliding_window": 256}),
    "StarCoder2": Toy(config={"use_bias": True, "sliding_window": 4096}),
    "CodeGemma": Toy(
        True,
        "<bos>",
        "<eos>",
        names=("<start_of_turn>", "<end_of_turn>", "▁▁", "▁▁▁▁"),
        chat=GEMMA,
        ends="<end_of_turn>",
        config={"head_dim": 16, "hidden_activation": "gelu_pytorch_tanh"},
    ),
    "Gemma": Toy(True, "<bos>", "<eos>", names=("▁▁",), config={"head_dim": 16}),
    "Phi-3": Toy(
        True,
        "<s>",
        "<|endoftext|>",
        names=("<|user|>", "<|assistant|>", "<|end|>"),
        chat=PHI,
        ends="<|end|>",
        config={"pad_token_id": 0, "num_key_value_heads": 4},
    ),
}


def write(folder: Path, family: Family) -> Path:
    """Model and tokenizer in a folder."""
    toy, marks = TOYS[family.name], family.marks
    names = toy.names
    if marks:
        names += tuple(
            filter(None, (marks.prefix, marks.suffix, marks.middle, marks.end, marks.repository, marks.file))
        )
    names = tuple(name for name in dict.fromkeys(names) if name not in (toy.bos, toy.eos))
    if toy.sentencepiece:
        toys.sentencepiece(folder, bos=toy.bos or "", eos=toy.eos, names=names)
    else:
        toys.byte_level(folder, names=names, bos=toy.bos, eos=toy.eos, template=toy.bos is not None)
    if toy.chat:
        (folder / "chat_template.jinja").write_text(toy.chat)
    size = max(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"].values()) + 64
    weights(folder, family.model_type, size, **toy.config)
    return folder


def weights(folder: Path, model_type: str, size: int, **shape: Any) -> None:
    """Random ones for a vocabulary of this size, and `config.json`."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(2)
    settings = {**SHAPE, "vocab_size": size, "tie_word_embeddings": False, "initializer_range": 0.1, **shape}
    ids = dict.fromkeys(("bos_token_id", "eos_token_id"))
    config = AutoConfig.for_model(model_type, **{**settings, **ids})
    AutoModelForCausalLM.from_config(config).to(torch.float16).save_pretrained(folder)


def named(name: str) -> Family:
    return next(family for family in FAMILIES if family.name == name)
