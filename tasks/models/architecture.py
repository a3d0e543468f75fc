"""What a model's `config.json` says of its sizes, once it is known that it can mean something.

A number of layers that nobody can have, heads that do not divide the width or an end-of-text token outside the
vocabulary end in one message before anything is downloaded. Imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from artifacts import reading
from artifacts.errors import InputError
from tasks.families import BIASED, LLAMA_LAYERS

FIELD = "model.name"
REMEDY = "restore it as it was published, or name another model"
"""`model_type`s whose layers are `self_attn.{q,k,v,o}_proj` and `mlp.{gate,up,down}_proj`, with RMSNorm."""
LARGEST = 4 << 20
"""Bytes of a `config.json`."""

_TYPES = ("float64", "float32", "float16", "bfloat16", "float", "half", "auto")
_ACTIVATIONS = (
    *("silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_10"),
    *("quick_gelu", "relu", "relu2", "relu6", "leaky_relu", "sigmoid", "tanh", "mish", "linear", "laplace"),
)
_ROPE_TYPES = ("default", "linear", "dynamic", "yarn", "longrope", "su", "llama3", "mrope", "proportional")
_ROPE_NEEDS = {
    **dict.fromkeys(("linear", "dynamic", "yarn"), ("factor",)),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
    "longrope": ("short_factor", "long_factor"),
    "su": ("short_factor", "long_factor"),
}

Rule = tuple[Callable[[Any], bool], str]
"""Whether a value can mean something, and what it should be."""


def _count(least: int, most: int) -> Rule:
    return lambda value: type(value) is int and least <= value <= most, f"a whole number of {least:,} to {most:,}"


def _number(least: float, most: float) -> Rule:
    return (
        lambda value: type(value) in (int, float) and math.isfinite(value) and least <= value <= most,
        f"a number of {least:g} to {most:g}",
    )


_LAYERS, _HEADS, _WIDTH, _EXPERTS = _count(1, 1000), _count(1, 4096), _count(1, 1 << 20), _count(0, 4096)
_POSITIONS, _PIECES, _IDS = _count(1, 1 << 28), _count(1, 1 << 24), _count(0, 1 << 24)
_SHARE: Rule = (
    lambda value: type(value) in (int, float) and 0 <= value < 1,
    "a share below 1: nothing would be left to learn from",
)
_FLAG: Rule = (lambda value: isinstance(value, bool), "true or false")
_TEXT: Rule = (lambda value: isinstance(value, str) and len(value) < 4096 and value.isprintable(), "a line of text")
_OBJECT: Rule = (lambda value: isinstance(value, dict), "an object")
_TEXTS: Rule = (lambda value: isinstance(value, list) and all(isinstance(one, str) for one in value), "a list of texts")
_TOKEN: Rule = (lambda value: type(value) is int, "the number of a token")
_TOKENS: Rule = (
    lambda value: value != [] and all(type(one) is int for one in (value if isinstance(value, list) else [value])),
    "the number of a token, or a list of them",
)

_RULES: dict[str, Rule] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), _LAYERS),
    **dict.fromkeys(("num_attention_heads", "num_key_value_heads", "n_head", "n_heads", "num_heads"), _HEADS),
    **dict.fromkeys(("hidden_size", "intermediate_size", "head_dim", "n_embd", "n_inner", "d_model"), _WIDTH),
    **dict.fromkeys(("ffn_dim", "d_ff", "ffn_hidden_size", "moe_intermediate_size", "word_embed_proj_dim"), _WIDTH),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "num_experts_per_tok"), _EXPERTS),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx", "seq_length"), _POSITIONS),
    **dict.fromkeys(("sliding_window", "max_window_layers"), _IDS),
    "vocab_size": _PIECES,
    "num_labels": _EXPERTS,
    **dict.fromkeys(("bos_token_id", "pad_token_id"), _TOKEN),
    "eos_token_id": _TOKENS,
    **dict.fromkeys(("tie_word_embeddings", "attention_bias", "mlp_bias", "use_cache", "use_sliding_window"), _FLAG),
    **dict.fromkeys(("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon"), _number(1e-30, 1)),
    **dict.fromkeys(
        ("attention_dropout", "hidden_dropout", "resid_pdrop", "embd_pdrop", "emb_pdrop", "attn_pdrop"), _SHARE
    ),
    **dict.fromkeys(("dropout", "dropout_rate", "activation_dropout", "layerdrop", "decoder_layerdrop"), _SHARE),
    **dict.fromkeys(("hidden_dropout_prob", "attention_probs_dropout_prob", "attn_dropout", "resid_dropout"), _SHARE),
    **dict.fromkeys(("embedding_dropout", "residual_dropout", "mlp_dropout", "ffn_dropout", "drop_path_rate"), _SHARE),
    "initializer_range": _number(0, 1),
    "rope_theta": _number(1e-6, 1e30),
    **dict.fromkeys(("rope_scaling", "rope_parameters", "text_config", "auto_map"), _OBJECT),
    **dict.fromkeys(
        ("dtype", "torch_dtype"),
        (lambda value: isinstance(value, str) and value in _TYPES, "one of " + ", ".join(_TYPES)),
    ),
    **dict.fromkeys(("model_type", "_name_or_path", "transformers_version"), _TEXT),
    "architectures": _TEXTS,
    "pretraining_tp": _count(1, 1024),
}
"""Fields that decide sizes or arithmetic, by the names that families give them."""
_OPTIONAL = frozenset(
    {"num_key_value_heads", "head_dim", "bos_token_id", "eos_token_id", "pad_token_id", "rope_scaling"}
    | {"sliding_window", "dtype", "torch_dtype", "_name_or_path", "transformers_version"}
)
"""Fields that may be null."""
_FRACTIONS = ("rms_norm_eps", "initializer_range", "attention_dropout")
_LLAMA_NEEDS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def read_config(folder: Path) -> dict[str, Any]:
    """The `config.json` in a model's folder.

    Raises:
        InputError: it cannot be read, or what it says contradicts itself or any model there is.
    """
    path = folder / "config.json"
    config = reading.read_object(path, limit=LARGEST, field=FIELD, remedy=REMEDY)
    problem = next(_problems(config), None)
    if problem:
        raise InputError(f"{path} describes no model: {problem}", field=FIELD, remedy=REMEDY)
    return config


def check_ids(path: Path, size: int | None) -> None:
    """The tokens that a `generation_config.json` names are in a vocabulary of that size.

    Raises:
        InputError: one is not.
    """
    settings = reading.read_object(path, limit=LARGEST, field=FIELD, remedy=REMEDY)
    named = {name: settings.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    problem = next(_senseless(named), None) or next(_ids_outside(named, size), None)
    if problem:
        raise InputError(f"{path} does not go with the model: {problem}", field=FIELD, remedy=REMEDY)


def is_plain(config: Mapping[str, Any]) -> bool:
    """Whether it is known of every field what it does: a model of which nothing needs to be tried."""
    known = {*_RULES, "hidden_act"} - {"text_config"}
    empty = {name for name, value in config.items() if value is None}
    whole = {name for name in _FRACTIONS if type(config.get(name)) is int}  # transformers tells 0 from 0.0
    return (
        config["model_type"] in LLAMA_LAYERS and known.issuperset(config) and _OPTIONAL.issuperset(empty) and not whole
    )


def vocabulary_size(config: Mapping[str, Any]) -> int | None:
    """Rows of the embeddings; None where the configuration does not say."""
    size = config.get("vocab_size") or (config.get("text_config") or {}).get("vocab_size")
    return size if isinstance(size, int) else None


def llama_weights(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The weights that a model of `LLAMA_LAYERS` cannot do without, and their shapes."""
    hidden, mlp, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads = config["num_attention_heads"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    layer: dict[str, tuple[int, ...]] = {
        "self_attn.q_proj.weight": (queries, hidden),
        "self_attn.k_proj.weight": (keys, hidden),
        "self_attn.v_proj.weight": (keys, hidden),
        "self_attn.o_proj.weight": (hidden, queries),
        "mlp.gate_proj.weight": (mlp, hidden),
        "mlp.up_proj.weight": (mlp, hidden),
        "mlp.down_proj.weight": (hidden, mlp),
        "input_layernorm.weight": (hidden,),
        "post_attention_layernorm.weight": (hidden,),
    }
    biased = [*BIASED.get(config["model_type"], ())]
    if config["model_type"] == "llama":
        biased += [f"self_attn.{name}_proj" for name in "qkvo" if config.get("attention_bias")]
        biased += [f"mlp.{name}_proj" for name in ("gate", "up", "down") if config.get("mlp_bias")]
    layer |= {f"{name}.bias": layer[f"{name}.weight"][:1] for name in biased}
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocabulary, hidden),
        "model.norm.weight": (hidden,),
    }
    if not config.get("tie_word_embeddings"):
        found["lm_head.weight"] = (vocabulary, hidden)
    for number in range(config["num_hidden_layers"]):
        found |= {f"model.layers.{number}.{name}": shape for name, shape in layer.items()}
    return found


