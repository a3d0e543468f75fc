"""Small models, and the loss and gradients that the engine and autograd find on them."""

from __future__ import annotations

import copy
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from artifacts.schema import Plan, Quantization
from tasks.backends.fused.capture import MicroBatch
from tasks.backends.fused.model import FusedModel
from tasks.backends.fused.weights import weights_of
from tasks.models.loading import load_base, silence_peft
from tests.conftest import BASE_MODEL

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
PLAN = Plan(
    device="cuda" if DEVICE == "cuda" else "cpu",
    precision="fp16" if DEVICE == "cuda" else "fp32",
    micro_batch=2,
    accumulation=2,
    gradient_checkpointing=False,
    backend="transformers",
)


@dataclass
class Found:
    loss: float
    """Mean over the tokens that count, nats."""
    gradients: dict[str, torch.Tensor]
    captured: bool = False


def tiny(
    quantization: Quantization,
    targets: Any = ("q_proj", "v_proj"),
    rank: int = 8,
    base: Path = BASE_MODEL,
    **plan: Any,
) -> Any:
    """The built-in model, or another `base`, with a LoRA adapter that is not zero. `plan`: what differs in it."""
    return with_adapter(load_base(base, quantization, PLAN.model_copy(update=plan)), targets, rank)


def outliers(quantization: Quantization, targets: Any, layers: int) -> Any:
    """A random model with channels 20 times larger than the others, as large models have them."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 512, "intermediate_size": 1376, "num_attention_heads": 4, "num_hidden_layers": layers}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=1000, **sizes)).half()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.input_layernorm.weight[torch.randperm(512)[:4]] *= 20
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        return with_adapter(load_base(Path(folder), quantization, PLAN), targets)


def other(kind: str, targets: Any) -> Any:
    """Random models of the family's other members: several heads for one key, biases."""
    from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(1)
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 8, "num_key_value_heads": 2}
    if kind == "llama":
        model: Any = LlamaForCausalLM(LlamaConfig(vocab_size=300, num_hidden_layers=3, **sizes))
    else:
        model = Qwen2ForCausalLM(Qwen2Config(vocab_size=300, num_hidden_layers=3, **sizes))
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)
    return with_adapter(model.requires_grad_(False).eval(), targets)


def with_adapter(model: Any, targets: Any, rank: int = 8) -> Any:
    from peft import LoraConfig, get_peft_model

    silence_peft()
    torch.manual_seed(2)
    names = targets if isinstance(targets, str) else list(targets)
    tuned = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", r=rank, lora_alpha=16, target_modules=names))
    for name, parameter in tuned.named_parameters():
        if "lora_" in name:
            parameter.data = parameter.data.float()
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return tuned


def texts(model: Any, sequences: int = 3, tokens: int = 20) -> tuple[torch.Tensor, torch.Tensor]:
    """Random ids, and labels with padding behind one text and a prompt before another."""
    torch.manual_seed(3)
    ids = torch.randint(3, model.config.vocab_size, (sequences, tokens), device=DEVICE)
    labels = ids.clone()
    labels[0, -5:] = labels[1, :4] = -100
    return ids, labels


def autograd_gradients(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> Found:
    """What transformers, PEFT and autograd make of it."""
    model.zero_grad()
    loss = model(input_ids=ids, labels=labels).loss
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.requires_grad}
    model.zero_grad()
    return Found(loss.item(), gradients)


def engine_gradients(
    model: Any,
    ids: torch.Tensor,
    labels: torch.Tensor,
    *,
    checkpointed: int = 0,
    resident: int = 0,
    captured: bool = False,
) -> Found:
    """What the engine makes of it; gradients are scaled by 1,024 on the way, as a gradient scaler does."""
    fused = FusedModel(model, checkpointed=checkpointed, resident=resident, length=ids.shape[1])
    fused.adapters.clear()
    items = int((labels[:, 1:] != -100).sum())
    factor = torch.tensor(1024.0 / items, device=ids.device)
    run: Any = fused.loss_and_gradients
    recorded = False
    if captured:
        batch = MicroBatch(fused, (ids.shape[0], ids.shape[1]))
        run, recorded = batch.run, batch.captured
    loss = float(run(ids, labels, factor)) / items
    gradients = {name: p.grad / 1024 for name, p in model.named_parameters() if p.requires_grad}
    return Found(loss, gradients, recorded)


def in_fp32(model: Any) -> Any:
    """The same model on the host in fp32, its quantized layers replaced by what they dequantize to."""
    from bitsandbytes.nn import Linear4bit, Linear8bitLt

    plain = copy.deepcopy(model)
    for name, module in list(plain.named_modules()):
        if isinstance(module, (Linear4bit, Linear8bitLt)):
            (weight,) = weights_of([module])
            out = torch.empty((weight.rows, weight.columns), dtype=torch.float16, device=DEVICE)
            weight.unpack(out)
            linear = nn.Linear(weight.columns, weight.rows, bias=False)
            linear.weight = nn.Parameter(out.float().cpu(), requires_grad=False)
            parent, _, child = name.rpartition(".")
            setattr(plain.get_submodule(parent), child, linear)
    return plain.float().cpu()
