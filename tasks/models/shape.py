"""The model's shape: which linear layers it has and how many parameters, read from `config.json`.

For models laid out like Llama (Code Llama, Mistral, Qwen2…) that takes no torch. Any other architecture is built
without weights on torch's meta device, which costs the import of torch and nothing else.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field

from artifacts.errors import InputError
from artifacts.schema import Record
from tasks.families import BIASED, HEAD, LLAMA_LAYERS
from tasks.models.architecture import FIELD, is_plain, read_config
from tasks.processes import bounded

ALL_LINEAR = "all-linear"
"""PEFT's name for every linear layer but the output head."""


class LinearKind(Record):
    """Linear layers of one name and size."""

    name: str
    """Dotted, without the number of the layer: `self_attn.q_proj`."""
    inputs: int
    outputs: int
    count: int
    transposed: bool = False
    """Whether the weight is stored inputs × outputs, as GPT-2's `Conv1D` has it."""

    @property
    def parameters(self) -> int:
        return self.inputs * self.outputs * self.count


class ModelShape(Record):
    """What memory and time depend on."""

    model_type: str
    hidden: int
    """Width of the residual stream."""
    layers: int
    vocabulary: int
    context: int
    """Longest sequence the model was made for, tokens; 0 where the configuration does not say."""
    linears: tuple[LinearKind, ...]
    """Those that are quantized: all but the output head."""
    other_parameters: int
    """Embeddings, output head, norms, biases: kept in the compute precision."""
    other_modules: tuple[str, ...] = ("embed_tokens", HEAD)
    """Further names that an adapter may be put on."""
    weight_bytes: float = 2
    """Bytes per parameter in the published weights."""
    heads: int = 0
    """Attention heads; 0 where the architecture is not known."""
    config: dict[str, Any] = Field(default_factory=dict, repr=False)
    """What its `config.json` says."""
    tensors: dict[str, tuple[int, ...]] = Field(default_factory=dict, repr=False)
    """Its weights by name, where only transformers knows them; without those that it ties to others."""

    def kind(self, name: str) -> LinearKind:
        """The linear layer of this dotted name."""
        return next(kind for kind in self.linears if kind.name == name)

    def adapts_other_modules(self, names: tuple[str, ...]) -> bool:
        """Whether an adapter is to be put on a module that is no linear layer of the decoder."""
        return any(_ends_with(module, name) for module in self.other_modules for name in names)

    @cached_property
    def linear_parameters(self) -> int:
        return sum(kind.parameters for kind in self.linears)

    @cached_property
    def parameters(self) -> int:
        return self.linear_parameters + self.other_parameters

    def targets(self, names: tuple[str, ...]) -> list[LinearKind]:
        """The linear layers that PEFT would adapt: those whose dotted name ends with one of the names."""
        if names == (ALL_LINEAR,):
            return list(self.linears)
        return [kind for kind in self.linears if any(_ends_with(kind.name, name) for name in names)]

    def lora_parameters(self, rank: int, names: tuple[str, ...]) -> int:
        """Weights of the two low-rank factors of every adapted layer."""
        return sum(rank * (kind.inputs + kind.outputs) * kind.count for kind in self.targets(names))

    def check_targets(self, names: tuple[str, ...]) -> None:
        """Every name must be that of linear layers that an adapter can be trained on and exported from.

        Raises:
            InputError: one is not; the message lists what there is.
        """
        missing = [name for name in names if name != ALL_LINEAR and not self.targets((name,))]
        transposed = [kind.name for kind in self.targets(names) if kind.transposed]
        if missing:
            what = f"the model has no linear layer named {', '.join(map(repr, missing))}"
        elif transposed:
            what = f"adapters on transposed layers (Conv1D) cannot be merged or compared: {', '.join(transposed)}"
        else:
            return
        choice = sorted({kind.name.rpartition(".")[2] for kind in self.linears if not kind.transposed})
        raise InputError(
            what,
            field="training.lora.target_modules",
            remedy=f"choose among {', '.join(choice)}" if choice else "use a model of another family, such as Llama",
        )


def read_shape(folder: Path) -> ModelShape:
    """The shape of the model whose `config.json` lies in `folder`.

    Raises:
        InputError: the configuration cannot be read or describes no causal language model.
    """
    config = read_config(folder)
    if is_plain(config):
        return llama_shape(config)
    # Only transformers knows what the other fields mean: it tries to build the model, where it can do no harm.
    described = bounded.ask("tasks.models.shape:describe", folder, field=FIELD, remedy=_REMEDY)
    return llama_shape(config) if config["model_type"] in LLAMA_LAYERS else ModelShape.model_validate(described)


