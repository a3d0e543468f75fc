"""Prompts that end within a token: the model is asked as if they did not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from artifacts.progress import Progress
from tasks.backends.contract import Decoding
from tasks.backends.fused.decoding import Decoder
from tasks.backends.transformers.answers import generate
from tasks.backends.transformers.inference import Modules
from tasks.generation.models import Pair
from tasks.generation.work import Answering, measure
from tasks.models.healing import beginning_with, healed
from tasks.models.vocabulary import CodeTokenizer, encode, load_tokenizer
from tasks.prompts import PromptsConfig
from tasks.prompts.files import HeldOutFile
from tasks.prompts.gaps import line_items
from tests.tasks.generation.world import toy
from tests.tasks.prompts.stored import stored
from tests.tasks.tokenization import toys

FILES = [HeldOutFile(f"repo-{number}", "a.py", "Python", text) for number, text in enumerate(toys.CORPUS)]
CONFIG = PromptsConfig(line_prompts=8, fim_prompts=0, block_prompts=0, max_new_tokens=32)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> CodeTokenizer:
    """As GPT-2's, SmolLM's and StarCoder's: a line break and the spaces after it are one token."""
    return load_tokenizer(toys.byte_level(tmp_path_factory.mktemp("byte-level")))


def test_the_last_token_is_taken_back_where_others_go_on_from_it(tokenizer: CodeTokenizer, tmp_path: Path) -> None:
    ids = encode(tokenizer, "if item:\n")
    assert healed(tokenizer, ids) == (ids[:-1], b"\n")
    assert {tokenizer.pieces[index] for index in beginning_with(tokenizer, b"\n")} >= {b"\n", b"\n   "}
    assert encode(tokenizer, "if item:\n    x")[: len(ids)] != ids, "the tokenizer is not of the kind in question"
    assert healed(tokenizer, ids[:1]) == (ids[:1], b"")
    pieces = load_tokenizer(toys.code_llama(tmp_path))
    ids = encode(pieces, "if item:\n")
    assert healed(pieces, ids) == (ids, b""), "a line break is a token of its own there"


@pytest.mark.parametrize("decoder", ["transformers", "fused"])
def test_an_answer_begins_with_an_allowed_token_which_does_not_end_it(decoder: str) -> None:
    prompts = [[5, 6, 7], [8, 9], [3] * 9, [11, 12]]
    free = generate(toy(), prompts, Decoding(4, 12, frozenset()))
    first: list[tuple[int, ...]] = [(), (40, 41), (), (42,)]
    stop = frozenset({40, 41, 42, free[2][0]})
    if decoder == "transformers":
        found = generate(toy(), prompts, Decoding(2, 12, stop, first=first))
    else:
        found = Decoder(toy(), 64).generate(prompts, Decoding(2, 12, stop, first=first), adapted=False)
    assert found[1][0] in {40, 41} and found[3][0] == 42 and len(found[1]) > 1 and len(found[3]) > 1
    assert found[2] == free[2][:1], "where none is named, a stop token ends an answer as before"
    assert found[0] == free[0][: len(found[0])]


def test_a_model_that_knows_a_text_by_heart_completes_its_lines(tmp_path: Path, tokenizer: CodeTokenizer) -> None:
    """What it cannot where it is asked with bare line breaks, after which it has never seen anything."""
    model = learned(tokenizer)
    items = line_items(stored(tmp_path, FILES), tokenizer, CONFIG)
    assert len(items) == 6 and {item.start for item in items} == {b"\n"}
    assert right(model, tokenizer, items) == 6
    (bare,) = encode(tokenizer, "\n")
    unhealed = [replace(item, prompt_ids=(*item.prompt_ids, bare), start=b"") for item in items]
    assert right(model, tokenizer, unhealed) < 3


def learned(tokenizer: CodeTokenizer) -> Any:
    torch.manual_seed(0)
    sizes = {"vocab_size": tokenizer.vocabulary_size, "hidden_size": 64, "intermediate_size": 128}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_attention_heads=4))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        for file in FILES:
            ids = torch.tensor([encode(tokenizer, file.content)])
            model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def right(model: Any, tokenizer: CodeTokenizer, items: Any) -> int:
    """How many lines are completed to the character."""
    work = Answering("line", [asdict(item) for item in items], tokenizer, batch_size=8)
    answers = measure(work, Alone(model), 1.0, Progress())
    return sum(answer["base"] == item.truth for answer, item in zip(answers, items, strict=True))


class Alone(Pair):
    """A model in the place of both."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def prepare(self, length: int) -> None:
        """It is."""

    @contextmanager
    def side(self, side: str) -> Iterator[Modules]:
        yield Modules(self.model)
