"""A model's folder as `from_pretrained` reads it: how its files are named, and copying those that hold no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

CONFIG, SINGLE, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
GENERATION = ("generation_config.json",)
TOKENIZER = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "*.jinja"),
)
PAPERS = ("LICENSE*", "LICENCE*", "USE_POLICY*", "NOTICE*", "COPYING*")


def weight_files(folder: Path) -> list[str]:
    """The safetensors files that hold the model, ordered by name."""
    if (folder / SINGLE).exists():
        return [SINGLE]
    index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    return sorted(set(index["weight_map"].values()))


def shard_names(count: int) -> list[str]:
    """Names for `count` files of weights."""
    return [SINGLE] if count == 1 else [f"model-{n:05d}-of-{count:05d}.safetensors" for n in range(1, count + 1)]


def copy_files(source: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    """Copy files that lie at the top of a model's folder, where there are any."""
    for pattern in patterns:
        for path in filter(Path.is_file, sorted(source.glob(pattern))):
            shutil.copyfile(path, folder / path.name)


def read_json(path: Path) -> dict[str, Any]:
    """An object from a JSON file."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_json(path: Path, value: Any) -> None:
    """JSON with sorted keys: equal values give equal bytes."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
