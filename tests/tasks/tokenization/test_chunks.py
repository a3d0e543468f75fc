"""Chunks hold every token of a file once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tasks.families.chat import ChatTemplate
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, decode_bytes, encode, load_tokenizer
from tasks.tokenization.chunks import Chunk, Framing, TokenizedFile, causal_chunks, decode_chunks, instruct_chunks
from tasks.tokenization.infilling import Infilling
from tests.tasks.models.test_vocabulary import NASTY
from tests.tasks.tokenization import toys

TEXT = "".join(toys.CORPUS) * 4


@pytest.fixture(scope="module", params=["code_llama", "byte_level"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CodeTokenizer:
    folder = tmp_path_factory.mktemp("toy")
    return load_tokenizer(toys.code_llama(folder) if request.param == "code_llama" else toys.byte_level(folder))


LLAMA2 = ChatTemplate("<s>[INST] ", " [/INST]", " </s>")


def document(tokenizer: CodeTokenizer, text: str, path: str = "src/a.py") -> TokenizedFile:
    return TokenizedFile("repo", path, str(hash(text)), "Python", encode(tokenizer, text))


def rows(chunks: list[Chunk]) -> list[dict[str, object]]:
    return [
        {"input_ids": chunk.ids, "completion_mask": chunk.mask, "chunk": number} for number, chunk in enumerate(chunks)
    ]


def nasty_texts(count: int) -> list[str]:
    generator = random.Random(11)
    pool = [*NASTY, *toys.CORPUS]
    return ["x" + "".join(generator.choices(pool, k=generator.randint(1, 40))) for _ in range(count)]


@pytest.mark.parametrize("max_length", [8, 9, 33, 256])
def test_causal_chunks_give_the_file_back(tokenizer: CodeTokenizer, max_length: int) -> None:
    framing = Framing.of(tokenizer, max_length, add_eos=True)
    for text in [*filter(None, NASTY), *nasty_texts(60)]:
        chunks = list(causal_chunks(tokenizer, document(tokenizer, text), framing))
        assert decode_chunks(tokenizer, rows(chunks)) == text.encode()
        assert all(len(chunk.ids) <= max_length for chunk in chunks)


@pytest.mark.parametrize("max_length", [64, 100, 256])
def test_answers_give_the_file_back(tokenizer: CodeTokenizer, max_length: int) -> None:
    framing = Framing.of(tokenizer, max_length, add_eos=True)
    for text in nasty_texts(60):
        made = document(tokenizer, text, path="a/" * 100 + "b.py" if len(text) % 2 else "src/a.py")
        chunks = list(instruct_chunks(tokenizer, made, framing, LLAMA2))
        assert decode_chunks(tokenizer, rows(chunks)) == text.encode()
        assert all(len(chunk.ids) <= max_length and sum(chunk.mask or ()) > 0 for chunk in chunks)


@pytest.mark.parametrize("max_length", [8, 40, 256])
def test_rearranged_chunks_give_the_file_back(tokenizer: CodeTokenizer, max_length: int) -> None:
    framing = Framing.of(tokenizer, max_length, add_eos=True)
    fim = FimTokens.of(tokenizer)
    rearranged = 0
    for text in nasty_texts(150):
        chunks = list(Infilling(fim, 0.9, 0.5, 3).chunks(tokenizer, document(tokenizer, text), framing))
        assert decode_chunks(tokenizer, rows(chunks)) == text.encode()
        assert all(len(chunk.ids) <= max_length for chunk in chunks)
        rearranged += sum(fim.prefix in chunk.ids for chunk in chunks)
    assert rearranged > 50


def test_every_sequence_begins_with_bos_and_the_file_ends_with_eos(tokenizer: CodeTokenizer) -> None:
    chunks = list(causal_chunks(tokenizer, document(tokenizer, TEXT), Framing.of(tokenizer, 32, add_eos=True)))
    assert len(chunks) > 2 and all(len(chunk.ids) == 32 for chunk in chunks[:-1])
    assert [chunk.ids[-1] == tokenizer.eos for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    assert tokenizer.bos is None or all(chunk.ids[0] == tokenizer.bos for chunk in chunks)
    without = list(causal_chunks(tokenizer, document(tokenizer, TEXT), Framing.of(tokenizer, 32, add_eos=False)))
    assert without[-1].ids[-1] != tokenizer.eos


def test_eos_never_stands_alone(tokenizer: CodeTokenizer) -> None:
    ids = encode(tokenizer, TEXT)
    for length in range(8, 60):
        framing = Framing.of(tokenizer, length, add_eos=True)
        last = list(causal_chunks(tokenizer, TokenizedFile("r", "p", "s", "Python", ids), framing))[-1].ids
        assert len(last) > len(framing.begin) + 1 and last[-1] == tokenizer.eos


def test_eos_stands_behind_a_file_that_fills_its_last_chunk(tokenizer: CodeTokenizer) -> None:
    ids = encode(tokenizer, TEXT)[:60]
    for chunks_full in (1, 2, 3):
        begin = Framing.of(tokenizer, 8, add_eos=True).begin
        framing = Framing.of(tokenizer, len(begin) + 60 // chunks_full, add_eos=True)
        made = [chunk.ids for chunk in causal_chunks(tokenizer, TokenizedFile("r", "p", "s", "Python", ids), framing)]
        assert [token for chunk in made for token in chunk[len(begin) :]] == [*ids, tokenizer.eos]


def test_chunks_end_between_characters(tokenizer: CodeTokenizer) -> None:
    text = "日本語👩" * 40
    for chunk in causal_chunks(tokenizer, document(tokenizer, text), Framing.of(tokenizer, 11, add_eos=True)):
        assert decode_bytes(tokenizer, chunk.ids).decode() in text


def test_instruction_names_the_file_and_shows_what_came_before(tokenizer: CodeTokenizer) -> None:
    chunks = list(
        instruct_chunks(tokenizer, document(tokenizer, TEXT), Framing.of(tokenizer, 240, add_eos=True), LLAMA2)
    )
    texts = [decode(tokenizer, chunk.ids).removeprefix("<s>") for chunk in chunks]  # to some a plain text
    first, (head, _, after) = texts[0].partition(" [/INST]")[0], texts[1].partition(":\n")
    assert first.startswith("[INST] ") and head.startswith("[INST] ") and "[/INST]" in after
    assert "src/a.py (Python)" in first and "src/a.py (Python)" in head
    mask = chunks[1].mask or []
    answer = decode(tokenizer, chunks[1].ids[mask.index(1) :], continues=True)
    shown = after[: -len("\n[/INST]" + answer)]
    assert len(shown) > 5 and shown + answer in TEXT
    assert mask == sorted(mask) and chunks[-1].ids[-1] == tokenizer.eos


def test_a_long_path_is_left_out_of_the_instruction(tokenizer: CodeTokenizer) -> None:
    framing = Framing.of(tokenizer, 160, add_eos=True)
    chunks = list(instruct_chunks(tokenizer, document(tokenizer, TEXT, path="a/" * 100 + "b.py"), framing, LLAMA2))
    texts = [decode(tokenizer, chunk.ids).removeprefix("<s>") for chunk in chunks]
    assert texts[0].startswith("[INST] ") and "/" not in texts[0].partition("[/INST]")[0]
    assert len(texts) > 2 and all(text.startswith("[INST] Continue:\n") for text in texts[1:])


def test_an_instruction_shows_as_many_whole_characters_as_fit_half_a_sequence(tokenizer: CodeTokenizer) -> None:
    text = "日本語👩 é" * 80
    framing = Framing.of(tokenizer, 201, add_eos=True)
    shown = []
    for chunk in [*instruct_chunks(tokenizer, document(tokenizer, text), framing, LLAMA2)][1:]:
        prompt = chunk.ids[: (chunk.mask or []).index(1)]
        assert 100 - 4 < len(prompt) <= 100
        shown.append(decode_bytes(tokenizer, prompt).decode().split(":\n")[1].removesuffix("\n[/INST]"))
    assert len(shown) > 3 and all(before and before in text for before in shown)


def test_a_chunk_token_by_token(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toys.code_llama(tmp_path))
    framing = Framing.of(tokenizer, 256, add_eos=True)
    (chunk,) = causal_chunks(tokenizer, document(tokenizer, "x\n"), framing)
    assert chunk.ids == [1, *encode(tokenizer, "x"), 3 + ord("\n"), 2]
