"""llama.cpp computes what the libraries' modules do, on a file of 16 bits of the same model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from tasks.backends.contract import Decoding
from tasks.backends.llama_cpp.inference import GgufComputing
from tasks.backends.transformers.inference import Modules
from tasks.gguf.converter import convert
from tasks.gguf.loaded import GgufModel
from tasks.models.vocabulary import encode, load_tokenizer
from tests.conftest import SMALL_MODEL
from tests.tasks.gguf.extra import WITH_EXTRA
from tests.tasks.tokenization import toys

pytestmark = WITH_EXTRA


@pytest.fixture(scope="module")
def computing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GgufComputing]:
    file = tmp_path_factory.mktemp("file") / "small-f16.gguf"
    convert(SMALL_MODEL, file, load_tokenizer(SMALL_MODEL), name="small", infills=True)
    with GgufModel(file) as model:
        yield GgufComputing(model)


@pytest.fixture(scope="module")
def modules() -> Modules:
    from transformers import AutoModelForCausalLM

    return Modules(AutoModelForCausalLM.from_pretrained(SMALL_MODEL, dtype=torch.float32).eval())


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = load_tokenizer(SMALL_MODEL)
    return [
        [1, *encode(tokenizer, text)][:length]
        for text, length in zip(toys.CORPUS * 2, (9, 14, 4, 17, 6, 11), strict=True)
    ]


def test_losses_are_the_same_but_for_rounding(
    computing: GgufComputing, modules: Modules, prompts: list[list[int]]
) -> None:
    width = max(map(len, prompts))
    ids = torch.tensor([[*prompt, *[0] * (width - len(prompt))] for prompt in prompts])
    counts = torch.tensor([[0 < place < len(prompt) for place in range(width)] for prompt in prompts])
    counts[0, 3:] = False
    found, expected = computing.losses(ids, counts), modules.losses(ids, counts)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("size", [1, 4])
def test_answers_are_the_same_in_any_batch(
    computing: GgufComputing, modules: Modules, prompts: list[list[int]], size: int
) -> None:
    told: list[int] = []
    decoding = Decoding(size, 12, frozenset({2, 13}))
    found = computing.generate(prompts, decoding, told.append)
    assert found == modules.generate(prompts, decoding, lambda count: None)
    assert sum(told) == len(prompts) and all(len(one) == 12 or one[-1] in (2, 13) for one in found)


def test_an_answer_begins_as_it_has_to_and_ends_by_its_text(computing: GgufComputing, prompts: list[list[int]]) -> None:
    first = [(13, 300)] * len(prompts)
    decoding = Decoding(3, 24, frozenset({13}), first=first, ended=lambda ids: len(ids) >= 8)
    found = computing.generate(prompts, decoding, lambda count: None)
    assert all(one[0] in (13, 300) and len(one) <= 8 for one in found)
    assert any(len(one) > 1 for one in found)
