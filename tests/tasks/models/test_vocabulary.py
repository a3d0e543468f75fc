"""Tokens give the text back, whatever stands in it."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from artifacts.errors import InputError
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, Unrepresentable, decode, encode, encode_batch, load_tokenizer
from tests.conftest import BASE_MODEL
from tests.tasks.tokenization import toys

NASTY = (
    *(
        "x",
        " x",
        "  x",
        "\n",
        "\n x\n\n",
        "\r\n",
        "\t\tx  ",
        " ",
        "   ",
        "x ",
        "",
        "\x00\x7f",
        "\ufeffx",
        "\u00a0\u2028",
    ),
    *(
        "▁",
        "▁▁x ▁",
        "x▁y",
        "<s>",
        "</s>",
        "<unk>",
        "<PRE>",
        "▁<PRE>",
        " <PRE> <SUF>",
        "<FILL_ME>",
        "<0x0A>",
        "<|endoftext|>",
    ),
    *(
        "é",
        "e\u0301",
        "ﬁ ½",
        "日本語",
        "👩‍👩‍👧‍👦",
        "\U0010ffff",
        "ｆｕｌｌ",
        "[INST] x [/INST]",
        "<|fim_prefix|>",
        "fillerx <filler1>",
    ),
)


@pytest.fixture(scope="module", params=["code_llama", "byte_level", "built_in"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CodeTokenizer:
    folder = tmp_path_factory.mktemp("toy")
    match request.param:
        case "code_llama":
            return load_tokenizer(toys.code_llama(folder))
        case "byte_level":
            return load_tokenizer(toys.byte_level(folder))
        case _ if (BASE_MODEL / "tokenizer.json").exists():
            return load_tokenizer(BASE_MODEL)
    pytest.skip("the built-in model is not there")


def test_every_text_comes_back(tokenizer: CodeTokenizer) -> None:
    generator = random.Random(7)
    texts = [*NASTY, *("".join(generator.choices(NASTY, k=generator.randint(2, 9))) for _ in range(2000))]
    for continues in (False, True):
        encoded = encode_batch(tokenizer, texts, continues=continues)
        assert all(ids is not None for ids in encoded)
        assert [decode(tokenizer, ids or [], continues=continues) for ids in encoded] == texts


def test_any_characters_come_back(tokenizer: CodeTokenizer) -> None:
    generator = random.Random(8)
    points = [*range(0x300), *range(0x2500, 0x2600), *range(0xD000, 0xD800), *range(0xE000, 0xE100), 0x1F600, 0x10FFFF]
    texts = ["".join(map(chr, generator.choices(points, k=20))) for _ in range(500)]
    assert [decode(tokenizer, encode(tokenizer, text)) for text in texts] == texts


def test_text_is_never_a_special_token(tokenizer: CodeTokenizer) -> None:
    special = set(tokenizer.ids.values())
    text = " ".join([*tokenizer.ids, *NASTY])
    assert special and special.isdisjoint(encode(tokenizer, text))


def test_ids_of_a_text_that_continues_follow_on(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toys.code_llama(tmp_path))
    begun, continued = encode(tokenizer, "return"), encode(tokenizer, "return", continues=True)
    assert tokenizer.pieces[begun[0]].startswith(b" ") and not tokenizer.pieces[continued[0]].startswith(b" ")
    assert decode(tokenizer, encode(tokenizer, " x", continues=True), continues=True) == " x"


def test_same_ids_as_the_tokenizer_itself_on_ordinary_text(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    folder = toys.code_llama(tmp_path)
    plain = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer = load_tokenizer(folder)
    for text in (*toys.CORPUS, "  indented\n", "日本語"):
        assert encode(tokenizer, text) == plain.encode(text, add_special_tokens=False).ids


def test_code_llama_ids_and_prompt(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(toys.code_llama(tmp_path))
    fim = FimTokens.of(tokenizer)
    assert (fim.prefix, fim.suffix, fim.middle, fim.end) == (32007, 32008, 32009, 32010)
    assert (tokenizer.bos, tokenizer.eos, tokenizer.vocabulary_size) == (1, 2, 32016)
    prefix, suffix = encode(tokenizer, "def "), encode(tokenizer, "():", continues=True)
    assert fim.prompt(1, prefix, suffix) == [1, 32007, *prefix, 32008, *suffix, 32009]
    assert fim.prompt(None, [5], []) == [32007, 5, 32008, 32009]


@pytest.mark.parametrize(
    "names",
    [("<fim_prefix>", "<fim_suffix>", "<fim_middle>"), ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")],
)
def test_fim_names_of_byte_level_models(tmp_path: Path, names: tuple[str, ...]) -> None:
    tokenizer = load_tokenizer(toys.byte_level(tmp_path, names=names))
    fim = FimTokens.of(tokenizer)
    assert [fim.prefix, fim.suffix, fim.middle] == [tokenizer.ids[name] for name in names]
    assert (tokenizer.bos, tokenizer.eos) == (None, fim.end)


@pytest.mark.parametrize(
    ("settings", "begins"),
    [
        ({}, False),  # SmolLM2 names <|im_start|>, and puts it before nothing
        ({"template": True}, True),
        ({"template": True, "add_bos_token": False}, False),
        ({"add_bos_token": True}, True),  # DeepSeek-Coder says it here alone
    ],
)
def test_a_text_begins_with_bos_where_the_tokenizer_puts_it(
    tmp_path: Path, settings: dict[str, Any], begins: bool
) -> None:
    tokenizer = load_tokenizer(toys.byte_level(tmp_path, bos="<|im_start|>", **settings))
    assert tokenizer.bos == (tokenizer.ids["<|im_start|>"] if begins else None)
    own = AutoTokenizer.from_pretrained(tmp_path)
    if "add_bos_token" not in settings:
        assert (own("x")["input_ids"][0] == own.bos_token_id) is begins


def test_without_fim_tokens(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no fill-in-the-middle tokens") as caught:
        FimTokens.of(load_tokenizer(toys.code_llama(tmp_path, fim=False)))
    assert caught.value.field == "tokenization.format"


def test_fim_names_that_are_pieces_of_text_are_told(tmp_path: Path) -> None:
    folder = toys.code_llama(tmp_path)
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text())
    marks = {"▁<PRE>": 32007, "▁<SUF>": 32008, "▁<MID>": 32009, "▁<EOT>": 32010}
    description["model"]["vocab"] |= marks
    description["added_tokens"] = [one for one in description["added_tokens"] if one["content"] not in marks]
    path.write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"has ▁<PRE> among the pieces of text, not among its added tokens"):
        FimTokens.of(load_tokenizer(folder))


@pytest.mark.parametrize("names", [("<fim-prefix>", "<fim-suffix>", "<fim-middle>"), ("<fim_prefix>", "<fim_suffix>")])
def test_marks_of_another_family_are_not_said_to_be_missing_altogether(tmp_path: Path, names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="no fill-in-the-middle tokens of a family that codetune knows"):
        FimTokens.of(load_tokenizer(toys.byte_level(tmp_path, names=names)))


def test_what_cannot_be_represented_is_told(tmp_path: Path) -> None:
    folder = toys.code_llama(tmp_path)
    path = folder / "tokenizer.json"
    description = json.loads(path.read_text())
    description["model"]["byte_fallback"] = False
    path.write_text(json.dumps(description))
    tokenizer = load_tokenizer(folder)
    assert decode(tokenizer, encode(tokenizer, "for")) == "for"
    with pytest.raises(Unrepresentable):
        encode(tokenizer, "日本語")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": {}}'])
def test_a_broken_tokenizer_is_bad_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(InputError, match=str(tmp_path / "tokenizer.json")) as refused:
        load_tokenizer(tmp_path)
    assert refused.value.field == "model.name" and "tokenizer files" in str(refused.value.remedy)
