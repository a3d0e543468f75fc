"""The table of model families. Nothing else knows their marks, their order or what their layers are called.

An entry needs: the `model_type` of its `config.json`, whether its decoder has Llama's layers, and its marks for
filling in the middle, where it has any. Beginning and end of a text follow the tokenizer, instructions its own chat
template. Two families of one `model_type` are told apart by their marks.

Sources of the marks: the model cards and technical reports of the families; for Code Llama
https://arxiv.org/abs/2308.12950 (section 2.3), for StarCoder2 https://arxiv.org/abs/2402.19173, for Qwen2.5-Coder
https://arxiv.org/abs/2409.12186 (table 1), for DeepSeek-Coder https://arxiv.org/abs/2401.14196, for Granite Code
https://arxiv.org/abs/2405.04324, for CodeGemma https://arxiv.org/abs/2406.11409, for Seed-Coder
https://arxiv.org/abs/2506.03524, for Codestral `encode_fim` of mistral-common; for the marks of repositories and files
`llama-vocab.cpp` of llama.cpp, which finds them by these names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from artifacts.errors import InputError
from artifacts.paths import shown

HEAD = "lm_head"
"""The output head, as all families of the table call it."""
EMBEDDINGS = (HEAD, "embed_tokens", "wte", "wpe", "embed_in", "embed_out")
"""Embeddings and output layers by the names that families give them: they are neither quantized nor adapted."""


@dataclass(frozen=True)
class Marks:
    """The names of a vocabulary's fill-in-the-middle tokens."""

    prefix: str
    suffix: str
    middle: str | None
    """None where the middle follows the prefix without a mark."""
    end: str | None = None
    """What ends a middle; None for the token that ends a document."""
    suffix_first: bool = False
    """Whether the suffix stands before the prefix: `<suffix> … <prefix> … <middle>`."""
    both_orders: bool = False
    """Whether the family was also trained on `<prefix> <suffix> … <middle> prefix and middle`."""
    repository: str | None = None
    """What stands before a repository's name where other files of it precede a gap; as llama.cpp has it, and None
    where its server writes none, whatever the family was trained with: what the server sends is what counts."""
    file: str | None = None
    """What stands before each file there. `tasks.families.context` is where they are used."""

    def around(self, prefix: str, suffix: str) -> str:
        """A prompt as text, in the family's order: for programs that look for the marks' names in a text."""
        before, after = f"{self.prefix}{prefix}", f"{self.suffix}{suffix}"
        first, second = (after, before) if self.suffix_first else (before, after)
        return f"{first}{second}{self.middle or ''}"


@dataclass(frozen=True)
class Family:
    """A model family."""

    name: str
    model_type: str
    """As `config.json` has it."""
    marks: Marks | None = None
    llama_layers: bool = False
    """Whether its decoder's layers are Llama's: q, k, v, o, gate, up and down projections, RMS norms, rotary positions,
    SiLU. What is computed from sizes alone, and the backend `fused`, know these."""


BIASED = {"qwen2": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")}
"""By model type: projections of layers like Llama's that always have a bias."""
WINDOWS = {"mistral": 4096}
"""By model type: the tokens that transformers lets a model look back when its configuration does not say. Of the others
only those look back so far whose configuration says `use_sliding_window`."""

_QWEN = Marks(
    "<|fim_prefix|>",
    "<|fim_suffix|>",
    "<|fim_middle|>",
    "<|endoftext|>",
    repository="<|repo_name|>",
    file="<|file_sep|>",
)

INTO_STREAM = ("self_attn.o_proj", "mlp.down_proj")
"""The linear layers whose outputs are added to the residual stream, in all families but those with `LAYER_NORMS`."""
LAYER_NORMS = frozenset({"starcoder2"})
"""`model_type`s with layer norms, and other names for these layers."""
OVERFLOWING = frozenset({"qwen2"})
"""`model_type`s whose models were made in bf16 and are known to pass 65,504, where fp16 ends: for Qwen2 see the issues
670, 761, 826 and 868 of QwenLM/Qwen3."""

FAMILIES = (
    Family("Code Llama", "llama", Marks("▁<PRE>", "▁<SUF>", "▁<MID>", "▁<EOT>", both_orders=True), True),
    Family("DeepSeek-Coder", "llama", Marks("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"), True),
    Family("Seed-Coder", "llama", Marks("<[fim-prefix]>", "<[fim-suffix]>", "<[fim-middle]>", suffix_first=True), True),
    Family(
        "Granite Code",
        "llama",
        Marks(
            "<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>", both_orders=True, repository="<reponame>"
        ),
        True,
    ),
    Family("Llama", "llama", None, True),
    Family("Qwen2.5-Coder", "qwen2", _QWEN, True),
    Family("Qwen2", "qwen2", None, True),
    Family("Qwen3", "qwen3", _QWEN),
    Family("Codestral", "mistral", Marks("[PREFIX]", "[SUFFIX]", None, suffix_first=True), True),
    Family("Mistral", "mistral", None, True),
    Family(
        "StarCoder2",
        "starcoder2",
        Marks("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>", both_orders=True),
    ),
    Family("CodeGemma", "gemma", Marks("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|file_separator|>")),
    Family("Gemma", "gemma"),
    Family("Phi-3", "phi3"),
)
LLAMA_LAYERS = frozenset(family.model_type for family in FAMILIES if family.llama_layers)
"""`model_type`s whose decoder has Llama's layers."""


def check_family(config: Mapping[str, Any]) -> None:
    """Whether the table has a family for a model with this `config.json`.

    Raises:
        InputError: it has none.
    """
    kind = config.get("model_type")
    if all(family.model_type != kind for family in FAMILIES):
        raise InputError(
            f"models of type {shown(repr(kind))} are of no family that codetune knows",
            field="model.name",
            remedy="use a model of "
            + ", ".join(family.name for family in FAMILIES)
            + "; a new family is an entry in tasks/families/table.py: its model_type, its fill-in-the-middle marks in "
            "their order, and whether its layers are Llama's",
        )
