"""A Modelfile as Ollama's documentation describes it, and adapters as vLLM takes them."""

from __future__ import annotations

import dataclasses
import re
import shlex
from pathlib import Path

import pytest

from tasks.exporting.adapter import Adapter
from tasks.exporting.serving import RANKS, modelfile, vllm_lines, vllm_problem
from tasks.families import FAMILIES, Family
from tasks.families.chat import find_template, join_marks, split_marks
from tasks.families.marks import FimTokens, marks_of
from tasks.models.vocabulary import load_tokenizer
from tests.tasks.families import models

INSTRUCTION = re.compile(r'\s*(?P<name>[A-Za-z]+)\s+(?P<value>"""(?:.|\n)*?"""|[^\n]+)(?:\n|$)')
KNOWN = {"FROM", "TEMPLATE", "PARAMETER", "LICENSE", "SYSTEM", "ADAPTER", "MESSAGE"}


def read(text: str) -> list[tuple[str, str]]:
    """The instructions of a Modelfile: a name and a value, which three quotes let go over lines."""
    found, place = [], 0
    while place < len(text):
        match = INSTRUCTION.match(text, place)
        assert match and match["name"].upper() in KNOWN, text[place : place + 60]
        value = match["value"]
        found.append((match["name"].upper(), value[3:-3] if value.startswith('"""') else value))
        place = match.end()
    return found


def render(template: str, **values: str) -> str:
    """Go's templates as far as these go: one `if .Suffix`, variables, texts."""
    if found := re.fullmatch(r"\{\{ if \.Suffix \}\}(.*)\{\{ else \}\}(.*)\{\{ end \}\}", template, re.S):
        template = found[1] if values.get("Suffix") else found[2]
    shown = re.sub(r"\{\{ \.(\w+) \}\}", lambda match: values.get(match[1], ""), template)
    return re.sub(r'\{\{ "([^"]*)" \}\}', r"\1", shown)


@pytest.fixture(scope="module", params=FAMILIES, ids=lambda family: family.name)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Family, Path]:
    family: Family = request.param
    return family, models.write(tmp_path_factory.mktemp("model"), family)


def test_a_gap_is_written_in_the_order_and_with_the_marks_of_the_family(made: tuple[Family, Path]) -> None:
    family, base = made
    tokenizer = load_tokenizer(base)
    told = dict(read(modelfile("model-q8_0.gguf", base, tokenizer, 512, chats=False)))
    assert told["FROM"] == "./model-q8_0.gguf"
    fim = FimTokens.find(tokenizer)
    assert (".Suffix" in told["TEMPLATE"]) == (fim is not None) == (family.marks is not None)
    assert render(told["TEMPLATE"], Prompt="a = 1") == "a = 1"
    if fim:
        text = render(told["TEMPLATE"], Prompt="PREFIX", Suffix="SUFFIX")
        places: dict[str | int, int] = {"PREFIX": -1, "SUFFIX": -2}
        ids = [places.get(part, part) for part in split_marks(tokenizer, text)]
        assert ids == fim.prompt(None, [-1], [-2])


def test_an_answer_stops_at_every_mark_and_end(made: tuple[Family, Path]) -> None:
    _, base = made
    tokenizer = load_tokenizer(base)
    told = read(modelfile("m.gguf", base, tokenizer, 512, chats=False))
    stops = {re.fullmatch(r'stop "(.*)"', value)[1] for name, value in told if value.startswith("stop ")}  # type: ignore[index]
    marks, fim = marks_of(tokenizer), FimTokens.find(tokenizer)
    assert {tokenizer.ids[name] for name in stops} >= {
        tokenizer.eos,
        *([fim.end, fim.prefix, fim.suffix] if fim else []),
    }
    assert marks is None or {marks.prefix, marks.suffix} <= stops
    assert ("PARAMETER", "num_ctx 512") in told


def test_a_chat_is_asked_as_the_models_own_template_asks(made: tuple[Family, Path]) -> None:
    _, base = made
    chat, tokenizer = find_template(base), load_tokenizer(base)
    if chat is None:
        pytest.skip("the family has no chat template")
    told = dict(read(modelfile("m.gguf", base, tokenizer, None, chats=True)))
    asked = render(told["TEMPLATE"], Prompt="why?").removesuffix(chat.end)
    start = [] if tokenizer.bos is None or tokenizer.bos not in chat.ask(tokenizer, "x")[:1] else [tokenizer.bos]
    assert [*start, *join_marks(tokenizer, split_marks(tokenizer, asked))] == chat.ask(tokenizer, "why?")


def test_a_licence_is_whole_whatever_it_says(tmp_path: Path) -> None:
    base = models.write(tmp_path, FAMILIES[0])
    (base / "LICENSE").write_text('Do "as" you like.\n\n"""FROM elsewhere"""\n')
    told = read(modelfile("m.gguf", base, load_tokenizer(base), 1 << 20, chats=False))
    assert [name for name, _ in told].count("FROM") == 1
    assert dict(told)["LICENSE"] == 'Do "as" you like.\n\n' + "'''FROM elsewhere'''"
    assert ("PARAMETER", "num_ctx 8192") in told


def adapter(**settings: object) -> Adapter:
    return Adapter(
        Path(), {"r": 8, "lora_alpha": 16, "bias": "none", **settings}, {"model.layers.0.self_attn.q_proj": False}
    )


@pytest.mark.parametrize(("rank", "allowed"), [(1, 8), (8, 8), (12, 16), (300, 320), (512, 512)])
def test_vllm_is_given_a_rank_that_it_takes(rank: int, allowed: int) -> None:
    words = shlex.split(vllm_lines(adapter(r=rank), "org/base", "abc", "/a b/adapter").replace("\\\n", ""))
    assert words[:3] == ["vllm", "serve", "org/base"] and "--enable-lora" in words
    assert allowed in RANKS and words[words.index("--max-lora-rank") + 1] == str(allowed)
    assert words[words.index("--revision") + 1] == "abc"
    assert words[words.index("--lora-modules") + 1] == "codetune=/a b/adapter"


@pytest.mark.parametrize(
    "settings",
    [{"r": 513}, {"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"bias": "all"}, {"alpha_pattern": {"q": 1}}],
)
def test_what_vllm_cannot_take_is_said(settings: dict[str, object]) -> None:
    assert vllm_problem(adapter(**settings)) and vllm_lines(adapter(**settings), "b", None, ".").startswith("# ")
    embedded = dataclasses.replace(adapter(), modules={"model.embed_tokens": True})
    assert vllm_problem(embedded) and not vllm_problem(adapter())
