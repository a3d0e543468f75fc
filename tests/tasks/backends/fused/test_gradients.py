"""The engine's hand-written backward pass against autograd, in fp32: no kernel, but every formula."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from artifacts.schema import Quantization
from tasks.backends.fused.model import FusedModel, unsupported
from tests.tasks.backends.fused import models

pytestmark = pytest.mark.skipif(models.DEVICE == "cuda", reason="compares in fp32, as a machine without a GPU computes")


def agree(model: Any, checkpointed: int = 0, resident: int = 0, tolerance: float = 1e-4) -> None:
    ids, labels = models.texts(model)
    expected = models.autograd_gradients(model, ids, labels)
    found = models.engine_gradients(model, ids, labels, checkpointed=checkpointed, resident=resident)
    assert found.loss == pytest.approx(expected.loss, abs=1e-5)
    assert found.gradients.keys() == expected.gradients.keys()
    for name, gradient in expected.gradients.items():
        assert (found.gradients[name] - gradient).norm() < tolerance * gradient.norm(), name


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear", ("k_proj", "down_proj")])
def test_gradients_are_those_of_autograd(quantization: Quantization, targets: Any) -> None:
    agree(models.tiny(quantization, targets))


@pytest.mark.parametrize("checkpointed", [3, 8])
def test_recomputed_layers_change_nothing(checkpointed: int) -> None:
    agree(models.tiny("int8"), checkpointed)


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
def test_unpacked_layers_change_nothing(quantization: Quantization) -> None:
    agree(models.tiny(quantization, "all-linear"), checkpointed=2, resident=5)


@pytest.mark.parametrize("checkpointed", [0, 8])
def test_dropout_is_the_same_forward_backward_and_recomputed(checkpointed: int) -> None:
    """Against finite differences along the gradient, the same masks drawn again."""
    model = models.tiny("none", "all-linear")
    model.peft_config["default"].lora_dropout = 0.3
    model.train()
    ids, labels = models.texts(model)
    fused = FusedModel(model, checkpointed=checkpointed, length=ids.shape[1])
    one = torch.tensor(1.0)

    def loss_with_same_masks() -> float:
        torch.manual_seed(5)
        return float(fused.loss_and_gradients(ids, labels, one))

    fused.adapters.clear()
    loss_with_same_masks()
    gradient = fused.adapters.grads.clone()
    step = 1e-3 / float(gradient.norm())
    slopes = []
    for sign in (1, -1):
        fused.adapters.masters.add_(gradient, alpha=sign * step)
        slopes.append(loss_with_same_masks())
        fused.adapters.masters.sub_(gradient, alpha=sign * step)
    measured = (slopes[0] - slopes[1]) / (2 * step)
    assert measured == pytest.approx(float(gradient.square().sum()), rel=2e-2)
    model.eval()
    assert float(FusedModel(model, length=20).loss_and_gradients(ids, labels, one)) != pytest.approx(
        slopes[0], rel=1e-4
    )


def test_ranks_that_fill_no_whole_tile() -> None:
    agree(models.tiny("int8", rank=5))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_shared_keys_and_biases(kind: str, targets: Any) -> None:
    agree(models.other(kind, targets), tolerance=1e-3)


def test_gradients_of_micro_batches_add_up() -> None:
    model = models.tiny("int8")
    ids, labels = models.texts(model)
    whole = models.engine_gradients(model, ids, labels).gradients
    fused = FusedModel(model, length=ids.shape[1])
    fused.adapters.clear()
    items = int((labels[:, 1:] != -100).sum())
    for row in range(len(ids)):
        fused.loss_and_gradients(ids[row : row + 1], labels[row : row + 1], torch.tensor(1.0 / items))
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad - whole[name]).norm() < 1e-4 * whole[name].norm(), name


def test_models_that_it_does_not_know_are_named() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

    reason = unsupported(GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=16, n_head=2, vocab_size=50)))
    assert reason is not None and "gpt2" in reason
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1}
    sliding = MistralForCausalLM(MistralConfig(vocab_size=50, num_key_value_heads=1, sliding_window=8, **sizes))
    assert "sliding window of 8 " in str(unsupported(sliding))
    assert unsupported(models.tiny("int8")) is None
