"""Three of the eight layers of the built-in model: its tokenizer and real weights, for half of the arithmetic."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from pathlib import Path

BASE_MODEL = Path(__file__).parents[1] / "models" / "codellama-tiny"
LAYERS = (0, 5, 7)
"""Of all threes the one that still models code best: 6.5 nats a token, 9 being chance and 1.7 the whole model."""
PLACE = "CODETUNE_TESTS_SMALL_MODEL"


def cut() -> Path:
    """Its folder. The first process makes it, and removes it at its end; those that it starts find it by the
    environment."""
    if PLACE in os.environ:
        return Path(os.environ[PLACE])
    folder = Path(tempfile.mkdtemp(prefix="codetune-small-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    write(folder)
    os.environ[PLACE] = str(folder)
    return folder


def write(folder: Path) -> None:
    """Put it into a folder, readable for everybody."""
    from safetensors.numpy import load_file, save_file

    for name in ("generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(BASE_MODEL / name, folder)
    settings = json.loads((BASE_MODEL / "config.json").read_text()) | {"num_hidden_layers": len(LAYERS)}
    (folder / "config.json").write_text(json.dumps(settings))
    weights = {}
    for name, weight in load_file(BASE_MODEL / "model.safetensors").items():
        head, _, tail = name.removeprefix("model.layers.").partition(".")
        if not name.startswith("model.layers."):
            weights[name] = weight
        elif int(head) in LAYERS:
            weights[f"model.layers.{LAYERS.index(int(head))}.{tail}"] = weight
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # it is written for its owner alone


def write_large(folder: Path, base: Path, times: int = 4096) -> None:
    """A model that computes the same as `base`, with numbers so many times larger in its residual stream: what is added
    to it is larger, and norms make it small again. A power of two keeps every bit, in a type without an end."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(base, folder, dirs_exist_ok=True)
    settings = json.loads((base / "config.json").read_text())
    settings |= {"tie_word_embeddings": False, "rms_norm_eps": settings["rms_norm_eps"] * times**2}
    (folder / "config.json").write_text(json.dumps(settings))
    weights = load_file(base / "model.safetensors")
    weights.setdefault("lm_head.weight", weights["model.embed_tokens.weight"])
    for name, weight in weights.items():
        if name.endswith(("embed_tokens.weight", "o_proj.weight", "down_proj.weight")):
            weights[name] = weight * weight.dtype.type(times)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
