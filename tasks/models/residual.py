"""The residual stream in fp32 where all else is computed in 16 bits. What is added to it stays within fp16, too.

A model that was made in bf16 may have larger numbers in its residual stream than fp16 holds (65,504), and it is the
stream that passes them first: every layer adds to it, and norms make its size irrelevant to what reads it. Products
then read the norms' outputs in fp16, as always, and only what is added up is kept in fp32.

What is covered: the stream, and the products that are added to it (`o_proj`, `down_proj`) up to 2^20.
What is not: the inputs of these products, queries, keys, gates and logits, which stay in 16 bits.

`keep_in_fp32` does it to the modules of transformers, by hooks. The backend `fused` asks `is_fp32` and has its own way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tasks.families import INTO_STREAM, LAYER_NORMS, OVERFLOWING

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

SHRUNK = 1 / 16
"""What the inputs of products that are added to the stream are multiplied by, and their outputs divided by: a power of
two, so that nothing is rounded but what becomes smaller than fp16's smallest numbers (6e-8)."""


def unsupported(config: Mapping[str, Any]) -> str | None:
    """Why a model with this `config.json` cannot have its residual stream in fp32; None when it can."""
    kind = config.get("model_type")
    return f"the norms of {kind} take no input in fp32 beside weights in 16 bits" if kind in LAYER_NORMS else None


def overflows(config: Mapping[str, Any]) -> bool:
    """Whether models with such a `config.json` are known to overflow in fp16."""
    return config.get("model_type") in OVERFLOWING


def is_fp32(model: PreTrainedModel) -> bool:
    """Whether `keep_in_fp32` was called on it."""
    return getattr(model, "fp32_residual", False)


def keep_in_fp32(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Have a model that computes in `dtype` keep its residual stream in fp32, forward and with it backward."""
    model.fp32_residual = True
    decoder = model.model
    decoder.embed_tokens.register_forward_hook(lambda _module, _inputs, made: made.float())
    decoder.norm.register_forward_hook(lambda _module, _inputs, made: made.to(dtype))
    # asked for angles in the type of the stream, which queries and keys would take on
    decoder.rotary_emb.register_forward_hook(lambda _module, _inputs, made: tuple(one.to(dtype) for one in made))
    for layer in decoder.layers:
        for name, module in layer.named_children():
            if name.endswith("layernorm"):
                module.register_forward_hook(lambda _module, _inputs, made: made.to(dtype))
        for name in INTO_STREAM:
            module = layer.get_submodule(name)
            module.register_forward_pre_hook(lambda _module, inputs: (inputs[0] * SHRUNK, *inputs[1:]))
            module.register_forward_hook(lambda _module, _inputs, made: made.float() / SHRUNK)
            if hasattr(module, "state"):  # LLM.int8() knows outliers by their size
                module.state.threshold *= SHRUNK
