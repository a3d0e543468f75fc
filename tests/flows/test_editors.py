"""What editors are told: in each one's own format, with the marks and the order of the model's family."""

from __future__ import annotations

import html
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.editors import Snippet, find_marks, snippets
from tasks.families import Marks
from tasks.families.marks import ALL
from tests.conftest import ROOT
from tools import pictures

ADDRESS = "http://127.0.0.1:8012"
QWEN = next(marks for marks in ALL if marks.prefix == "<|fim_prefix|>")


def told(marks: Marks) -> dict[str, Snippet]:
    return {one.editor: one for one in snippets(ADDRESS, "codetune", marks)}


@pytest.mark.parametrize("marks", ALL, ids=lambda marks: marks.prefix)
def test_each_is_read_by_the_parser_of_its_format(marks: Marks) -> None:
    found = told(marks)
    continued = yaml.safe_load(found["Continue"].text)[0]
    assert continued["promptTemplates"]["autocomplete"] == marks.around("{{{prefix}}}", "{{{suffix}}}")
    tabby = tomllib.loads(found["Tabby"].text)["model"]["completion"]["http"]
    assert tabby["prompt_template"] == marks.around("{prefix}", "{suffix}")
    assert continued["apiBase"] == tabby["api_endpoint"] == ADDRESS
    if "llama.vscode" in found:
        assert json.loads(f"{{{found['llama.vscode'].text}}}") == {"llama-vscode.endpoint": ADDRESS}
    if "Zed" in found:
        zed = json.loads(found["Zed"].text)["edit_predictions"]
        assert zed[zed["provider"]]["api_url"] == f"{ADDRESS}/v1/completions"


def test_the_suffix_comes_first_where_the_family_has_it_first() -> None:
    seed, codestral = (
        Marks("<p>", "<s>", "<m>", suffix_first=True),
        Marks("[PREFIX]", "[SUFFIX]", None, suffix_first=True),
    )
    assert seed.around("a", "b") == "<s>b<p>a<m>"
    assert codestral.around("a", "b") == "[SUFFIX]b[PREFIX]a"
    assert "llama.vim" not in told(seed) and "llama.vim" not in told(codestral)  # /infill writes the prefix first


def test_zed_is_told_nothing_where_it_writes_other_marks() -> None:
    assert [marks.prefix for marks in ALL if "Zed" not in told(marks)] == ["▁<PRE>", "<[fim-prefix]>"]


def test_marks_are_those_that_are_one_token_each() -> None:
    vocabulary = {"<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"}
    found = find_marks(ALL, lambda text: 1 if text in vocabulary else len(text))
    assert found and found.prefix == "<fim_prefix>" and find_marks(ALL, len) is None
    assert snippets(ADDRESS, "codetune", None) == []


def test_the_docs_show_them() -> None:
    page = (ROOT / "docs" / "editor.md").read_text(encoding="utf-8")
    assert [one.editor for one in told(QWEN).values() if one.text not in page] == []


@pytest.mark.parametrize("editor", pictures.FILES)
def test_with_them_a_settings_file_is_whole(editor: str) -> None:
    readers: dict[str, Callable[[str], Any]] = {"json": json.loads, "yaml": yaml.safe_load, "toml": tomllib.loads}
    text = told(QWEN)[editor].text
    file, lines = pictures.filled_in(editor, text)
    assert [file.splitlines()[number - 1].strip() for number in sorted(lines)] == [
        line.strip() for line in text.splitlines()
    ]
    if reader := readers.get(pictures.FILES[editor][0]):
        assert reader(file)


def test_the_pictures_are_those_of_today(tmp_path: Path) -> None:
    drawn = pictures.draw_editors(tmp_path)
    assert drawn.keys() == told(QWEN).keys()
    for editor, name in drawn.items():
        there = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        assert words_of(there) == words_of((tmp_path / name).read_text(encoding="utf-8")), "run `make pictures`"
        assert "url(http" not in there
        lines = pictures.filled_in(editor, told(QWEN)[editor].text)[0].splitlines()
        assert [line for line in lines if re.sub(r"\s", "", line) not in words_of(there)] == []  # none is cut


def words_of(picture: str) -> str:
    """What is written in a picture, without spaces: those are gaps there."""
    written = "".join(re.findall(r"<text[^>]*>([^<]*)</text>", picture))
    return re.sub(r"\s", "", html.unescape(written))