def describe(folder: Path) -> dict[str, Any]:
    """The shape of a model that transformers builds. Imports torch."""
    return _built_shape(folder, read_config(folder)).model_dump(mode="json")


_REMEDY = "name a causal language model in the form of transformers"


def llama_shape(config: dict[str, Any]) -> ModelShape:
    """The shape of one of `LLAMA_LAYERS`, from what its `config.json` says."""
    hidden, layers, mlp = config["hidden_size"], config["num_hidden_layers"], config["intermediate_size"]
    heads, vocabulary = config["num_attention_heads"], config["vocab_size"]
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    sizes = {
        "self_attn.q_proj": (hidden, queries),
        "self_attn.k_proj": (hidden, keys),
        "self_attn.v_proj": (hidden, keys),
        "self_attn.o_proj": (queries, hidden),
        "mlp.gate_proj": (hidden, mlp),
        "mlp.up_proj": (hidden, mlp),
        "mlp.down_proj": (mlp, hidden),
    }
    embeddings = vocabulary * hidden * (1 if config.get("tie_word_embeddings", False) else 2)
    biases = sum(sizes[name][1] for name in BIASED.get(config["model_type"], ())) * layers
    return ModelShape(
        model_type=config["model_type"],
        hidden=hidden,
        layers=layers,
        vocabulary=vocabulary,
        context=config.get("max_position_embeddings") or 0,
        linears=tuple(
            LinearKind(name=name, inputs=inputs, outputs=outputs, count=layers)
            for name, (inputs, outputs) in sizes.items()
        ),
        other_parameters=embeddings + biases + (2 * layers + 1) * hidden,
        weight_bytes=_weight_bytes(config),
        heads=heads,
        config=dict(config),
    )


def _weight_bytes(config: dict[str, Any]) -> float:
    """The published precision; transformers 5 writes `dtype` where earlier versions wrote `torch_dtype`."""
    return 4 if (config.get("dtype") or config.get("torch_dtype")) in ("float32", "float") else 2


def _built_shape(folder: Path, raw: dict[str, Any]) -> ModelShape:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, KeyError, AttributeError, ImportError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{folder / 'config.json'} describes no model that transformers can build ({said})",
            field=FIELD,
            remedy=_REMEDY,
        ) from error
    head = model.get_output_embeddings()
    linears = Counter(
        (_without_numbers(name), *_linear_size(module), not isinstance(module, torch.nn.Linear))
        for name, module in model.named_modules()
        if module is not head and _linear_size(module) is not None
    )
    kinds = tuple(
        LinearKind(name=name, inputs=inputs, outputs=outputs, count=count, transposed=transposed)
        for (name, inputs, outputs, transposed), count in linears.items()
    )
    text = config.get_text_config()
    return ModelShape(
        model_type=raw["model_type"],
        hidden=text.hidden_size,
        layers=text.num_hidden_layers,
        vocabulary=text.vocab_size,
        context=getattr(text, "max_position_embeddings", None) or 0,
        linears=kinds,
        other_parameters=sum(p.numel() for p in model.parameters()) - sum(kind.parameters for kind in kinds),
        other_modules=tuple(
            name.rpartition(".")[2]
            for name, module in model.named_modules()
            if module is head or isinstance(module, torch.nn.Embedding)
        ),
        weight_bytes=_weight_bytes(raw),
        config=raw,
        tensors={name: tuple(parameter.shape) for name, parameter in model.named_parameters()},
    )


def _linear_size(module: Any) -> Any:
    """(inputs, outputs) of a linear layer, GPT-2's transposed `Conv1D` included; None for anything else."""
    import torch
    from transformers.pytorch_utils import Conv1D

    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    return tuple(module.weight.shape) if isinstance(module, Conv1D) else None


def _without_numbers(name: str) -> str:
    """`model.layers.3.self_attn.q_proj` → `self_attn.q_proj`: what follows the last number, or the whole name."""
    parts = name.split(".")
    numbers = [position for position, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[numbers[-1] + 1 :]) if numbers and numbers[-1] + 1 < len(parts) else name


def _ends_with(name: str, ending: str) -> bool:
    return name == ending or name.endswith("." + ending)
