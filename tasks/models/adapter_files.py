"""A LoRA adapter as PEFT saves it, checked before PEFT sees it.

Which layers it adapts, and with which rank, is read from the weights: names in `adapter_config.json` are expressions to
PEFT, and one that explodes would keep it busy for ever. What the weights do not say (scaling) is taken from there.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from artifacts import reading
from artifacts.errors import InputError
from tasks.models.files import ADAPTER, ADAPTER_CONFIG
from tasks.models.safetensors_files import FLOATS, StoredTensor, read_header

if TYPE_CHECKING:
    from peft import LoraConfig

FIELD = "MODEL"
REMEDY = "copy the whole folder again, or run the training again"
_KEY = re.compile(r"base_model\.model\.(?P<module>[\w.]+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")
_NAME = re.compile(r"[\w.]+")
_LONGEST_NAME = 500
_HIGHEST_RANK = 1 << 16
_PIECE = 1 << 24
"""Bytes of weights that are looked at together, whole numbers of every type."""
_READ = ("peft_type", "r", "lora_alpha", "lora_dropout", "rank_pattern", "alpha_pattern")
_MEANS_NOTHING_HERE = (
    *("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode"),
    *("target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),  # the weights say which layers
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config"),  # how training began
    *("megatron_core", "qalora_group_size", "runtime_config", "ensure_weight_tying"),
)
_VALUES: dict[str, tuple[Any, ...]] = {
    "task_type": ("CAUSAL_LM", None),
    "use_rslora": (True, False, None),
    "init_lora_weights": (True, False, None, "gaussian", "eva", "orthogonal"),  # others alter the base's weights
}
_NOTHING = (None, False, "none", 0)


@dataclass(frozen=True)
class Factors:
    """The two factors beside one layer."""

    rank: int
    inputs: int
    """Or rows of an embedding."""
    outputs: int
    embedding: bool = False


@dataclass(frozen=True)
class SavedAdapter:
    """An adapter's files, known to be consistent."""

    folder: Path
    settings: dict[str, Any]
    """`adapter_config.json`."""
    layers: dict[str, Factors]
    """By the name of the layer in the base model."""

    def config(self) -> LoraConfig:
        """What PEFT needs to know to load it."""
        from peft import LoraConfig

        alpha_of = _Pattern(self.settings.get("alpha_pattern"), self.settings["lora_alpha"])
        ranks = {name: one.rank for name, one in self.layers.items()}
        alphas = {name: alpha_of(name) for name in self.layers}
        rank, alpha = next(iter(ranks.values())), next(iter(alphas.values()))
        return LoraConfig(
            task_type="CAUSAL_LM",
            r=rank,
            lora_alpha=alpha,
            lora_dropout=self.settings.get("lora_dropout") or 0.0,
            target_modules=sorted(self.layers),
            rank_pattern={name: one for name, one in ranks.items() if one != rank},
            alpha_pattern={name: one for name, one in alphas.items() if one != alpha},
            use_rslora=bool(self.settings.get("use_rslora")),
            bias="none",
            base_model_name_or_path=self.settings.get("base_model_name_or_path"),
            revision=self.settings.get("revision"),
        )

    def check_fit(self, linear: Mapping[str, tuple[int, int]], embeddings: Mapping[str, tuple[int, int]]) -> None:
        """Every factor has its layer, of its kind and size: PEFT would leave out what it does not find, with a warning.

        Args:
            linear: inputs and outputs of the base model's linear layers.
            embeddings: rows and width of its embeddings.

        Raises:
            InputError: one has not.
        """
        for name, one in self.layers.items():
            sizes, kind = (embeddings, "embedding") if one.embedding else (linear, "linear layer")
            if sizes.get(name) != (one.inputs, one.outputs):
                has = f"no such {kind}" if name not in sizes else "{} × {}".format(*sizes[name])
                raise InputError(
                    f"the adapter in {self.folder} was made for another base model: its {name} is "
                    f"{one.inputs} × {one.outputs}, the base has {has}",
                    field=FIELD,
                    remedy="name the base that adapter_config.json names, or the adapter of this base",
                )


def read_adapter(folder: Path) -> SavedAdapter:
    """Look at an adapter.

    Raises:
        InputError: it is incomplete or damaged, or more than pairs of low-rank factors.
    """
    path = folder / ADAPTER_CONFIG
    settings = reading.read_object(path, limit=4 << 20, field=FIELD, remedy=REMEDY)
    _check_settings(path, settings)
    with reading.opened(folder / ADAPTER, field=FIELD, remedy=REMEDY) as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
    layers = _layers(folder / ADAPTER, header)
    rank_of = _Pattern(settings.get("rank_pattern"), settings["r"])
    for name, one in layers.items():
        if (rank := rank_of(name)) != one.rank:
            _refuse(folder / ADAPTER, f"its {name} has rank {one.rank} where {ADAPTER_CONFIG} says {rank}")
    return SavedAdapter(folder, settings, layers)


