"""Middles along syntax: which stretches are pieces, and that they are what is taken out."""

from __future__ import annotations

import gc
import logging
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pyarrow.parquet as pq
import pytest
import tree_sitter
import tree_sitter_python

from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, encode, load_tokenizer
from tasks.running.mapping import HERE
from tasks.sampling.languages import LANGUAGES
from tasks.tokenization import STAGE, TokenizationConfig, run_tokenization, syntax
from tasks.tokenization.chunks import Framing, TokenizedFile, decode_chunks
from tasks.tokenization.infilling import Infilling, draw_piece
from tasks.tokenization.syntax import GRAMMARS, Piece, Unreadable, pieces
from tasks.tokenization.view import sections
from tests.tasks.tokenization import toys
from tests.tasks.tokenization.samples import reference, write_sample

FILES = {
    "C": "int f(int a) {\n  while (a) { a = g(a, 2); }\n  return a;\n}\n",
    "C#": "class A {\n  int F(int a) {\n    while (a > 1) { return G(a, 2); }\n    return a;\n  }\n}\n",
    "C++": "class A {\n  int f(int a) {\n    while (a) { a = g(a, 2); }\n    return a;\n  }\n};\n",
    "GO": "func f(a int) int {\n\tfor a > 1 {\n\t\tg(a, 2)\n\t}\n\treturn a\n}\n",
    "Java": "class A {\n  int f(int a) {\n    while (a > 1) { g(a, 2); }\n    return a;\n  }\n}\n",
    "JavaScript": "function f(a) {\n  while (a) { g(a, 2); }\n  return a;\n}\n",
    "PHP": "<?php\nfunction f($a) {\n  while ($a) { g($a, 2); }\n  return $a;\n}\n",
    "Python": "def f(a):\n    while a:\n        g(a, 2)\n    return a\n",
    "Ruby": "def f(a)\n  while a do\n    g(a, 2)\n  end\n  return a\nend\n",
    "Rust": "fn f(a: i32) -> i32 {\n    while a > 1 { g(a, 2); }\n    return a;\n}\n",
    "Shell": 'f() {\n  while [ "$1" ]; do\n    g "$1"\n  done\n  return 1\n}\n',
    "TypeScript": "function f(a: number): number {\n  while (a) { g(a, 2); }\n  return a;\n}\n",
}
PYTHON = '''"""A module, é."""
import os


class Point:
    """A point."""

    def move(self, x, y=(1, 2)):
        if x:
            return self.to(x, y)
        for each in y:
            print(each)


def last(values): return values[-1]
'''


def texts(language: str, source: str) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for piece in pieces(language, "a", source.encode()):
        found.setdefault(piece.kind, set()).add(source.encode()[piece.start : piece.end].decode())
    return found


def test_grammars_are_those_of_languages_that_are_sampled() -> None:
    assert GRAMMARS.keys() <= set(LANGUAGES) and FILES.keys() == GRAMMARS.keys()


@pytest.mark.parametrize("language", FILES)
def test_every_grammar_gives_every_kind_of_piece(language: str) -> None:
    found = texts(language, FILES[language])
    call = {"Shell": 'g "$1"', "GO": "g(a, 2)", "Python": "g(a, 2)", "Ruby": "g(a, 2)"}.get(language)
    assert any(
        one.rstrip(";") in (call or "g(a, 2) $a G(a, 2) a = g(a, 2) return G(a, 2) g($a, 2)") for one in found["block"]
    )
    assert any(one.startswith("return") for one in found["statement"])
    assert any(one.startswith("while") or one.startswith("for") for one in found["statement"])
    bodies = [one for one in found["body"] if one.startswith(("while", "for"))]
    assert bodies and all("return" in one and not one.endswith(("}", "end")) for one in bodies)
    assert language == "Shell" or {"a, 2"} & {one.replace("$", "") for one in found["arguments"]}


def test_the_pieces_of_a_file() -> None:
    found = texts("Python", PYTHON)
    move = "if x:\n            return self.to(x, y)\n        for each in y:\n            print(each)"
    assert found["arguments"] == {"self, x, y=(1, 2)", "x, y", "each", "values"}
    assert found["block"] == {"return self.to(x, y)", "print(each)"}
    assert move in found["body"] and "return values[-1]" in found["body"] and len(found["body"]) == 3
    assert {"import os", "return self.to(x, y)", "return values[-1]"} < found["statement"]


