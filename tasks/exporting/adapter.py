"""The trained LoRA adapter: what it holds, and what it adds to which weight."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifacts.errors import StageError
from tasks.models.base_model import ModelReference

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"

_KEY = re.compile(r"base_model\.model\.(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?")
_CACHED = re.compile(r"/models--(?P<owner>[^/]+?)--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})/?$")
_UNMERGEABLE = ("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "trainable_token_indices")
SETS = ("target_modules", "exclude_modules", "modules_to_save")
_REMEDY = "train again with `codetune run … --refresh training`, or export the adapter only: exporting.forms=[]"


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter on the disk."""

    folder: Path
    settings: dict[str, Any]
    """`adapter_config.json`."""
    modules: dict[str, bool]
    """Names of the adapted modules, as in the base model's files without `.weight`; whether each is an embedding."""

    @classmethod
    def read(cls, folder: Path) -> Adapter:
        """Look at an adapter that PEFT saved.

        Raises:
            StageError: it is damaged, or holds something else than pairs of LoRA matrices.
        """
        from safetensors import SafetensorError, safe_open

        try:
            settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
            with safe_open(folder / WEIGHTS, framework="pt") as file:
                keys = list(file.keys())
        except (OSError, ValueError, SafetensorError) as error:
            raise StageError(f"the trained adapter cannot be read: {error}", remedy=_REMEDY) from error
        matches = [_KEY.fullmatch(key) for key in keys]
        sides = sorted((match["module"], match["side"]) for match in matches if match)
        modules = {match["module"]: bool(match["embedding"]) for match in matches if match}
        if not modules or None in matches or sides != sorted((name, side) for name in modules for side in "AB"):
            raise StageError("the trained adapter holds other weights than pairs of LoRA matrices", remedy=_REMEDY)
        return cls(folder, settings, modules)

    def check_mergeable(self) -> None:
        """Refuse kinds of adapter whose effect is not W + scaling · B·A.

        Raises:
            StageError: it is of such a kind.
        """
        found = [name for name in _UNMERGEABLE if self.settings.get(name)]
        if self.settings.get("bias", "none") != "none":
            found.append("bias")
        if found:
            problem = f"an adapter with {', '.join(found)} cannot be merged into the base model"
            raise StageError(problem, field="exporting.forms", remedy="set exporting.forms=[]")

    def shape(self, module: str) -> tuple[int, ...]:
        """The shape of the weight that the adapter adds to."""
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            low, high = (tuple(file.get_slice(name).get_shape()) for name in self._names(module))
        return (low[1], high[0]) if self.modules[module] else (high[0], low[1])

    def delta(self, module: str) -> torch.Tensor:
        """What the adapter adds to a module's weight: scaling · B·A in fp32, of the weight's shape.

        Source: `Linear.get_delta_weight` and `Embedding.get_delta_weight` in peft/tuners/lora/layer.py.
        """
        from peft.utils.other import get_pattern_key
        from safetensors import safe_open

        with safe_open(self.folder / WEIGHTS, framework="pt") as file:
            low, high = (file.get_tensor(name).float() for name in self._names(module))
        product: torch.Tensor = high @ low
        patterns, rank = self.settings.get("alpha_pattern") or {}, low.shape[0]
        alpha = float(patterns.get(get_pattern_key(list(patterns), module), self.settings["lora_alpha"]))
        scaling = alpha / (math.sqrt(rank) if self.settings.get("use_rslora") else rank)
        return scaling * (product.T if self.modules[module] else product)

    def _names(self, module: str) -> list[str]:
        kind = "lora_embedding_{}" if self.modules[module] else "lora_{}.weight"
        return [f"base_model.model.{module}.{kind.format(side)}" for side in "AB"]


def found_at(model: ModelReference, base: Path) -> tuple[str, str | None]:
    """The base model as it is loaded here, and its revision: by name from the hub, or from the folder `base`."""
    return (model.name, model.revision) if model.revision is not None else (str(base.resolve()), None)


def public_name(model: ModelReference) -> tuple[str, str | None]:
    """The base model as others find it, and its revision: its repository and commit, also where it was read from a
    hub's cache. Another folder is called as it was configured, which tells less of this machine than its whole path."""
    if model.revision is None and (found := _CACHED.search(str(model.metadata))):
        return f"{found['owner']}/{found['name']}", found["commit"]
    return model.name, model.revision
