"""Loading a causal language model as the job wants it: quantized, frozen, on its device, with or without adapter.

The same function serves training, exporting and evaluation, so that base and tuned are always computed alike.

The model is frozen by hand: `peft.prepare_model_for_kbit_training` would make the norms fp32, activations would reach
the int8 layers in fp32, and the backward pass of bitsandbytes would dequantize every weight to fp32. Here norms,
embeddings and output layer stay in the type that the plan computes in. (On-the-fly quantization needs no
`HF_DEACTIVATE_ASYNC_LOAD` any more: transformers 5.23 reads sequentially by itself then, see
`core_model_loading.convert_and_load_state_dict_in_model`.)

A folder that the quantization stage wrote is recognized by its `config.json` and read as it is, by several threads and
without any arithmetic. What comes of it is the same, bit for bit, as quantizing weights published in fp16 on the way
in, where fp16 or fp32 is computed in; for bf16 transformers would round the weights to bf16 before it quantizes them.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from artifacts.errors import InputError, StageError
from artifacts.schema import Plan, Quantization
from tasks.families import HEAD
from tasks.models.adapter_files import check_finite, read_adapter
from tasks.models.files import CONFIG, read_json
from tasks.models.libraries import import_bitsandbytes
from tasks.models.residual import keep_in_fp32

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from transformers import PreTrainedModel

GIB = 2**30
Device = Literal["cuda", "cpu"]


def load_base(folder: Path, quantization: Quantization, plan: Plan) -> PreTrainedModel:
    """The base model on `plan.device`, weights quantized, every parameter frozen, in eval mode.

    `folder` holds the model as published or, quantized already, a `QuantizedBase` of the same kind.
    Computes in fp32 on a CPU and in `plan.precision` on a GPU, with `plan.fp32_residual` but for the residual stream;
    embeddings and output layer are never quantized.

    Raises:
        InputError: the folder holds no causal language model that transformers can load, lacks some weights, or is
            quantized otherwise.
        StageError: the weights cannot be quantized, mostly for want of memory.
    """
    stored = stored_quantization(folder)
    if stored not in ("none", quantization):
        raise _unusable(folder, f"its weights are stored as {stored}, where {quantization} is asked for")
    _cap_memory(plan)
    dtype = compute_dtype(plan)
    model = _from_pretrained(folder, quantization, plan.device, dtype, stored)
    if stored != "none":
        _compute_in(model, dtype)
    if plan.device == "cpu":
        _compute_alike_in_eval_mode(model)
    if plan.fp32_residual:
        keep_in_fp32(model, dtype)
    return model.requires_grad_(False).eval()


def stored_quantization(folder: Path) -> str:
    """How the weights in a model's folder are stored: `none` as published, `int8`, `nf4`, or another method's name."""
    try:
        settings = read_json(folder / CONFIG).get("quantization_config")
    except (OSError, ValueError, AttributeError):
        return "none"  # what is wrong with the folder is said when it is loaded
    if not settings:
        return "none"
    if settings.get("load_in_8bit"):
        return "int8"
    return str(settings.get("bnb_4bit_quant_type" if settings.get("load_in_4bit") else "quant_method"))


def quantized_as_published(folder: Path, quantization: Quantization, device: Device) -> PreTrainedModel:
    """The model with its linear layers quantized, and all else in the type that it is published in.

    Raises:
        InputError: as `load_base`, or the weights are quantized already.
        StageError: as `load_base`.
    """
    if stored_quantization(folder) != "none":
        raise _unusable(folder, "it is quantized already")
    return _from_pretrained(folder, quantization, device, published_dtype(folder), "none")


def published_dtype(folder: Path) -> torch.dtype:
    """The type of a model's weights, as its `config.json` says."""
    import torch

    settings = read_json(folder / CONFIG)
    dtype = getattr(torch, str(settings.get("dtype") or settings.get("torch_dtype")), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float16


def _from_pretrained(
    folder: Path, quantization: Quantization, device: Device, dtype: torch.dtype, stored: str
) -> PreTrainedModel:
    """What transformers makes of the folder, if nothing is missing there."""
    import_bitsandbytes()
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()  # a bar per file of weights, on stderr, whoever listens
    settings = quantization_config(quantization, dtype)
    try:
        how: dict[str, Any] = {"quantization_config": settings}
        if stored != "none":
            # In place of what the folder says: it cannot know which type will be computed in.
            how = {"config": AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)}
            how["config"].quantization_config = settings.to_dict()
        model, loading = AutoModelForCausalLM.from_pretrained(
            folder,
            **how,
            dtype=dtype,
            device_map={"": 0 if device == "cuda" else "cpu"},
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,  # unset, it asks at the terminal whether to run a model's own code
            ignore_mismatched_sizes=True,  # refused below, by name
            output_loading_info=True,
        )
    except RuntimeError as error:
        # transformers catches what goes wrong while it quantizes, logs it and raises this in its place
        said = str(error)
        if "conversion of the weights" not in said:
            if any(word in said for word in ("memory", "CUDA")):  # the machine's fault
                raise
            raise _unusable(folder, said.partition("\n")[0]) from error
        raise StageError(
            f"the weights could not be brought into memory as {quantization}; the log says why",
            field="training.quantization",
            remedy="mostly the GPU's memory runs out: free it of other processes, or use nf4",
        ) from error
    except Exception as error:  # the libraries have many kinds for a folder that they cannot use
        raise _unusable(folder, next(iter(str(error).splitlines()), type(error).__name__)) from error
    if loading["missing_keys"] or loading["mismatched_keys"]:
        missing = sorted([*loading["missing_keys"], *(str(key) for key, *_ in loading["mismatched_keys"])])
        raise _unusable(folder, f"{len(missing)} weights are missing or misshapen, {missing[0]} first")
    _check_quantized(model, folder)
    found: PreTrainedModel = model
    return found


