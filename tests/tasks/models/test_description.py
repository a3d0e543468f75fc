"""What of a tokenizer's files is read, refused and tried out, piece by piece."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from artifacts.errors import InputError
from tasks.models import conversion, vocabulary
from tasks.models.vocabulary import MOST_PIECES, decode, encode, encode_batch, load_tokenizer
from tasks.processes import bounded
from tests.tasks.tokenization import toys

Change = Callable[[dict[str, Any]], object]


def small(**changes: Any) -> dict[str, Any]:
    """A description that is well-formed, changed; a change in `model_…` is one of the model."""
    model = {"vocab": {"a": 0, "b": MOST_PIECES - 1}} | {
        name.removeprefix("model_"): value for name, value in changes.items() if name.startswith("model_")
    }
    others = {name: value for name, value in changes.items() if not name.startswith("model_")}
    return {"model": model, "added_tokens": [{"content": "<s>", "id": 0}], **others}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"added_tokens": None},
        {"model_dropout": None},
        {"model_dropout": 0},
        {"model_dropout": 1},
        {"model_dropout": 0.5},
        {"model_vocab": [["a", 0.0], ["b", -1.5]]},
        {"pre_tokenizer": None, "normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel"}, "normalizer": None},
    ],
    ids=str,
)
def test_a_description_that_is_well_formed(changes: dict[str, Any]) -> None:
    assert list(vocabulary._malformed(small(**changes))) == []


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"model": None}, "no model"),
        ({"model_dropout": 1.01}, "dropout"),
        ({"model_dropout": -0.01}, "dropout"),
        ({"model_dropout": "0.5"}, "dropout"),
        ({"model_dropout": True}, "dropout"),
        ({"model_vocab": None}, "no vocabulary"),
        ({"model_vocab": ["ab"]}, "pieces"),
        ({"model_vocab": [["a", 0.0], ["b"]]}, "pieces"),
        ({"model_vocab": [["a", 0.0], [5, 0.0]]}, "pieces"),
        ({"model_vocab": {"a": 0, "b": "1"}}, "id 1"),
        ({"model_vocab": {"a": 0, "b": 1.0}}, "id 1.0"),
        ({"model_vocab": {"a": 0, "b": True}}, "id True"),
        ({"model_vocab": {"a": 0, "b": -1}}, "id -1"),
        ({"model_vocab": {"a": 0, "b": MOST_PIECES}}, "id 2097152"),
        ({"model_vocab": {"a": 7, "b": 7}}, "same id"),
        ({"added_tokens": ["<s>"]}, "tokens is <s>"),
        ({"added_tokens": [{"content": "", "id": 0}]}, "added tokens is {"),
        ({"added_tokens": [{"content": 5, "id": 0}]}, "added tokens is {"),
        ({"added_tokens": [{"content": "<s>"}]}, "added tokens is {"),
        ({"added_tokens": [{"content": "<s>", "id": -1}]}, "added tokens is {"),
        ({"added_tokens": {"a": 1}}, "no list"),
        ({"pre_tokenizer": "ByteLevel"}, "pre_tokenizer"),
        ({"normalizer": []}, "normalizer"),
    ],
    ids=str,
)
def test_the_first_fault_of_a_description_is_told(changes: dict[str, Any], word: str) -> None:
    assert word in next(vocabulary._malformed(small(**changes)))


def changed(folder: Path, name: str, change: Change) -> Path:
    value = json.loads((folder / name).read_text()) if (folder / name).exists() else {}
    change(value)
    (folder / name).write_text(json.dumps(value))
    return folder


def config(folder: Path, size: int) -> Path:
    return changed(folder, "config.json", lambda value: value.update(model_type="gpt2", vocab_size=size))


def test_names_of_special_tokens_are_those_of_the_later_file(tmp_path: Path) -> None:
    assert vocabulary._settings(tmp_path) == {}
    first = {"bos_token": "<a>", "eos_token": {"content": "<b>"}, "unk_token": None}
    changed(tmp_path, "special_tokens_map.json", lambda value: value.update(first))
    changed(tmp_path, "tokenizer_config.json", lambda value: value.update(bos_token="<c>", eos_token=None))
    found = vocabulary._settings(tmp_path)
    assert found == {"bos_token": "<c>", "eos_token": {"content": "<b>"}}
    assert [vocabulary._name(found.get(role)) for role in ("bos_token", "eos_token", "pad")] == ["<c>", "<b>", ""]


@pytest.mark.parametrize("name", ["special_tokens_map.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "setting",
    [
        {"bos_token": 5},
        {"eos_token": {"content": 5}},
        {"additional_special_tokens": "<s>"},
        {"additional_special_tokens": ["<s>", None]},
        {"additional_special_tokens": ["<s>", 5]},
        {"add_bos_token": "yes"},
        {"model_max_length": 0},
        {"padding_side": "middle"},
        {"errors": 5},
    ],
    ids=str,
)
def test_a_setting_that_cannot_be_one_is_named(name: str, setting: dict[str, Any], tmp_path: Path) -> None:
    changed(tmp_path, name, lambda value: value.update(setting))
    with pytest.raises(InputError) as refusal:
        vocabulary._settings(tmp_path)
    assert name in str(refusal.value) and next(iter(setting)) in str(refusal.value)
    assert refusal.value.field == "model.name" and refusal.value.remedy


@pytest.fixture
def llama(tmp_path: Path) -> Path:
    """Ids up to 599, FIM tokens from 607 on."""
    return toys.code_llama(tmp_path / "toy", size=616)


def test_every_piece_has_its_row_in_the_model(llama: Path) -> None:
    description = json.loads((llama / "tokenizer.json").read_text())
    highest = max(description["model"]["vocab"].values())
    named = load_tokenizer(config(llama, highest + 1))
    assert "▁<PRE>" not in named.ids or named.ids["▁<PRE>"] <= highest
    with pytest.raises(InputError) as refusal:
        load_tokenizer(config(llama, highest))
    assert refusal.value.field == "model.name" and f"{highest:,}" in str(refusal.value)


def test_a_model_without_a_row_for_its_end_is_refused(llama: Path) -> None:
    marks = json.loads((llama / "tokenizer.json").read_text())["added_tokens"]
    (end,) = [token["id"] for token in marks if token["content"] == "▁<EOT>"]
    changed(llama, "tokenizer_config.json", lambda value: value.update(eos_token="▁<EOT>"))
    assert load_tokenizer(config(llama, end + 1)).eos == end
    with pytest.raises(InputError, match="eos"):
        load_tokenizer(config(llama, end))


def test_texts_of_a_batch_begin_as_one_by_itself(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert encode_batch(tokenizer, toys.CORPUS) == [encode(tokenizer, text) for text in toys.CORPUS]
    assert decode(tokenizer, [tokenizer.vocabulary_size, *encode(tokenizer, "x")]) == "x"  # an id beyond the last


def test_special_tokens_may_stand_in_the_vocabulary_alone(llama: Path) -> None:
    changed(llama, "tokenizer.json", lambda value: value.update(added_tokens=[]))
    tokenizer = load_tokenizer(llama)
    assert (tokenizer.bos, tokenizer.eos) == (1, 2) and tokenizer.ids == {"<s>": 1, "</s>": 2, "<unk>": 0}
    assert tokenizer.pieces[:3] == (b"", b"", b"")


def test_a_vocabulary_without_bytes_spells_none(llama: Path) -> None:
    def without(value: dict[str, Any]) -> None:
        value["model"]["vocab"]["<other>"] = value["model"]["vocab"].pop("<0xE2>")
        value["model"]["byte_fallback"] = False

    tokenizer = load_tokenizer(changed(llama, "tokenizer.json", without))
    assert tokenizer.space_bytes is None and decode(tokenizer, encode(tokenizer, "for")) == "for"


def test_what_the_library_refuses_is_refused(llama: Path) -> None:
    changed(llama, "tokenizer.json", lambda value: value["model"]["merges"].append(["nope", "never"]))
    with pytest.raises(InputError) as refusal:
        load_tokenizer(llama)
    assert refusal.value.field == "model.name" and refusal.value.remedy


def test_dropout_of_merges_changes_no_ids(llama: Path) -> None:
    before = encode(load_tokenizer(llama), toys.CORPUS[0])
    changed(llama, "tokenizer.json", lambda value: value["model"].update(dropout=0.9))
    assert [encode(load_tokenizer(llama), toys.CORPUS[0]) for _ in range(5)] == [before] * 5


def test_characters_of_no_byte_stand_for_nothing() -> None:
    spell = vocabulary._byte_level_speller()
    assert [spell(piece) for piece in ("a", "Ġa", "Ċ", "ł", "ń", "日", "a日")] == [
        b"a",
        b" a",
        b"\n",
        b"\xa0",
        b"",
        b"",
        b"",
    ]
    assert len({spell(chr(point)) for point in range(0x144)} - {b""}) == 256


def test_added_runs_of_spaces_are_text(tmp_path: Path) -> None:
    runs = [{"content": "   ", "id": 500, "special": False}, {"content": "\t\t", "id": 501, "special": True}]
    fields = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    folder = changed(
        toys.byte_level(tmp_path),
        "tokenizer.json",
        lambda value: value["added_tokens"].extend({**one, **fields} for one in runs),
    )
    tokenizer = load_tokenizer(folder)
    assert tokenizer.pieces[500] == b"   " and "   " not in tokenizer.ids
    assert tokenizer.pieces[501] == b"" and tokenizer.ids["\t\t"] == 501


@pytest.mark.parametrize(
    ("description", "puts"),
    [
        ({}, False),
        ({"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend"}]}}, True),
        ({"normalizer": {"type": "Replace"}, "pre_tokenizer": None}, False),
        ({"pre_tokenizer": {"type": "Metaspace"}}, True),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "first"}}, True),
        ({"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}}, False),
        ({"pre_tokenizer": {"type": "Split"}}, False),
    ],
    ids=str,
)
def test_a_description_says_whether_a_space_is_put_before_a_text(description: dict[str, Any], puts: bool) -> None:
    assert vocabulary._puts_space(description) is puts


# --- tried out; here in this process


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The functions that were asked in a process of their own."""
    names: list[str] = []

    def ask(function: str, path: Path, **_: object) -> object:
        module, _, name = function.partition(":")
        names.append(name)
        return getattr(importlib.import_module(module), name)(path)

    monkeypatch.setattr(bounded, "ask", ask)
    return names