def _problems(config: Mapping[str, Any]) -> Iterator[str]:
    """What makes no sense, the most basic first."""
    if not isinstance(config.get("model_type"), str) or not config["model_type"]:
        yield "it names no model_type"
    if foreign := next(_foreign_programs(config), None):
        yield f"it has programs of {foreign[:60]!r} compute its attention or experts"
    yield from _senseless(config)
    if config.get("text_config"):
        yield from _senseless(config["text_config"])
    if config.get("quantization_config") not in (None, {}):
        yield "its weights are quantized already; name the model as it was before"
    if config["model_type"] in LLAMA_LAYERS:
        yield from _llama_problems(config)
    yield from _ids_outside(config, vocabulary_size(config))


def _foreign_programs(value: Any, name: str = "") -> Iterator[str]:
    """The repositories of kernels on the hub that transformers would load and run, wherever they are named."""
    if isinstance(value, dict):
        for part, one in value.items():
            yield from _foreign_programs(one, name if name.endswith("_implementation") else part)
    elif isinstance(value, list):
        for one in value:
            yield from _foreign_programs(one, name)
    elif isinstance(value, str) and name.endswith("_implementation") and "/" in value:
        yield value


def _senseless(config: Mapping[str, Any]) -> Iterator[str]:
    by_layer = config.get("model_type") not in LLAMA_LAYERS  # other families may give a list, one value for each layer
    for name, (fits, wanted) in _RULES.items():
        value = config.get(name)
        if by_layer and isinstance(value, list) and value and all(map(fits, value)):
            continue
        if value is not None and not fits(value):
            yield (
                f"{name} is {str(value)[:60]!r}, not {wanted}"
                if isinstance(value, str)
                else (f"{name} is {str(value)[:60]}, not {wanted}")
            )


