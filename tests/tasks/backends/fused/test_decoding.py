"""Greedy answers and losses of the engine against transformers', in fp32: no kernel, but every formula and index."""

from __future__ import annotations

import random
from typing import Any

import bitsandbytes
import pytest
import torch

from artifacts.schema import Quantization
from tasks.backends.contract import Decoding
from tasks.backends.fused import ops
from tasks.backends.fused.decoding import Decoder, unsupported
from tasks.backends.fused.weights import weights_of
from tasks.backends.transformers.answers import generate
from tests.conftest import SMALL_MODEL
from tests.tasks.backends.fused import models
from tests.tasks.generation.world import toy

pytestmark = pytest.mark.skipif(models.DEVICE == "cuda", reason="compares in fp32, as a machine without a GPU computes")
STOP = frozenset(range(0, 97, 12))


def prompts(count: int, vocabulary: int = 97, longest: int = 40) -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(3, vocabulary) for _ in range(rng.randrange(1, longest))] for _ in range(count)]


def expected(model: Any, asked: list[list[int]], new_tokens: int) -> list[list[int]]:
    """By transformers' `generate`, one prompt at a time."""
    found = []
    for prompt in asked:
        ids = torch.tensor([prompt])
        sequence = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=new_tokens,
            eos_token_id=2,
            pad_token_id=0,
        )
        found.append(sequence[0, len(prompt) :].tolist())
    return found


def agree(model: Any) -> None:
    asked = prompts(7, model.config.vocab_size)
    tuned = expected(model, asked, 12)
    with model.disable_adapter():
        base = expected(model, asked, 12)
    decoder, settings = Decoder(model, 60), Decoding(batch_size=3, max_new_tokens=12, stop=frozenset({2}))
    assert decoder.generate(asked, settings, adapted=True) == tuned
    assert decoder.generate(asked, settings, adapted=False) == base
    assert tuned != base, "an adapter that says the same tests nothing"


@pytest.mark.parametrize("quantization", ["int8", "nf4", "none"])
@pytest.mark.parametrize("targets", [("q_proj", "v_proj"), "all-linear"])
def test_answers_are_those_of_transformers(quantization: Quantization, targets: Any) -> None:
    agree(amplified(models.tiny(quantization, targets, base=SMALL_MODEL)))


@pytest.mark.parametrize("kind", ["llama", "qwen2"])
def test_shared_keys_and_biases(kind: str) -> None:
    agree(amplified(models.other(kind, "all-linear")))


def amplified(model: Any) -> Any:
    """With an adapter so strong that it changes what is said."""
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data *= 10
    return model


@pytest.mark.parametrize("rows", [1, 5, 16, 64])
def test_slots_that_are_used_again_change_nothing(rows: int) -> None:
    asked = prompts(37)
    stock = generate(toy(), asked, Decoding(batch_size=16, max_new_tokens=24, stop=STOP, pad=0))
    counts: list[int] = []
    found = Decoder(toy(), 64).generate(asked, Decoding(rows, 24, STOP), adapted=False, done=counts.append)
    assert found == stock and sum(counts) == 37
    assert len(set(map(len, found))) > 5, "answers of one length do not test slots becoming free"


@pytest.mark.parametrize("new_tokens", [1, 2, 9])
def test_no_answer_is_longer_than_was_said(new_tokens: int) -> None:
    asked = prompts(9)
    stock = generate(toy(), asked, Decoding(batch_size=4, max_new_tokens=new_tokens, stop=frozenset(), pad=0))
    found = Decoder(toy(), 64).generate(asked, Decoding(4, new_tokens, frozenset()), adapted=False)
    assert found == stock and {len(answer) for answer in found} == {new_tokens}