@pytest.mark.parametrize(
    ("settings", "tried"),
    [
        ({}, []),
        ({"eos_token": {"__type": "AddedToken", "content": "<|endoftext|>"}}, []),
        ({"our_own": 1}, ["load_trial"]),
    ],
    ids=str,
)
def test_only_doubtful_settings_are_tried(
    settings: dict[str, Any], tried: list[str], tmp_path: Path, asked: list[str]
) -> None:
    vocabulary.try_out(toys.byte_level(tmp_path, **settings))
    assert asked == tried


@pytest.mark.parametrize(
    "settings",
    [{"bos_token": {"content": "<s>"}}, {"additional_special_tokens": ["<s>", {"content": "<s>"}]}],
    ids=str,
)
def test_tokens_as_transformers_does_not_write_them_are_tried(
    settings: dict[str, Any], tmp_path: Path, asked: list[str]
) -> None:
    folder = changed(toys.byte_level(tmp_path), "tokenizer_config.json", lambda value: value.update(settings))
    with pytest.raises((TypeError, ValueError)):
        vocabulary.try_out(folder)
    assert asked == ["load_trial"]


def split(*parts: str) -> dict[str, Any]:
    kinds = [{"type": "Split", "pattern": {"Regex": part}, "behavior": "Isolated", "invert": False} for part in parts]
    return {
        "type": "Sequence",
        "pretokenizers": [*kinds, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}],
    }


