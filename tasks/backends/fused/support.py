"""Which models the engine runs, and the sizes that its memory depends on. Imports no torch: preflight asks here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from artifacts.schema import Products
from tasks.backends.contract import JobShape
from tasks.families import LLAMA_LAYERS, WINDOWS
from tasks.models.shape import ModelShape

CAPABILITY = (7, 5)
"""The oldest GPUs that the kernels were compiled for: T4."""
GROUPS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "o": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
"""The linear layers of a decoder layer by matrix product."""
INTO_STREAM = ("o", "down")
"""Products that are added to the residual stream."""
HEAD_TOKENS = 1024
"""Tokens whose logits exist at a time."""
DEPTH = 2
"""Buffers for unpacked weights on a GPU: one in use, one for the next product. More gained nothing."""
ALIGNED = 8
"""Rows of A are filled up to a multiple of this, so that every row of the product starts at 16 bytes."""
APART = 32
"""Columns of an input that stay in 16 bits where products run on int8 tensor cores."""
SUMS = 8192
"""Columns of such a product whose 32-bit sums exist at a time, where cuBLASLt makes it."""
WIDTH, LEAST = 8, 17
"""What the sizes of such a product are multiples of, and its fewest rows, as cuBLASLt wants them."""


def products_of(shape: ModelShape, job: JobShape, *, on_gpu: bool) -> Products:
    """What the products of frozen layers run on. A CPU gains nothing by int8."""
    if job.products == "auto":
        return "int8" if on_gpu and unsupported_int8(shape, job) is None else "fp16"
    return job.products


def unsupported_int8(shape: ModelShape, job: JobShape) -> str | None:
    """Why a model's products cannot run on int8 tensor cores; None when they can."""
    if job.quantization != "int8":
        return f"products in int8 need weights in int8, not {job.quantization}"
    if any(size % WIDTH for kind in shape.linears for size in (kind.inputs, kind.outputs)):
        return f"products in int8 need layers whose widths are multiples of {WIDTH}"
    return f"products in int8 need sequences of {LEAST} tokens" if job.max_length < LEAST else None


def unsupported_config(config: Mapping[str, Any], length: int | None = None) -> str | None:
    """Why the backend cannot run a model with this `config.json` on texts of so many tokens; None when it can."""
    kind = config.get("model_type")
    if kind not in LLAMA_LAYERS:
        return f"it knows the layers of {', '.join(sorted(LLAMA_LAYERS))}, not of {kind}"
    if config.get("hidden_act", "silu") != "silu":
        return f"the MLP's activation is {config['hidden_act']}, not silu"
    if config.get("mlp_bias") or (kind == "llama" and config.get("attention_bias")):
        return "its linear layers have biases where it expects none"
    slides = config.get("use_sliding_window", kind in WINDOWS)
    window = config.get("sliding_window", WINDOWS.get(kind)) if slides else None
    if window and (length is None or length > window):
        return f"attention is limited to a sliding window of {window} tokens"
    heads = config["num_attention_heads"]
    if heads % (config.get("num_key_value_heads") or heads):
        return "the number of attention heads is no multiple of that of keys"
    width = config.get("head_dim") or config["hidden_size"] // heads
    if width & (width - 1):
        return f"its attention heads are {width} wide, which is no power of two"
    return None