def check_finite(saved: SavedAdapter) -> None:
    """Refuse factors that hold what is no number. Imports torch."""
    import torch

    dtypes = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    path = saved.folder / ADAPTER
    with reading.opened(path, field=FIELD, remedy=REMEDY) as file:
        header = read_header(file, os.fstat(file.fileno()).st_size)
        data = file.tell()
        tensors = sorted(header.items(), key=lambda item: item[1].start)
        # Tensors of one type lie next to each other and are read as one: to ask for each takes as long for a small one.
        for dtype, some in groupby(tensors, key=lambda item: item[1].dtype):
            run = list(some)
            for start in range(run[0][1].start, run[-1][1].end, _PIECE):
                file.seek(data + start)
                raw = bytearray(file.read(min(_PIECE, run[-1][1].end - start)))
                wrong = (~torch.isfinite(torch.frombuffer(raw, dtype=dtypes[dtype]).float())).nonzero()
                if len(wrong):
                    at = start + int(wrong[0]) * FLOATS[dtype]
                    name = next(name for name, one in run if one.start <= at < one.end)
                    _refuse(path, f"{name} holds values that are not finite, or too large for fp32")


def _check_settings(path: Path, settings: Mapping[str, Any]) -> None:
    kind = settings.get("peft_type")
    if kind != "LORA":
        _refuse(path, f"its peft_type is {str(kind)[:40]!r}; only LORA is known")
    if not _is_rank(settings.get("r")):
        _refuse(path, f"its r is {str(settings.get('r'))[:40]}, which is no rank")
    if not _is_scale(settings.get("lora_alpha")):
        _refuse(path, f"its lora_alpha is {str(settings.get('lora_alpha'))[:40]}, which scales nothing")
    dropout = settings.get("lora_dropout") or 0
    if not _is_number(dropout) or not 0 <= dropout < 1:
        _refuse(path, f"its lora_dropout is {str(dropout)[:40]}, which is no share")
    for name, values in _VALUES.items():
        if not isinstance(settings.get(name), bool | str | None) or settings.get(name) not in values:
            _refuse(path, f"its {name} is {str(settings[name])[:40]!r}")
    for name, fits in (("rank_pattern", _is_rank), ("alpha_pattern", _is_scale)):
        pattern = settings.get(name) or {}
        if not isinstance(pattern, dict) or not all(map(fits, pattern.values())):
            _refuse(path, f"its {name} is no object of numbers")
        if wrong := [key for key in pattern if not _NAME.fullmatch(key)]:
            _refuse(path, f"its {name} has the expression {wrong[0][:60]!r}; only names of layers are taken")
    for name, value in settings.items():
        if name not in (*_READ, *_VALUES, *_MEANS_NOTHING_HERE) and not (
            value in _NOTHING or value == {} or value == []
        ):
            _refuse(path, f"it sets {name[:60]} to {str(value)[:60]}, which only other versions or kinds know")


def _layers(path: Path, header: Mapping[str, StoredTensor]) -> dict[str, Factors]:
    pairs: dict[tuple[str, bool], dict[str, StoredTensor]] = {}
    for key, tensor in header.items():
        match = _KEY.fullmatch(key)
        if not match or len(key) > _LONGEST_NAME or bool(match["embedding"]) == key.endswith(".weight"):
            _refuse(path, f"it holds {key[:80]!r}, which is no low-rank factor of a layer")
        if tensor.dtype not in FLOATS or len(tensor.shape) != 2 or 0 in tensor.shape:
            _refuse(path, f"{key[:80]} is {list(tensor.shape)} of {tensor.dtype}")
        pairs.setdefault((match["module"], bool(match["embedding"])), {})[match["side"]] = tensor
    found: dict[str, Factors] = {}
    for (name, embedding), pair in pairs.items():
        if len(pair) < 2 or name in found:
            _refuse(path, f"{name} does not have two factors of one kind")
        (rank, inputs), (outputs, other) = pair["A"].shape, pair["B"].shape
        if rank != other or rank > _HIGHEST_RANK:
            _refuse(path, f"the factors of {name} are {list(pair['B'].shape)} and {list(pair['A'].shape)}")
        found[name] = Factors(rank, inputs, outputs, embedding)
    return found


class _Pattern:
    """PEFT's `get_pattern_key` for patterns that are names, or ends of names: the first that fits."""

    def __init__(self, patterns: Mapping[str, Any] | None, default: Any) -> None:
        self._found = {key: (number, value) for number, (key, value) in enumerate((patterns or {}).items())}
        self._default = default

    def __call__(self, name: str) -> Any:
        parts = name.split(".")
        ends = (".".join(parts[start:]) for start in range(len(parts)))
        fits = [self._found[end] for end in ends if end in self._found]
        return min(fits, key=lambda one: one[0])[1] if fits else self._default


def _is_rank(value: Any) -> bool:
    return type(value) is int and 1 <= value <= _HIGHEST_RANK


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e9 and math.isfinite(value)


def _is_scale(value: Any) -> bool:
    return _is_number(value) and value != 0


def _refuse(path: Path, why: str) -> NoReturn:
    raise InputError(f"{path} cannot be used: {why}", field=FIELD, remedy=REMEDY)