def test_an_expression_is_tried(tmp_path: Path, asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """On long runs of single characters and of pairs, each with another end."""
    folder = toys.byte_level(tmp_path)
    changed(folder, "tokenizer.json", lambda value: value.update(pre_tokenizer=split(r"\d", r"[a-z]+")))
    texts: list[str] = []
    plain = load_tokenizer(folder)

    class Listening:
        def encode_batch_fast(self, given: list[str], add_special_tokens: bool) -> None:
            texts.extend(given)
            assert not add_special_tokens and plain.rust.encode_batch_fast(given[:1], add_special_tokens=False)

    monkeypatch.setattr(
        vocabulary, "load_tokenizer", lambda place: replace(plain, rust=Listening()) if place == folder else None
    )
    vocabulary.try_out(folder)
    assert asked == ["encode_trials"]
    assert {"a" * 2000, "ab" * 2000, " " * 2000 + "!", " \n" * 2000 + "a", "-" * 2000 + "\0", "1" * 2000 + " "} <= {
        *texts
    }
    assert min(map(len, texts)) == 2000 and max(map(len, texts)) == 4001


def test_code_beside_a_tokenizer_is_never_run(tmp_path: Path) -> None:
    folder = toys.byte_level(tmp_path / "model")
    mark = tmp_path / "was run"
    (folder / "own.py").write_text(f"open({str(mark)!r}, 'w')\nclass Own: pass\n")
    own = {"auto_map": {"AutoTokenizer": [None, "own.Own"]}, "tokenizer_class": "Own"}
    changed(folder, "tokenizer_config.json", lambda value: value.update(own))
    for act in (lambda: conversion.convert(folder), lambda: vocabulary.load_trial(folder / "tokenizer_config.json")):
        with pytest.raises(ValueError):
            act()
    assert not mark.exists()


def test_older_files_become_a_description(tmp_path: Path) -> None:
    folder = toys.byte_level(tmp_path)
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    before = encode(load_tokenizer(folder), toys.CORPUS[0])
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, model["merges"])))
    changed(folder, "tokenizer_config.json", lambda value: value.update(tokenizer_class="GPT2Tokenizer"))
    (tmp_path / "tokenizer.json").write_text(conversion.convert(folder))
    assert encode(load_tokenizer(tmp_path), toys.CORPUS[0]) == before