def attach_adapter(model: PreTrainedModel, adapter: Path) -> PeftModel:
    """The model with a trained LoRA adapter (`Checkpoint.path / "adapter"`), frozen, adapter weights in fp32.

    Raises:
        InputError: the adapter is incomplete or damaged, holds what is no number, or was made for another base.
    """
    from peft import PeftModel

    silence_peft()
    saved = read_adapter(adapter)
    saved.check_fit(*_sizes(model))
    check_finite(saved)
    tuned = PeftModel.from_pretrained(
        model, str(adapter), config=saved.config(), is_trainable=False, autocast_adapter_dtype=True
    )
    return tuned.requires_grad_(False).eval()


def _sizes(model: PreTrainedModel) -> tuple[dict[str, tuple[int, int]], dict[str, tuple[int, int]]]:
    """Inputs and outputs of linear layers; rows and width of embeddings."""
    linear, embeddings = {}, {}
    for name, module in model.named_modules():
        if hasattr(module, "in_features"):
            linear[name] = (module.in_features, module.out_features)
        elif hasattr(module, "num_embeddings"):
            embeddings[name] = (module.num_embeddings, module.embedding_dim)
    return linear, embeddings


def silence_peft() -> None:
    """Drop the one warning that PEFT 0.21 causes by itself: it reads an attribute that transformers 5.23 renamed
    (`peft_model.py`, `_prepare_model_for_gradient_checkpointing`)."""
    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)


def compute_dtype(plan: Plan) -> torch.dtype:
    """The type of activations and unquantized weights."""
    import torch

    if plan.device == "cpu":
        return torch.float32
    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[plan.precision]


def quantization_config(quantization: Quantization, dtype: torch.dtype) -> Any:
    """What transformers is told: a `BitsAndBytesConfig`, None for no quantization. `dtype`: what is computed in."""
    from transformers import BitsAndBytesConfig

    match quantization:
        case "int8":
            return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=[HEAD])
        case "nf4":
            return BitsAndBytesConfig(
                load_in_4bit=True,
                bnb_4bit_quant_type="nf4",
                bnb_4bit_compute_dtype=dtype,
                llm_int8_skip_modules=[HEAD],
            )
        case "none":
            return None


def _check_quantized(model: PreTrainedModel, folder: Path) -> None:
    """Every quantized weight has its shape, which transformers does not look at, and its scales: they are no
    parameters, and transformers does not miss them."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    layers = {name: one for name, one in model.named_modules() if isinstance(one, (Linear4bit, Linear8bitLt))}
    scales = {
        name: getattr(module.weight, "SCB" if isinstance(module, Linear8bitLt) else "quant_state", None)
        for name, module in layers.items()
    }
    without = [name for name, found in scales.items() if found is None]
    if without:
        raise _unusable(folder, f"{len(without)} quantized layers lack their scales, {without[0]} first")
    for name, module in layers.items():
        shape = tuple(module.weight.shape if isinstance(module, Linear8bitLt) else module.weight.quant_state.shape)
        wanted = (module.out_features, module.in_features)
        if shape != wanted:
            raise _unusable(folder, f"{name}.weight is {shape}, its config.json asks for {wanted}")


def _compute_in(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Bring what is not quantized into the compute type: read from a quantized folder, transformers leaves norms and
    embeddings in the type they are stored in, and nf4 weights would be dequantized to the type they once had."""
    from bitsandbytes.nn import Int8Params, Params4bit

    for parameter in model.parameters():
        if isinstance(parameter, Params4bit):
            parameter.quant_state.dtype = dtype
        elif not isinstance(parameter, Int8Params) and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtype)


def _compute_alike_in_eval_mode(model: PreTrainedModel) -> None:
    """Make the quantized layers compute the same in training and evaluation.

    On a CPU bitsandbytes chooses by `module.training`: in training it dequantizes the weights and multiplies in fp32;
    in eval mode int8 goes through fp16 (with a warning at every call, `autograd/_functions.py`) and nf4 repacks its
    weights for bf16 kernels where the processor has them (`nn/modules.py`). These layers hold no dropout, so the mode
    decides nothing else.
    """
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    for module in model.modules():
        if isinstance(module, (Linear4bit, Linear8bitLt)):
            module.register_forward_pre_hook(_set_training)


def _set_training(module: torch.nn.Module, _inputs: Any) -> None:
    module.training = True


def _cap_memory(plan: Plan) -> None:
    """Let this process allocate no more of the GPU than the plan says; beyond it is an out-of-memory error."""
    if plan.device != "cuda" or plan.gpu_memory_gib is None:
        return
    import torch

    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, plan.gpu_memory_gib * GIB / total))


def _unusable(folder: Path, problem: str) -> InputError:
    return InputError(
        f"{folder} cannot be loaded: {problem}",
        field="model.name",
        remedy="name a folder or repository with a complete causal language model in safetensors",
    )
