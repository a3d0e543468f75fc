"""Which tensors the base model has, which of them are quantized, and in which file each one goes.

What is quantized is what transformers would quantize when it loads the model: its own quantizer replaces the layers of
a model without weights, and those that it replaced are looked up by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from artifacts.errors import InputError
from tasks.models.files import weight_files
from tasks.models.libraries import import_bitsandbytes
from tasks.models.loading import quantization_config

Role = Literal["linear", "transposed", "other"]
"""`transposed`: a linear layer whose weight is stored inputs × outputs (GPT-2's `Conv1D`)."""


@dataclass(frozen=True)
class Tensor:
    """A tensor of the base model, and what becomes of it."""

    name: str
    """In the model; this is its name in the artifact too."""
    stored: str
    """Its name in the file it is read from; published files may leave out or add the name of the inner model."""
    source: Path
    shape: tuple[int, ...]
    original_bytes: int
    role: Role

    @property
    def parameters(self) -> int:
        count = 1
        for length in self.shape:
            count *= length
        return count

    def expected_bytes(self, quantization: str) -> int:
        """About how large it will be; the few bytes that describe a quantization are left out."""
        if self.role == "other":
            return self.original_bytes
        return self.parameters + 4 * self.shape[0] if quantization == "int8" else self.parameters * 9 // 16


def plan_shards(base: Path, quantization: Literal["int8", "nf4"], max_shard: int) -> list[list[Tensor]]:
    """The model's tensors ordered by name, cut where a file would exceed `max_shard` bytes.

    Raises:
        InputError: the weights cannot be read, are quantized already, or lack some of a linear layer's.
    """
    shards: list[list[Tensor]] = [[]]
    size = 0
    for tensor in read_tensors(base, quantization):
        expected = tensor.expected_bytes(quantization)
        if shards[-1] and size + expected > max_shard:
            shards.append([])
            size = 0
        shards[-1].append(tensor)
        size += expected
    return shards


def read_tensors(base: Path, quantization: Literal["int8", "nf4"]) -> list[Tensor]:
    """Every tensor in the model's files, ordered by its name in the model; raises as `plan_shards`."""
    from safetensors import SafetensorError, safe_open

    model = _replaced(base, quantization)
    known, prefix = set(model.state_dict()), f"{model.base_model_prefix}."
    linear = _linear_layers(model)
    found: dict[str, Tensor] = {}
    for file in weight_files(base):
        try:
            with safe_open(base / file, framework="pt") as opened:
                for stored in opened.keys():  # noqa: SIM118 - not a mapping
                    part, name = opened.get_slice(stored), _name_in_model(stored, known, prefix)
                    shape = tuple(part.get_shape())
                    _check(base, name, shape, linear)
                    role: Role = linear[name].role if name in linear else "other"
                    found[name] = Tensor(name, stored, base / file, shape, _bytes(part.get_dtype(), shape), role)
        except (SafetensorError, OSError) as error:
            raise unusable(base, f"{file} cannot be read ({error})") from error
    missing = sorted(set(linear) - set(found))
    if missing:
        raise unusable(base, f"{len(missing)} weights of linear layers are missing, {missing[0]} first")
    return [found[name] for name in sorted(found)]


def unusable(base: Path, problem: str) -> InputError:
    """The refusal of a model whose weights cannot be quantized."""
    return InputError(
        f"{base} cannot be quantized: {problem}",
        field="model.name",
        remedy="name a folder or repository with a complete, unquantized causal language model in safetensors",
    )


@dataclass(frozen=True)
class _Linear:
    """How the weight of a layer that will be quantized is stored."""

    shape: tuple[int, ...]
    role: Role


def _replaced(base: Path, quantization: Literal["int8", "nf4"]) -> Any:
    """The model without weights, its linear layers replaced by those of bitsandbytes."""
    import torch

    import_bitsandbytes()
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.quantizers import AutoHfQuantizer

    try:
        config = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False)
        if getattr(config, "quantization_config", None) is not None:
            raise unusable(base, "it is quantized already")
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (InputError, RuntimeError):
        raise
    except Exception as error:  # the library has many kinds for a folder that it cannot use
        raise unusable(base, next(iter(str(error).splitlines()), type(error).__name__)) from error
    quantizer = AutoHfQuantizer.from_config(quantization_config(quantization, torch.float32), pre_quantized=False)
    quantizer.preprocess_model(model, device_map={"": "cpu"})
    return model


def _linear_layers(model: Any) -> dict[str, _Linear]:
    """By the name of the weight: the layers that bitsandbytes replaced."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt
    from transformers.pytorch_utils import Conv1D

    found = {}
    for name, module in model.named_modules():
        if isinstance(module, (Linear4bit, Linear8bitLt)):
            shape = (module.out_features, module.in_features)
            transposed = issubclass(module.source_cls, Conv1D)
            role: Role = "transposed" if transposed else "linear"
            found[f"{name}.weight"] = _Linear(shape[::-1] if transposed else shape, role)
    return found


def _name_in_model(stored: str, known: set[str], prefix: str) -> str:
    """Published files hold the inner model's names with or without its prefix; transformers takes both."""
    candidates = (stored, prefix + stored, stored.removeprefix(prefix))
    return next((name for name in candidates if name in known), stored)


def _check(base: Path, name: str, shape: tuple[int, ...], linear: dict[str, _Linear]) -> None:
    if name in linear and linear[name].shape != shape:
        raise unusable(base, f"{name} is {shape}, its config.json asks for {linear[name].shape}")


def _bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Size of a tensor of that type, by its name in safetensors: `F16`, `BF16`, `I64`, `F8_E4M3`, `BOOL`."""
    bits = "".join(character for character in dtype.split("_")[0] if character.isdigit())
    size = int(bits) // 8 if bits else 1
    for length in shape:
        size *= length
    return size
