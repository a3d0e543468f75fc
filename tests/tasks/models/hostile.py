"""Models and adapters that nobody can mean, by the hundred: tables of what may be wrong with each file, and seeded
damage to its bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file

from tests.tasks.tokenization import toys

Damage = Callable[[Path], object]
VALUES = (
    *(-1, 0, 10**12, 10**30, 1.5, "x", "10", "", None, True, [], [1, -1], {}, {"a": {"b": 1}}),
    *(float("inf"), "\u2028\x00", "a" * 5000),
)
"""What may stand in the place of any value."""
TEXTS = {
    "empty": b"",
    "no JSON": b"{",
    "a list": b"[]",
    "a number": b"3",
    "null": b"null",
    "deep": b'{"a":' * 100_000,
    "deep and closed": b"[" * 100_000 + b"]" * 100_000,
    "a key twice": b'{"model_type": "llama", "model_type": "gpt2", "r": 8, "r": 9}',
    "NaN": b'{"r": NaN, "hidden_size": NaN, "model": NaN}',
    "5,000 digits": b'{"r": ' + b"9" * 5000 + b"}",
    "half a character": b'{"model_type": "\\ud800", "peft_type": "\\udfff"}',
    "another encoding": '{"a": 1}'.encode("utf-16"),
    "no text": bytes(range(256)) * 4,
}
CONFIG = (
    *("model_type", "architectures", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"),
    *("num_key_value_heads", "head_dim", "vocab_size", "max_position_embeddings", "rms_norm_eps", "rope_theta"),
    *("rope_scaling", "rope_parameters", "hidden_act", "tie_word_embeddings", "attention_bias", "attention_dropout"),
    *("dtype", "eos_token_id", "bos_token_id", "pad_token_id", "initializer_range", "num_labels"),
    *("quantization_config", "pretraining_tp", "auto_map"),
)
CONFIG_OF_OTHERS = ("text_config", "layer_types", "id2label")
"""Fields of which only transformers knows what they do: each takes it seconds."""
SIZES: tuple[dict[str, Any], ...] = (
    {"hidden_size": 30, "head_dim": None},
    {"num_key_value_heads": 3},
    {"head_dim": 7},
    {"hidden_size": 10**9, "num_hidden_layers": 10**9},
    {"num_hidden_layers": 3},
    {"vocab_size": 100},
    {"vocab_size": 10_000},
    {"rope_scaling": {"type": "linear"}},
    {"rope_scaling": {"type": "linear", "factor": -3}},
    {"rope_scaling": {"rope_type": "yarn", "factor": "x"}},
    {"rope_scaling": {"rope_type": "nonsense", "factor": 2}},
    {"rope_scaling": {"rope_type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 3}},
    {"rope_parameters": {"rope_type": "longrope", "short_factor": 1}},
    {"model_type": "mixtral", "architectures": ["MixtralForCausalLM"], "num_local_experts": 10**7},
    {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_layer": 10**12},
    {"model_type": "no-such-thing", "architectures": ["NoForCausalLM"]},
)
ADAPTER = (
    *("peft_type", "r", "lora_alpha", "lora_dropout", "target_modules", "rank_pattern", "alpha_pattern", "bias"),
    *("use_dora", "use_rslora", "modules_to_save", "layer_replication", "task_type", "base_model_name_or_path"),
    *("revision", "fan_in_fan_out", "init_lora_weights", "layers_pattern", "a_field_of_another_version", "trainable"),
)
EXPRESSIONS: tuple[dict[str, Any], ...] = tuple(
    {name: {f"({one})": 8} if name.endswith("pattern") else f"({one})"}
    for name in ("target_modules", "exclude_modules", "rank_pattern", "alpha_pattern", "layers_pattern")
    for one in (r"(.*)*)*x", r"([a-z._0-9]+)+)+$!", "")
)


def base(folder: Path) -> Path:
    """A whole Llama of 2 layers, 16 wide, with a byte-level tokenizer; files named as they are published."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    toys.byte_level(folder)
    size = 1 + max(token["id"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"])
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=512,
        bos_token_id=None,
        eos_token_id=size - 4,
        pad_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def adapter(folder: Path, model: Path) -> Path:
    """An export of it: an adapter on two layers' queries and values."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(model), LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    )
    made.save_pretrained(str(folder / "adapter"))
    edit("adapter/adapter_config.json", base_model_name_or_path=str(model))(folder)
    return folder


def edit(name: str, **changes: Any) -> Damage:
    """Change fields of a JSON object."""

    def act(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return act


def change(name: str, act: Callable[[dict[str, Any]], object]) -> Damage:
    """Change an object of JSON in place."""

    def apply(folder: Path) -> None:
        value = json.loads((folder / name).read_text())
        act(value)
        (folder / name).write_text(json.dumps(value))

    return apply


def write(name: str, data: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(data)


def replace(name: str, kind: str) -> Damage:
    """Something that is no file in the place of one."""

    def act(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        match kind:
            case "FIFO":
                os.mkfifo(folder / name)
            case "device":
                (folder / name).symlink_to("/dev/zero")
            case "folder":
                (folder / name).mkdir()
            case "loop":
                (folder / name).symlink_to(name.rpartition("/")[2])
            case "sparse":
                with (folder / name).open("wb") as file:
                    file.truncate(1 << 40)

    return act


PLACES = ("FIFO", "device", "folder", "loop", "sparse")


def header(name: str, act: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the header of a safetensors file."""

    def apply(folder: Path) -> None:
        raw = (folder / name).read_bytes()
        (length,) = struct.unpack("<Q", raw[:8])
        value = json.loads(raw[8 : 8 + length])
        act(value)
        text = json.dumps(value).encode()
        (folder / name).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return apply


def _first(value: dict[str, Any]) -> dict[str, Any]:
    entry: dict[str, Any] = value[next(name for name in value if name != "__metadata__")]
    return entry


def headers(name: str) -> Iterator[tuple[str, Damage]]:
    """What may be wrong with a safetensors file."""
    for length in (0, 1, 10**6, 2**31, 2**60, 2**64 - 1):
        yield f"length {length}", lambda folder, length=length: _patch(folder / name, struct.pack("<Q", length))
    for cut in (0, 4, 8, 9, 100):
        yield f"first {cut} bytes", lambda folder, cut=cut: _patch(folder / name, None, cut)
    yield "more at the end", lambda folder: _append(folder / name)
    for what, data in TEXTS.items():
        yield what, write(name, struct.pack("<Q", len(data)) + data)
    for field in ("dtype", "shape", "data_offsets"):
        yield f"no {field}", header(name, lambda value, field=field: _first(value).pop(field))
        for bad in (*VALUES, [0], [0, 0], [2**63, 2**63], [-1, 1], [5, 1], [0, 2**70], [[0], [1]], "F16", "F17", "I8"):
            if bad != _PLAIN.get(field):
                yield f"{field} {bad!r:.20}", header(name, lambda v, f=field, b=bad: _first(v).update({f: b}))
    yield (
        "a tensor over another",
        header(name, lambda value: [one.update(data_offsets=[0, 8]) for one in value.values()]),
    )
    yield "no tensors", header(name, dict.clear)
    yield "entries are lists", header(name, lambda value: value.update({key: [] for key in value}))
    yield "a tensor twice", lambda folder: _twice(folder / name)


_PLAIN = {"dtype": "F32"}


def _patch(path: Path, start: bytes | None, cut: int | None = None) -> None:
    raw = path.read_bytes()
    path.write_bytes((start or b"") + raw[len(start or b"") :] if cut is None else raw[:cut])


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\0" * 8)


def _twice(path: Path) -> None:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    text = raw[8 : 8 + length].rstrip()[:-1] + b', "x": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}, '
    text += b'"x": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}'
    path.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def _split(pattern: str) -> dict[str, Any]:
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}


def _vocabulary(value: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = value["model"]["vocab"]
    return found


TOKENIZER: dict[str, Callable[[dict[str, Any]], object]] = {
    "an id of 10^9": lambda value: _vocabulary(value).update(zzz=10**9),
    "an id of 2^40": lambda value: _vocabulary(value).update(zzz=2**40),
    "an id just outside": lambda value: _vocabulary(value).update(zzz=100_000),
    "a negative id": lambda value: _vocabulary(value).update(zzz=-1),
    "an id of text": lambda value: _vocabulary(value).update(zzz="5"),
    "an id of 1.5": lambda value: _vocabulary(value).update(zzz=1.5),
    "an id twice": lambda value: _vocabulary(value).update(zzz=5),
    "no pieces": lambda value: _vocabulary(value).clear(),
    "a vocabulary of texts": lambda value: value["model"].update(vocab=["a", "b"]),
    "a vocabulary of pairs": lambda value: value["model"].update(vocab=[["a", 0.0], ["b", None]]),
    "a vocabulary of numbers": lambda value: value["model"].update(vocab=7),
    "merges of unknown pieces": lambda value: value["model"]["merges"].append(["nope", "never"]),
    "merges of one": lambda value: value["model"]["merges"].append(["a"]),
    "merges of numbers": lambda value: value["model"].update(merges=[1, 2]),
    "merges of text": lambda value: value["model"].update(merges="ab"),
    "no merges": lambda value: value["model"].pop("merges"),
    "no model": lambda value: value.pop("model"),
    "a model of text": lambda value: value.update(model="BPE"),
    "an unknown model": lambda value: value["model"].update(type="XPE"),
    "dropout": lambda value: value["model"].update(dropout=0.5),
    "dropout of 7": lambda value: value["model"].update(dropout=7),
    "an unknown token as a number": lambda value: value["model"].update(unk_token=5),
    "added tokens as an object": lambda value: value.update(added_tokens={"a": 1}),
    "added tokens as texts": lambda value: value.update(added_tokens=["<s>"]),
    "an added token without an id": lambda value: value["added_tokens"][0].pop("id"),
    "an added token of text": lambda value: value["added_tokens"][0].update(id="0"),
    "an added token of 10^12": lambda value: value["added_tokens"][0].update(id=10**12),
    "a negative added token": lambda value: value["added_tokens"][0].update(id=-5),
    "an added token of nothing": lambda value: value["added_tokens"][0].update(content=""),
    "an added token of null": lambda value: value["added_tokens"][0].update(content=None),
    "an added token of a list": lambda value: value["added_tokens"][0].update(content=["a"]),
    "an added space with an id of text": lambda value: value["added_tokens"].append({"content": "   ", "id": "x"}),
    "an unknown splitter": lambda value: value.update(pre_tokenizer={"type": "Nope"}),
    "a splitter of text": lambda value: value.update(pre_tokenizer="ByteLevel"),
    "a splitter without a pattern": lambda value: value.update(pre_tokenizer={"type": "Split"}),
    "no expression": lambda value: value.update(pre_tokenizer=_split("(")),
    "nested splitters": lambda value: value.update(pre_tokenizer=_nested(50)),
    "splitters of a number": lambda value: value.update(pre_tokenizer={"type": "Sequence", "pretokenizers": 5}),
    **{
        f"an expression that explodes, {pattern}": lambda value, pattern=pattern: value.update(
            pre_tokenizer={
                "type": "Sequence",
                "pretokenizers": [
                    _split(pattern),
                    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
                ],
            }
        )
        for pattern in ("(a+)+$", "(a|aa)+$", "(.*)*!!", r"(\w|\d|_)+\.\.", r"(\s+\s*)+x")
    },
}


def _nested(depth: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
    for _ in range(depth):
        part = {"type": "Sequence", "pretokenizers": [part]}
    return part


def models() -> Iterator[tuple[str, Damage]]:
    """What may be wrong with a model's folder."""
    for field in CONFIG:
        for value in VALUES:
            yield f"config {field} {value!r:.20}", edit("config.json", **{field: value})
    for field in CONFIG_OF_OTHERS:
        for value in VALUES[::3]:
            yield f"config {field} {value!r:.20}", edit("config.json", **{field: value})
    for sizes in SIZES:
        yield f"config {sizes!r:.60}", edit("config.json", **sizes)
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json")
    for name in (*names, "special_tokens_map.json", "model.safetensors", "chat_template.jinja"):
        for kind in PLACES:
            yield f"{name} a {kind}", replace(name, kind)
    for name in (*names, "special_tokens_map.json"):
        for what, data in TEXTS.items():
            yield f"{name} {what}", write(name, data)
    for what, damage in headers("model.safetensors"):
        yield f"weights {what}", damage
    for what, act in TOKENIZER.items():
        yield f"tokenizer {what}", change("tokenizer.json", act)
    for field in (*("bos_token", "eos_token", "tokenizer_class", "chat_template"), *TOKENIZER_SETTINGS):
        for value in VALUES:
            yield f"tokenizer_config {field} {value!r:.20}", edit("tokenizer_config.json", **{field: value})
    for field in ("eos_token_id", "pad_token_id", "max_length", "temperature"):
        for value in VALUES:
            yield f"generation_config {field} {value!r:.20}", edit("generation_config.json", **{field: value})
    for template in (b"{% for i in range(10**12) %}{% endfor %}", b"{{ 'a' * 10**10 }}", b"{% include 'x' %}", b"{{"):
        yield f"template {template!r}", write("chat_template.jinja", template)
        yield f"template {template!r} inside", edit("tokenizer_config.json", chat_template=template.decode())
    yield "template of no text", write("chat_template.jinja", b"\xff")
    for what, index in INDEXES.items():
        yield f"index {what}", _indexed(index)


TOKENIZER_SETTINGS = ("model_max_length", "added_tokens_decoder", "extra_special_tokens", "padding_side")
INDEXES: dict[str, Any] = {
    "no map": {},
    "a list": {"weight_map": []},
    "of numbers": {"weight_map": {"model.norm.weight": 5}},
    "of lists": {"weight_map": {"model.norm.weight": ["a.safetensors"]}},
    "empty": {"weight_map": {}},
    "a file elsewhere": {"weight_map": {"model.norm.weight": "../model.safetensors"}},
    "an absolute file": {"weight_map": {"model.norm.weight": "/dev/zero"}},
    "a file that is no weights": {"weight_map": {"model.norm.weight": "config.json"}},
    "a tensor that is not there": {"weight_map": {"nothing.weight": "part.safetensors"}},
    "half of the tensors": {"weight_map": {"model.norm.weight": "part.safetensors"}, "metadata": 7},
    "no object": [],
}


def _indexed(index: Any) -> Damage:
    def act(folder: Path) -> None:
        weights = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        save_file({"model.norm.weight": weights["model.norm.weight"]}, folder / "part.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return act


def adapters() -> Iterator[tuple[str, Damage]]:
    """What may be wrong with an export's adapter."""
    settings, weights = "adapter/adapter_config.json", "adapter/adapter_model.safetensors"
    for field in ADAPTER:
        for value in VALUES:
            yield f"adapter {field} {value!r:.20}", edit(settings, **{field: value})
    for number, changes in enumerate(EXPRESSIONS):
        yield f"adapter expression {number} {changes!r:.60}", edit(settings, **changes)
    for what, data in TEXTS.items():
        yield f"adapter_config {what}", write(settings, data)
    for name in (settings, weights):
        for kind in PLACES:
            yield f"{name} a {kind}", replace(name, kind)
    for what, damage in headers(weights):
        yield f"factors {what}", damage
    for name, data in LINEAGES.items():
        yield f"lineage {name}", write("lineage.json", data)
    for what, factors in FACTORS.items():
        yield f"factors {what}", _refactored(weights, factors)


LINEAGES = {
    "of nothing": b"{}",
    "inputs as a list": b'{"inputs": [1]}',
    "no model": b'{"inputs": {"model": null}}',
    "a fingerprint that is a number": b'{"inputs": {"model": {"fingerprint": 5}}}',
    "another fingerprint": b'{"inputs": {"model": {"fingerprint": "0"}}}',
    "millions of objects": b'{"inputs": [' + b"{}," * 12_000_000 + b"{}]}",
}
Arrays = dict[str, Any]
FACTORS: dict[str, Callable[[Arrays], Arrays]] = {
    "NaN": lambda found: {name: one * float("nan") for name, one in found.items()},
    "infinite": lambda found: {name: one + float("inf") for name, one in found.items()},
    "one factor": lambda found: dict(list(found.items())[:-1]),
    "another rank": lambda found: {name: one[:2] if ".lora_A." in name else one[:, :2] for name, one in found.items()},
    "ranks that differ": lambda found: {name: one[:2] if ".lora_A." in name else one for name, one in found.items()},
    "of vectors": lambda found: {name: one.reshape(-1) for name, one in found.items()},
    "of whole numbers": lambda found: {name: one.astype("int32") for name, one in found.items()},
    "of nothing": lambda found: {name: one[:0] for name, one in found.items()},
    "wider": lambda found: {name: one.repeat(2, axis=1) for name, one in found.items()},
    "turned": lambda found: {name: one.T.copy() for name, one in found.items()},
    "other names": lambda found: {name.replace("q_proj", "x_proj"): one for name, one in found.items()},
    "of a layer that is not there": lambda found: {
        name.replace("layers.1", "layers.9"): one for name, one in found.items()
    },
    "no prefix": lambda found: {name.removeprefix("base_model.model."): one for name, one in found.items()},
    "a whole module": lambda found: found | {"base_model.model.lm_head.weight": next(iter(found.values()))},
    "too large for fp32": lambda found: {name: one.astype("float64") * 0 + 1e300 for name, one in found.items()},
    "whose product is infinite": lambda found: {name: one * 0 + 1e38 for name, one in found.items()},
    "an embedding's on a linear layer": lambda found: {
        name.replace("lora_", "lora_embedding_").removesuffix(".weight"): one for name, one in found.items()
    },
    "a linear layer's on the embeddings": lambda found: (
        found
        | {
            "base_model.model.model.embed_tokens.lora_A.weight": _first_of(found, "A")[:, :1].repeat(321, axis=1),
            "base_model.model.model.embed_tokens.lora_B.weight": _first_of(found, "B"),
        }
    ),
    "one of each kind": lambda found: {
        name.replace("lora_B", "lora_embedding_B").removesuffix(".weight") if "lora_B" in name else name: one
        for name, one in found.items()
    },
    "magnitudes": lambda found: found | {"base_model.model.x.lora_magnitude_vector": next(iter(found.values()))},
}


def _first_of(found: Arrays, side: str) -> Any:
    return next(one for name, one in found.items() if f".lora_{side}." in name)


def _refactored(name: str, act: Callable[[Arrays], Arrays]) -> Damage:
    return lambda folder: save_file(act(load_file(folder / name)), folder / name, metadata={"format": "pt"})


def noise(names: tuple[str, ...], count: int, seed: int) -> Iterator[tuple[str, Damage]]:
    """Seeded damage to bytes: some altered, cut out, doubled or exchanged, in the part that describes the rest."""
    chance = random.Random(seed)
    for number in range(count):
        name, state = chance.choice(names), chance.getrandbits(64)
        yield f"noise {seed}.{number} {name}", lambda folder, name=name, state=state: _disturb(folder / name, state)


def _disturb(path: Path, seed: int) -> None:
    chance = random.Random(seed)
    raw = bytearray(path.read_bytes())
    for _ in range(chance.choice((1, 1, 2, 5))):
        start = chance.randrange(min(len(raw), 3_000) or 1)
        end = start + chance.choice((1, 1, 3, 20))
        piece = bytes(raw[start:end])
        raw[start:end] = chance.choice(
            (
                bytes([chance.randrange(256)]),
                b"",
                piece * 2,
                b'"',
                b"-",
                b"9" * 6,
                b"null",
                b"{",
                piece[::-1],
                b"\\ud800",
            )
        )
    path.write_bytes(raw)


def copy(source: Path, folder: Path) -> Path:
    """To be damaged."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(source, folder, symlinks=True))
