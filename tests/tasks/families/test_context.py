"""Repository context is what llama.cpp's server would send, token for token."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.families.context import LEAST, SNIPPET, Names, repository_context
from tasks.families.marks import FimTokens
from tasks.models.vocabulary import CodeTokenizer, decode, encode, load_tokenizer
from tasks.related import RelatedFile
from tests.tasks.tokenization import toys

GRANITE = ("<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<reponame>")
DEEPSEEK = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")
FILES = [RelatedFile("src/a.py", toys.CORPUS[0]), RelatedFile("src/é.py", toys.CORPUS[1] + "日本\r\n")]


def vocabulary(folder: Path, kind: str) -> CodeTokenizer:
    match kind:
        case "Qwen2.5-Coder":
            return load_tokenizer(toys.byte_level(folder, names=toys.QWEN))
        case "Granite Code":
            return load_tokenizer(toys.byte_level(folder, names=GRANITE))
        case "DeepSeek-Coder":
            return load_tokenizer(toys.byte_level(folder, names=DEEPSEEK, bos="<begin>", template=True))
        case _:
            return load_tokenizer(toys.code_llama(folder))


def infill(
    tokenizer: CodeTokenizer, extra: list[RelatedFile], prefix: list[int], suffix: list[int], add_bos: bool
) -> list[int]:
    """`format_prompt_infill` of llama.cpp, line by line, with tokens that it finds by their names."""

    def find(*names: str) -> int | None:
        return next((tokenizer.ids[name] for name in names if name in tokenizer.ids), None)

    rep = find("<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>")
    sep = find("<|file_sep|>")
    pre = find("<|fim_prefix|>", "<fim_prefix>", "<｜fim▁begin｜>", "▁<PRE>")
    suf = find("<|fim_suffix|>", "<fim_suffix>", "<｜fim▁hole｜>", "▁<SUF>")
    mid = find("<|fim_middle|>", "<fim_middle>", "<｜fim▁end｜>", "▁<MID>")
    assert pre is not None and suf is not None and mid is not None
    tokens: list[int] = []
    if rep is not None:
        tokens += [rep, *encode(tokenizer, "myproject\n")]
    for chunk in extra:
        if sep is not None:
            tokens += [sep, *encode(tokenizer, chunk.path + "\n")]
        else:
            snippet = bytes.fromhex("0a0a2d2d2d20736e6970706574202d2d2d0a0a").decode()
            tokens += encode(tokenizer, snippet)
        tokens += encode(tokenizer, chunk.text)
    if sep is not None:
        tokens += [sep, *encode(tokenizer, "filename\n")]
    start = [] if tokenizer.bos is None or not add_bos else [tokenizer.bos]
    return [*tokens, *start, pre, *prefix, suf, *suffix, mid]


@pytest.mark.parametrize("kind", ["Qwen2.5-Coder", "Granite Code", "DeepSeek-Coder", "Code Llama"])
def test_it_is_what_the_server_sends(kind: str, tmp_path: Path) -> None:
    tokenizer = vocabulary(tmp_path, kind)
    fim = FimTokens.of(tokenizer)
    prefix, suffix = encode(tokenizer, "x = "), encode(tokenizer, "\ny\n", continues=True)
    before = repository_context(tokenizer, fim, FILES, Names(), 2000)
    sent = infill(tokenizer, FILES, prefix, suffix, add_bos=True)
    assert [*before, *fim.prompt(tokenizer.bos, prefix, suffix)] == sent
    assert ("src/a.py" in decode(tokenizer, sent)) == (kind == "Qwen2.5-Coder")
    assert (SNIPPET in decode(tokenizer, sent)) == (kind != "Qwen2.5-Coder")


def test_repository_and_file_may_have_their_own_names(tmp_path: Path) -> None:
    tokenizer = vocabulary(tmp_path, "Qwen2.5-Coder")
    fim = FimTokens.of(tokenizer)
    ids = repository_context(tokenizer, fim, FILES[:1], Names("me/tool", "src/b.py"), 2000)
    written = [
        *(fim.repository, *encode(tokenizer, "me/tool\n")),
        *(fim.file, *encode(tokenizer, "src/a.py\n"), *encode(tokenizer, FILES[0].text)),
        *(fim.file, *encode(tokenizer, "src/b.py\n")),
    ]
    assert ids == written


@pytest.mark.parametrize("kind", ["Qwen2.5-Coder", "Code Llama"])
@pytest.mark.parametrize("room", [0, 40, 80, 160, 300])
def test_texts_are_cut_after_lines_and_fit_the_room(kind: str, room: int, tmp_path: Path) -> None:
    tokenizer = vocabulary(tmp_path, kind)
    fim = FimTokens.of(tokenizer)
    files = [RelatedFile(f"{name}.py", "".join(f"{name} = {n}\n" for n in range(60))) for name in "abcd"]
    ids = repository_context(tokenizer, fim, files, Names(), room)
    assert len(ids) <= room
    assert bool(ids) == (room > 0) or room == 40
    lines = decode(tokenizer, ids).splitlines()
    named = {line[0] for line in lines if " = " in line}
    assert named >= {"a", "b"} or room < 160
    kept = [line for line in lines if line.strip().startswith("a = ")]
    assert [line.strip() for line in kept] == [f"a = {n}" for n in range(len(kept))]


def test_a_file_that_cannot_be_written_or_is_empty_is_passed_over(tmp_path: Path) -> None:
    tokenizer = vocabulary(tmp_path, "Qwen2.5-Coder")
    fim = FimTokens.of(tokenizer)
    one_line = RelatedFile("long.py", "x" * 5000)
    blank = RelatedFile("blank.py", "\n\n")
    both = repository_context(tokenizer, fim, [one_line, blank, FILES[0]], Names(), 300)
    assert both == repository_context(tokenizer, fim, FILES[:1], Names(), 300)
    assert repository_context(tokenizer, fim, [one_line, blank], Names(), 300) == [] and LEAST > 1
