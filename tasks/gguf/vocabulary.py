"""What a GGUF file has to say of its model's tokenizer, so that llama.cpp and its server use it as training did."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer

if TYPE_CHECKING:
    from tasks.gguf.loaded import GgufModel
    from tasks.gguf.server import ServedModel

_PREFIX = "tokenizer.ggml"
_SPLITTERS = (
    # by an expression that only this splitter has, the name that llama.cpp gives it
    ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|", "qwen2"),
    ("(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|", "llama-bpe"),
)


def keys(tokenizer: CodeTokenizer, *, infills: bool) -> dict[str, int | bool]:
    """Keys of the file and their values, beside those that the converter finds by itself. It knows the marks of some
    families by the size of their vocabulary, and the end of a middle of none.

    Args:
        infills: the model was tuned to fill in. Its suffixes begin without a space in training, and llama.cpp's
            `/infill` puts one before prefix and suffix alike, or before none.
    """
    fim = FimTokens.find(tokenizer)
    found: dict[str, int | bool | None] = {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": tokenizer.eos,
        "add_bos_token": tokenizer.bos is not None,
        "add_eos_token": False,
        "add_space_prefix": tokenizer.leading_space and not infills,
    }
    if fim:
        found |= {"fim_pre_token_id": fim.prefix, "fim_suf_token_id": fim.suffix, "fim_mid_token_id": fim.middle}
        found["eot_token_id"] = fim.end if fim.end != tokenizer.eos else None
    return {f"{_PREFIX}.{name}": value for name, value in found.items() if value is not None}


def splitter(tokenizer: CodeTokenizer) -> str | None:
    """What llama.cpp calls the way in which a byte-level tokenizer splits text before it merges, for vocabularies that
    its converter does not know; None where it is none of the common ones."""
    part: dict[str, Any] = json.loads(tokenizer.description)["pre_tokenizer"] or {}
    steps = part.get("pretokenizers", [part])
    for step in steps:
        written = (step.get("pattern") or {}).get("Regex", "") if step.get("type") == "Split" else ""
        for beginning, name in _SPLITTERS:
            if written.startswith(beginning):
                return name
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits"):
        return "starcoder"
    return None


def rope_base(config: dict[str, Any]) -> float | None:
    """Of the rotary positions, by a model's `config.json`, in the form of transformers 5 or an older one."""
    found = config.get("rope_theta", (config.get("rope_parameters") or {}).get("rope_theta"))
    return None if found is None else float(found)


def problems(model: GgufModel, tokenizer: CodeTokenizer, config: dict[str, Any], *, infills: bool) -> list[str]:
    """What llama.cpp understands of a file otherwise than the model means it, in words.

    Args:
        config: the model's `config.json`.
    """
    said, wanted = model.description, keys(tokenizer, infills=infills)
    found = [
        f"{key} is {said.get(key)}, not {_written(value)}"
        for key, value in wanted.items()
        if said.get(key) != _written(value)
    ]
    ids = model.special()
    for name in ("bos", "eos", "fim_pre", "fim_suf", "fim_mid"):
        index = wanted.get(f"{_PREFIX}.{name}_token_id")
        if index is not None and ids[name] != index:
            found.append(f"the token {name} is {ids[name]}, not {index}")
    found += [
        f"it does not stop at token {index}"
        for index in (tokenizer.eos, wanted.get(f"{_PREFIX}.eot_token_id"))
        if index is not None and not model.ends(index)
    ]
    if model.size != config["vocab_size"]:
        found.append(f"the vocabulary has {model.size:,} tokens, not {config['vocab_size']:,}")
    architecture = said["general.architecture"]
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    for key, value in (
        ("context_length", config.get("max_position_embeddings")),
        ("rope.freq_base", rope_base(config)),
        ("rope.scaling.factor", rope.get("factor") if rope.get("rope_type") in ("linear", "yarn") else None),
    ):
        there = said.get(f"{architecture}.{key}")
        if value is not None and (there is None or abs(float(there) - value) > 1e-3 * abs(value)):
            found.append(f"{key} is {there}, not {value}")
    return found


def served_problems(model: ServedModel, tokenizer: CodeTokenizer, config: dict[str, Any]) -> list[str]:
    """The same as far as llama.cpp's server tells it: by what it does.

    Args:
        config: the model's `config.json`.
    """
    found, fim = [], FimTokens.find(tokenizer)
    if model.size != config["vocab_size"]:
        found.append(f"the vocabulary has {model.size:,} tokens, not {config['vocab_size']:,}")
    if model.context != config.get("max_position_embeddings", model.context):
        found.append(f"context_length is {model.context}, not {config['max_position_embeddings']}")
    begins, wanted = model.tokenize("", begins=True), [] if tokenizer.bos is None else [tokenizer.bos]
    if begins != wanted:
        found.append(f"a text begins with {begins}, not with {wanted}")
    for index in dict.fromkeys((tokenizer.eos, fim.end if fim else None)):
        if index is not None and not model.ends(index):
            found.append(f"it does not stop at token {index}")
    if fim and fim.middle is not None:
        parts = (fim.prefix, *model.tokenize("a"), fim.suffix, *model.tokenize("b"), fim.middle)
        if not model.infilling("a", "b").endswith(model.spelled(parts)):
            found.append("it writes other marks around a gap")
    return found


def _written(value: int | bool) -> str:
    return str(value).lower()