def test_a_decoder_answers_again_whatever_came_before() -> None:
    decoder, asked = Decoder(toy(), 64), prompts(6)
    first = decoder.generate(asked, Decoding(3, 12, STOP), adapted=False)
    decoder.generate(prompts(3, longest=9), Decoding(2, 5, STOP), adapted=False)
    assert decoder.generate(asked, Decoding(3, 12, STOP), adapted=False) == first
    assert decoder.generate([], Decoding(3, 12, STOP), adapted=False) == []


def test_texts_longer_than_was_said_are_refused() -> None:
    with pytest.raises(ValueError, match=r" 21 .* 20"):
        Decoder(toy(), 20).generate([[5] * 9], Decoding(1, 12, STOP), adapted=False)


@pytest.mark.parametrize("quantization", ["int8", "none"])
def test_losses_are_those_of_transformers(quantization: Quantization) -> None:
    model = models.tiny(quantization)
    ids, labels = models.texts(model)
    following = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=ops.IGNORED)
    counted = int((following != ops.IGNORED).sum())
    with torch.no_grad():
        tuned = model(input_ids=ids, labels=labels).loss * counted
        with model.disable_adapter():
            base = model(input_ids=ids, labels=labels).loss * counted
    decoder = Decoder(model, ids.shape[1])
    for adapted, stock in ((True, tuned), (False, base)):
        losses = decoder.losses(ids, following, adapted=adapted)
        assert losses.sum().item() == pytest.approx(stock.item(), rel=1e-5)
        assert not losses[following == ops.IGNORED].any()


def test_a_product_of_few_rows_is_that_with_the_unpacked_weight() -> None:
    module = models.tiny("int8", ("o_proj",)).base_model.model.model.layers[0].mlp.down_proj
    (weight,) = weights_of([module])
    matrix = torch.empty(weight.rows, weight.columns)
    weight.unpack(matrix)
    x = torch.randn(5, weight.columns)
    torch.testing.assert_close(ops.int8_linear(x, weight.codes, weight.scales), x @ matrix.T)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("rows", "columns"), [(4096, 4096), (12288, 4096), (22016, 4096), (4096, 11008), (64, 96)])
def test_weights_are_cut_into_enough_programs(rows: int, columns: int) -> None:
    blocks, splits = ops.int8_grid(rows, columns)
    assert blocks * splits >= 132 or splits == -(-columns // 128)


def test_adapters_beyond_two_factors_are_named() -> None:
    from peft import LoraConfig, get_peft_model

    dora = get_peft_model(toy(), LoraConfig(target_modules=["q_proj"], use_dora=True))
    assert "adapter" in str(unsupported(dora))
    assert unsupported(toy()) is None


@pytest.mark.parametrize("columns", [128, 96])
@pytest.mark.parametrize("dtype", [None, torch.float32])
def test_products_of_few_rows_with_weights_of_any_width(
    columns: int, dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """bitsandbytes' kernel wants whole blocks of 64; without them it warns in every product."""
    asked: list[int] = []

    def theirs(x: torch.Tensor, *rest: Any) -> torch.Tensor:
        asked.append(x.shape[1])
        return real(x, *rest)

    real = bitsandbytes.matmul_4bit
    monkeypatch.setattr(bitsandbytes, "matmul_4bit", theirs)
    torch.manual_seed(0)
    layer = bitsandbytes.nn.Linear4bit(columns, 32, bias=False, quant_type="nf4", compute_dtype=torch.bfloat16)
    layer = layer.to(torch.bfloat16).to(models.DEVICE)
    (weight,) = weights_of([layer])
    unpacked = torch.empty(32, columns, dtype=torch.bfloat16, device=models.DEVICE)
    weight.unpack(unpacked)
    x = torch.randn(3, columns, dtype=torch.bfloat16, device=models.DEVICE)
    made = weight.product(x, dtype)
    assert made.dtype == (dtype or torch.bfloat16)
    torch.testing.assert_close(made.float(), x.float() @ unpacked.float().T, rtol=0.02, atol=0.02)
    assert asked == ([columns] if columns == 128 else [])
