"""README and docs: what they tell people to type is accepted, and what they name is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from flows import cli, recipes
from flows.config import PipelineConfig, build
from flows.recipes import text
from tasks.families import FAMILIES
from tests.conftest import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PLACEHOLDERS = {"…": "1", "[VERSION]": "v1", "COMMAND": "run", "MODEL": "v1", "mine.yaml": "demo"}
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)


def codes(page: Path) -> Iterator[str]:
    """What a page shows as code: lines of blocks, and spans."""
    written = page.read_text(encoding="utf-8")
    for block in FENCE.finditer(written):
        for line in block[2].replace("\\\n", " ").splitlines():
            yield line.removeprefix("$ ").strip()
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", written).replace("\n", " "))


def commands(program: str) -> list[list[str]]:
    """Arguments of all calls of a program, with something in place of each placeholder."""
    found = []
    for page in PAGES:
        for code in codes(page):
            code = re.sub(r"^([A-Z_]+=\S+ +)*(\.venv/bin/)?", "", code)
            if code.startswith(f"{program} ") and not re.match(r"\S+ (adapts|fine-tunes|──)", code):
                words = shlex.split(code, comments=True)
                words = words[: words.index("&&")] if "&&" in words else words
                found.append([PLACEHOLDERS.get(word, word) for word in words[1:]])
    return found


def identity(arguments: list[str]) -> str:
    return " ".join(arguments)


@pytest.mark.parametrize("arguments", commands("codetune"), ids=identity)
def test_the_command_line_takes_it(arguments: list[str]) -> None:
    if arguments[1:] == [] and not arguments[0].startswith("-"):
        assert arguments[0] in {
            name for group in cli.COMMANDS.values() for name in group
        }  # the name alone, in a sentence
        return
    command, bound, _ = cli.app.parse_args(arguments, exit_on_error=False, print_error=False)
    if arguments[-1] in ("--help", "--version"):
        assert command.__name__ in ("help_print", "version_print")
        return
    assert command.__name__.removeprefix("list_") == arguments[0]
    if changes := bound.arguments.get("changes"):
        recipe = bound.arguments.get("recipe", "demo")
        assert build(recipe, changes) != build(recipe, [])


@pytest.mark.parametrize("arguments", commands("make"), ids=identity)
def test_make_has_it(arguments: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in arguments:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"\$[({{]?(if \$\()?{name}\b" if is_variable else rf"^{name}:", makefile, re.M), word


@pytest.mark.parametrize("arguments", [one for one in commands("python") if one[0] == "-m"], ids=identity)
def test_the_module_has_the_options(arguments: list[str]) -> None:
    module, *options = arguments[1:]
    found = importlib.util.find_spec(module)
    assert found and found.origin
    origin = Path(found.origin)
    if origin.name == "__init__.py":  # a package is started by a module of its own
        origin = origin.with_name("__main__.py")
    source = origin.read_text(encoding="utf-8")
    assert "__main__" in source and [one for one in options if one[:2] == "--" and f'"{one}"' not in source] == []


def settings() -> set[str]:
    """Every dotted name that a page shows and whose first part is a section of the configuration."""
    found = {
        name
        for page in PAGES
        for code in codes(page)
        if not code.startswith("[")  # a heading in another program's file
        for name in re.findall(r"(?<![/\w.])[a-z_]+(?:\.[a-z_][a-z_0-9]*)+", code)
    }
    return {
        name for name in found if name.partition(".")[0] in PipelineConfig.model_fields and not name.endswith(".py")
    }


@pytest.mark.parametrize("name", sorted(settings()))
def test_the_setting_exists(name: str) -> None:
    models = [PipelineConfig]
    for part in name.split("."):
        fields = [model.model_fields[part] for model in models if part in model.model_fields]
        assert fields, f"{part} of {name}"
        models = [one for field in fields for one in parts(field.annotation) if hasattr(one, "model_fields")]


def parts(annotation: object) -> Iterator[type]:
    """The classes in an annotation: `A | None`, `Annotated[A | B, …]`."""
    if found := get_args(annotation):
        for one in found:
            yield from parts(one)
    elif isinstance(annotation, type):
        yield annotation


def test_recipes_are_read() -> None:
    shown = [
        block[2] for page in PAGES for block in FENCE.finditer(page.read_text(encoding="utf-8")) if block[1] == "yaml"
    ]
    assert shown
    for written in shown:
        PipelineConfig.model_validate(recipes.merge(recipes.load(text.read(written)["recipe"]), text.read(written)))


def slug(heading: str) -> str:
    """The anchor that a heading gets where Markdown is shown."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    written = FENCE.sub("", page.read_text(encoding="utf-8"))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", written):
        where, _, anchor = target.partition("#")
        if "://" in where:
            continue
        path = (page.parent / where) if where else page
        headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M) if path.suffix == ".md" else []
        if not path.exists() or (anchor and anchor not in map(slug, headings)):
            broken.append(target)
    named = re.findall(r"`((?:artifacts|tasks|flows|tests|bench|tools|docs|models)/[\w./-]*)`", written)
    assert broken + [path for path in named if not (ROOT / path).exists()] == []


def test_readme_lists_every_family() -> None:
    rows = re.findall(r"^\| (.+) \| (yes|no) \| `(\w+)` \|$", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
    shown = {(name, fim == "yes", backend) for names, fim, backend in rows for name in names.split(", ")}
    assert shown == {
        (family.name, family.marks is not None, "fused" if family.llama_layers else "transformers")
        for family in FAMILIES
    }
