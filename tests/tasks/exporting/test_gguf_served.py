"""A GGUF file of 16 bits without llama-cpp-python: llama.cpp's server says whether it is right."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from artifacts import digest
from artifacts.errors import InputError, StageError
from tasks.exporting import ExportingConfig, run_exporting
from tasks.exporting.forms.gguf import check_ids
from tasks.gguf import converter, library, server
from tasks.gguf.vocabulary import served_problems
from tasks.models.files import read_json
from tasks.models.vocabulary import load_tokenizer
from tests.conftest import SMALL_MODEL
from tests.gguf import built_in_gguf
from tests.tasks.exporting.pieces import Pieces, make

pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="needs the extra codetune[serve]: xllamacpp")


@pytest.fixture(scope="module")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    made = make(tmp_path_factory.mktemp("pieces"), SMALL_MODEL)
    return replace(made, tokens=made.tokens.model_copy(update={"format": "fim"}))


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None if name == "llama_cpp" else find_spec(name))


@pytest.mark.usefixtures("without_library")
def test_the_file_is_checked_and_is_the_same(pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, names = ExportingConfig(quantization="none", forms=["gguf-f16"], positions=60), ("server", "library")
    for name in names if find_spec("llama_cpp") else names[:1]:
        (tmp_path / name).mkdir()
        config.check()
        form = run_exporting(config, **pieces.inputs(), workdir=tmp_path / name).form("gguf-f16")
        assert form is not None and form.comparison.exact
        assert ("llama.cpp's server" in form.comparison.against) == (name == "server")
        assert "token ids of 27 files" in form.comparison.against
        assert 0 < form.comparison.largest_difference < 0.4 * form.comparison.bound
        monkeypatch.undo()
    files = {digest.of_file(path) for path in tmp_path.rglob("model-f16.gguf")}
    assert len(files) == 1


@pytest.mark.usefixtures("without_library")
def test_a_file_of_another_model_is_an_error(pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the converter had taken the base, and not what was trained."""

    def other(folder: Path, *arguments: Any, **more: Any) -> None:
        converter.convert(SMALL_MODEL, *arguments, **more)

    monkeypatch.setattr("tasks.exporting.forms.gguf.convert", other)
    config = ExportingConfig(quantization="none", forms=["gguf-f16"], positions=60)
    with pytest.raises(StageError, match=r"model-f16\.gguf in llama\.cpp's server.* differ"):
        run_exporting(config, **pieces.inputs(), workdir=tmp_path)


def test_marks_and_ends_are_those_that_the_server_acts_on(
    pieces: Pieces, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, config = load_tokenizer(SMALL_MODEL), read_json(SMALL_MODEL / "config.json")
    right, keys = converter.keys(tokenizer, infills=True), "tokenizer.ggml"
    wrong = {
        f"{keys}.fim_suf_token_id": right[f"{keys}.fim_mid_token_id"],
        f"{keys}.eot_token_id": 5,
        f"{keys}.add_bos_token": False,
    }
    found = {}
    for name, change in (("right", {}), ("wrong", wrong)):
        monkeypatch.setattr(converter, "keys", lambda *_, change=change, **__: right | change)
        converter.convert(SMALL_MODEL, tmp_path / name, tokenizer, name=name, infills=True)
        with server.loaded(server.Served(tmp_path / name, name, 128)) as place, server.client(place) as client:
            model = server.ServedModel(client)
            found[name] = served_problems(model, tokenizer, config)
            assert check_ids(model, tokenizer, pieces.sample, infills=True) == 27
    assert found["right"] == []
    assert found["wrong"] == [
        "a text begins with [], not with [1]",
        "it does not stop at token 4095",
        "it writes other marks around a gap",
    ]


def test_what_is_likeliest_may_be_an_end_or_a_byte(tmp_path: Path) -> None:
    file = built_in_gguf(tmp_path)
    with server.loaded(server.Served(file, "built-in", 256)) as place, server.client(place) as client:
        model = server.ServedModel(client)
        before, after, gap = (
            model.tokenize(text) for text in ("def f(x, y):\n    self.x = x\n    ", "\n", "self.y = y")
        )
        found = model.likeliest([1, 4092, *before, 4093, *after, 4094, *gap], 3)
        assert next(iter(found)) == 4095 and len(found) == 3
        ids = model.tokenize("words = 'ɔɔɔɔɔɔɔɔɔɔɔɔɔɔɔɔ")
        assert next(iter(model.likeliest([1, *ids], 3))) == ids[-2]  # the first byte of the next ɔ


@pytest.mark.usefixtures("without_library")
def test_types_of_fewer_bits_need_the_library() -> None:
    with pytest.raises(InputError, match="llama_cpp, which is not installed"):
        ExportingConfig(forms=["gguf-q8_0"]).check()


def test_the_wheel_is_named_where_it_would_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="llama_cpp, which is not installed") as refused:
        ExportingConfig(forms=["gguf-f16"]).check()
    assert "'codetune[serve]', a wheel, or 'codetune[gguf]'" in str(refused.value.remedy)