def _llama_problems(config: Mapping[str, Any]) -> Iterator[str]:
    for name in _LLAMA_NEEDS:
        if config.get(name) is None:
            yield f"it has no {name}"
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    keys, head = config.get("num_key_value_heads") or heads, config.get("head_dim")
    if head is None and hidden % heads:
        yield f"hidden_size {hidden} is no multiple of num_attention_heads {heads}"
    if heads % keys:
        yield f"num_attention_heads {heads} is no multiple of num_key_value_heads {keys}"
    if (head or hidden // heads) % 2:
        yield f"attention heads are {head or hidden // heads} wide, and rotary positions take pairs"
    activation = config.get("hidden_act")
    if activation is not None and activation not in _ACTIVATIONS:
        yield f"there is no activation {activation!r}"
    share = config.get("partial_rotary_factor")
    turned = int((head or hidden // heads) * (share if isinstance(share, float) else 1))
    for name in ("rope_scaling", "rope_parameters"):
        yield from _rope_problems(name, config.get(name) or {}, turned)


def _rope_problems(name: str, rope: Mapping[str, Any], turned: int) -> Iterator[str]:
    """`turned`: how many of a head's dimensions positions turn, in pairs."""
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in _ROPE_TYPES:
        yield f"{name} is of the unknown type {kind!r}"
    for needed in _ROPE_NEEDS.get(kind, ()):
        if needed not in rope:
            yield f"{name} of type {kind} has no {needed}"
    for part, value in rope.items():
        numbers = value if isinstance(value, list) else [value]
        if part in ("rope_type", "type") or isinstance(value, (bool, type(None))):
            continue
        if not all(type(one) in (int, float) and 0 < one < 1e30 for one in numbers):
            yield f"{name} has {part} = {str(value)[:60]}, which is no positive number"
        elif part in _ROPE_NEEDS["longrope"] and len(numbers) != turned // 2:
            yield f"{name} has {len(numbers)} numbers as {part}, and attention heads take {turned // 2}"
    low, high = rope.get("low_freq_factor", 1), rope.get("high_freq_factor", 4)
    if all(type(one) in (int, float) for one in (low, high)) and not low < high:
        yield f"{name} has a low_freq_factor of {low}, which has to be below the high_freq_factor of {high}"


def _ids_outside(config: Mapping[str, Any], size: int | None) -> Iterator[str]:
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        value = config.get(name)
        ids = value if isinstance(value, list) else [] if value is None else [value]
        least = -1 if name == "pad_token_id" else 0  # Llama's first configurations have -1 for none
        if size is not None and not all(least <= one < size for one in ids):
            yield f"{name} is {value}, and the vocabulary has {size:,} tokens"