def test_an_error_costs_only_the_pieces_around_it() -> None:
    broken = "def f(a):\n    return g(a, 1)\n\n\ndef h(b:\n    return )(\n\n\ndef i(c):\n    return j(c)\n"
    found = texts("Python", broken)
    assert {"a, 1", "a"} <= found["arguments"] and "return g(a, 1)" in found["body"]
    assert not any(")(" in one for each in found.values() for one in each)


@pytest.mark.parametrize(
    ("language", "source", "reason"),
    [
        ("Lua", "x = 1\n", "no grammar for Lua"),
        ("C++", "a<" * 50_000, "too many steps"),  # every `<` may begin the arguments of a template
        ("Python", "", "nothing whole"),
        ("Python", ")" * 2_000, "nothing whole"),
    ],
)
def test_a_file_without_pieces(language: str, source: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        pieces(language, "a", source.encode())


def test_tsx_has_a_grammar_of_its_own() -> None:
    source = b"const a = (b: number) => { return <p>{b}</p>; };\n"
    assert Piece(27, 45, "body") in pieces("TypeScript", "a.tsx", source)
    assert Piece(27, 45, "body") not in pieces("TypeScript", "a.ts", source)


def test_no_file_that_was_read_stays_in_memory() -> None:
    def read(files: int) -> None:
        for number in range(files):
            assert pieces("Python", "a.py", f"number = {number}\n".encode() + PYTHON.encode() * 20)

    read(2)  # imports
    tracemalloc.start()
    try:
        read(200)
        gc.collect()  # what is only waiting for the collector has left
        assert tracemalloc.get_traced_memory()[0] < 100 * len(PYTHON)
    finally:
        tracemalloc.stop()


def test_deep_nesting_does_no_harm() -> None:
    assert pieces("JavaScript", "a", b"f(" * 20_000 + b"1" + b")" * 20_000)


@pytest.fixture(scope="module", params=["code_llama", "byte_level"])
def tokenizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> CodeTokenizer:
    folder = tmp_path_factory.mktemp("toy")
    return load_tokenizer(toys.code_llama(folder) if request.param == "code_llama" else toys.byte_level(folder))


def infilled(
    tokenizer: CodeTokenizer, text: str, sha: str, rate: float = 1.0, language: str = "Python", length: int = 128
) -> list[tuple[list[int], tuple[str, ...]]]:
    document = TokenizedFile("repo", "a.py", sha, language, encode(tokenizer, text))
    made = Infilling(FimTokens.of(tokenizer), 1.0, 0.0, 7, rate)
    framing = Framing.of(tokenizer, length, add_eos=True)
    chunks = list(made.chunks(tokenizer, document, framing))
    rows = [{"input_ids": chunk.ids, "chunk": number} for number, chunk in enumerate(chunks)]
    assert decode_chunks(tokenizer, rows) == text.encode() and all(len(chunk.ids) <= length for chunk in chunks)
    return [(chunk.ids, chunk.made) for chunk in chunks]


def test_middles_are_pieces_of_the_file(tokenizer: CodeTokenizer) -> None:
    fim, text = FimTokens.of(tokenizer), PYTHON.replace("\n", "\r\n", 3) * 3
    whole = {one for each in texts("Python", text).values() for one in each}
    kinds: Counter[str] = Counter()
    for sha in map(str, range(40)):
        for ids, made in infilled(tokenizer, text, sha):
            parts = fim.parts(ids[:-1])
            kinds.update(made)
            if parts and made[0].startswith("middle along syntax"):
                assert decode(tokenizer, parts[2], continues=True).strip() in whole
    along = {name.partition(": ")[2] for name in kinds if name.startswith("middle along syntax")}
    assert along == {"statement", "arguments", "block", "body"}
    assert kinds["middle drawn by lines"] == 0


def test_most_pieces_that_begin_a_line_come_with_its_indentation(tokenizer: CodeTokenizer) -> None:
    fim, indented = FimTokens.of(tokenizer), 0
    for sha in map(str, range(200)):
        ids, made = infilled(tokenizer, PYTHON, sha, length=2048)[0]
        parts = fim.parts(ids[:-1])
        assert parts and made
        middle = decode(tokenizer, parts[2], continues=True)
        indented += middle.startswith("  ")
    assert 60 < indented < 160


def test_a_share_is_along_syntax_and_none_without(tokenizer: CodeTokenizer) -> None:
    made = [made for sha in map(str, range(300)) for _, made in infilled(tokenizer, PYTHON, sha, 0.3, length=2048)]
    assert 60 < sum("along" in one for (one,) in made) < 120
    assert [made for _, made in infilled(tokenizer, PYTHON, "a", 0.0)] == [()] * len(
        infilled(tokenizer, PYTHON, "a", 0)
    )


def test_without_a_grammar_middles_are_drawn_by_lines_and_counted(tokenizer: CodeTokenizer) -> None:
    made = {made for _, made in infilled(tokenizer, PYTHON, "a", language="Lua")}
    assert made == {("middle drawn by lines: no grammar for Lua",)}


@pytest.fixture(params=["missing", "another version", "no grammar"])
def without_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The grammar of Python cannot be loaded."""
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "tree_sitter_python", None)
    elif request.param == "no grammar":
        monkeypatch.setitem(sys.modules, "tree_sitter_python", ModuleType("tree_sitter_python"))
    else:
        language, python = tree_sitter.Language, tree_sitter_python.language()

        def only_others(made: object) -> tree_sitter.Language:
            if repr(made) == repr(python):
                raise ValueError("Incompatible Language version 99. Must be between 13 and 15")
            return language(made)

        monkeypatch.setattr(tree_sitter, "Language", only_others)
        monkeypatch.setattr(tree_sitter_python, "language", lambda: python)
    syntax._grammar.cache_clear()
    yield
    syntax._grammar.cache_clear()


@pytest.mark.usefixtures("without_python")
def test_a_grammar_that_cannot_be_loaded_is_counted_and_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = reference(toys.code_llama(tmp_path / "model"))
    sample = write_sample(tmp_path / "sample", [PYTHON * 2, PYTHON * 3, *toys.CORPUS])
    config = TokenizationConfig(format="fim", fim_rate=1.0, syntax_rate=1.0, max_length=96)
    made = run_tokenization(config, sample=sample, model=model, workdir=tmp_path, mapper=HERE)
    assert made.train.made.keys() == {"middle drawn by lines: no usable grammar installed for Python"}
    (said,) = (one.getMessage() for one in caplog.records if one.levelno == logging.WARNING)
    assert "tree-sitter-python" in said
    # once it is there, they are not taken for what is drawn with it
    assert STAGE.identify and STAGE.identify(config) == "Python"
    assert STAGE.identify(TokenizationConfig(format="fim")) is None


def test_every_grammar_can_be_loaded() -> None:
    assert STAGE.identify and STAGE.identify(TokenizationConfig(format="fim", syntax_rate=0.5)) is None


def test_bodies_are_drawn_as_often_as_they_are_meant_to_be() -> None:
    whole = [*(Piece(n, n + 1, "statement") for n in range(90)), Piece(5, 50, "body")]
    generator = random.Random(2)
    kinds = Counter(draw_piece(whole, generator).kind for _ in range(2000))
    assert 0.33 < kinds["body"] / 2000 < 0.44


def test_the_stage_counts_what_it_made(tmp_path: Path) -> None:
    model = reference(toys.code_llama(tmp_path / "model"))
    sample = write_sample(tmp_path / "sample", [PYTHON * 2, ")" * 300, *toys.CORPUS])
    config = TokenizationConfig(format="fim", fim_rate=1.0, syntax_rate=1.0, max_length=96)
    made = run_tokenization(config, sample=sample, model=model, workdir=tmp_path, mapper=HERE)
    assert made.train.made["middle drawn by lines: the grammar found nothing whole"] >= 2
    assert made.train.made["middle along syntax: body"] >= 1 and made.held_out.made == {}
    assert sum(made.train.made.values()) <= pq.read_metadata(tmp_path / "train.parquet").num_rows
    shown = sections(made)[0].blocks[1]
    assert ("middle along syntax: body", f"{made.train.made['middle along syntax: body']:,}") in shown.rows  # type: ignore[union-attr]


def test_a_file_is_read_once_and_only_when_it_is_asked(
    tokenizer: CodeTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(
        "tasks.tokenization.infilling.pieces", lambda *told: asked.append(told[0]) or syntax.pieces(*told)
    )
    infilled(tokenizer, PYTHON * 4, "a", 0.0)
    assert asked == []
    assert len(infilled(tokenizer, PYTHON * 4, "a")) > 4 and asked == ["Python"]
